"""When a periodic task is due: intervals, crontab, the sun, single moments.

All of them are values: they compare, print and pickle, and are written as JSON and
back by :func:`to_dict` and :func:`from_dict`. Each answers one question,
:meth:`BaseSchedule.next_after`; Celery's ``is_due`` and ``remaining_estimate`` are
derived from it.
"""

from __future__ import annotations

from chervil.schedules.base import BaseSchedule, from_dict, maybe_schedule, schedstate, to_dict
from chervil.schedules.calendars import Calendar
from chervil.schedules.cron import cron, crontab
from chervil.schedules.interval import schedule
from chervil.schedules.once import clocked
from chervil.schedules.sun import solar

__all__ = [
    "BaseSchedule",
    "Calendar",
    "clocked",
    "cron",
    "crontab",
    "from_dict",
    "maybe_schedule",
    "schedstate",
    "schedule",
    "solar",
    "to_dict",
]
