"""Periodic tasks: entries, the scheduler, and the service that sends what is due.

Celery's names are here: ``Scheduler`` and ``PersistentScheduler`` (the same: all state is
kept in the coordinator), ``ScheduleEntry``, ``Service``.
"""

from __future__ import annotations

from chervil.beat.entries import ScheduleEntry
from chervil.beat.scheduler import Scheduler
from chervil.beat.service import Service

PersistentScheduler = Scheduler

__all__ = ["PersistentScheduler", "ScheduleEntry", "Scheduler", "Service"]
