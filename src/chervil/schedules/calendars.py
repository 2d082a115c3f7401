"""Days on which nothing is due."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Any

from chervil.exceptions import ImproperlyConfigured

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Calendar:
    """Times to leave out, by their date where the schedule is.

    :param dates: dates, as ``date`` or ISO text such as ``"2026-12-25"``; ``"12-25"`` is
        that day of every year.
    :param weekdays: names such as ``"sat"``, or numbers with Sunday = 0, as in crontab.
    :param check: called with the due time (aware, in the schedule's zone); True leaves it out.
    """

    def __init__(
        self,
        dates: Iterable[str | dt.date] = (),
        weekdays: Iterable[str | int] = (),
        check: Callable[[dt.datetime], bool] | None = None,
    ) -> None:
        self._dates = frozenset(map(_date, [dates] if isinstance(dates, str) else dates))
        given = [weekdays] if isinstance(weekdays, str) else weekdays
        self._weekdays = frozenset(map(_weekday, given))
        if check is not None and not callable(check):
            raise ImproperlyConfigured(f"check={check!r} cannot be called")
        if len(self._weekdays) == 7:
            raise ImproperlyConfigured("a calendar that leaves out all weekdays leaves nothing")
        self.check = check

    def excludes(self, due: dt.datetime) -> bool:
        """Whether to leave this time out.

        :param due: aware, in the schedule's zone.
        """
        day = due.date()
        return (
            day.isoformat() in self._dates
            or day.isoformat()[5:] in self._dates
            or day.isoweekday() % 7 in self._weekdays
            or (self.check is not None and bool(self.check(due)))
        )

    def to_dict(self) -> dict[str, Any]:
        """In values that JSON has.

        :raises ImproperlyConfigured: it has a ``check``, which cannot be stored.
        """
        if self.check is not None:
            raise ImproperlyConfigured(
                "a calendar with check= cannot be stored; give dates and weekdays, or keep "
                "the entry in beat_schedule"
            )
        names = [WEEKDAYS[number] for number in sorted(self._weekdays)]
        return {"dates": sorted(self._dates), "weekdays": names}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Calendar):
            return NotImplemented
        mine, others = ((x._dates, x._weekdays, x.check) for x in (self, other))
        return mine == others

    def __hash__(self) -> int:
        return hash((self._dates, self._weekdays, self.check))

    def __repr__(self) -> str:
        parts = [*sorted(self._dates), *(WEEKDAYS[number] for number in sorted(self._weekdays))]
        return f"<Calendar: not on {', '.join(parts) or 'what its check says'}>"


def _date(value: str | dt.date) -> str:
    if isinstance(value, dt.datetime):
        value = value.date()
    if isinstance(value, dt.date):
        return value.isoformat()
    try:
        if isinstance(value, str) and len(value) == 5:
            return dt.date.fromisoformat("2000-" + value).isoformat()[5:]
        return dt.date.fromisoformat(value).isoformat()
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(
            f"{value!r} is no date: write 2026-12-25, or 12-25 for every year"
        ) from exc


def _weekday(value: str | int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 7:
        return value % 7
    if isinstance(value, str) and value[:3].lower() in WEEKDAYS:
        return WEEKDAYS.index(value[:3].lower())
    raise ImproperlyConfigured(f"{value!r} is no weekday: write 'sun' to 'sat', or 0 to 6")
