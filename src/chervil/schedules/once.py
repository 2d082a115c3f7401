"""A single moment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from chervil.exceptions import ImproperlyConfigured
from chervil.schedules.base import UTC, BaseSchedule, aware, zone_name


class clocked(BaseSchedule):
    """Due once.

    :param clocked_time: a ``datetime`` or ISO 8601 text; without an offset it is read in
        the schedule's zone.
    """

    kind = "once"

    def __init__(
        self,
        clocked_time: dt.datetime | str,
        nowfun: Callable[[], dt.datetime] | None = None,
        app: Any = None,
        *,
        tz: str | dt.tzinfo | None = None,
    ) -> None:
        super().__init__(tz=tz, nowfun=nowfun, app=app)
        if isinstance(clocked_time, str):
            try:
                clocked_time = dt.datetime.fromisoformat(clocked_time)
            except ValueError as exc:
                raise ImproperlyConfigured(
                    f"{clocked_time!r} is not a time in ISO 8601 (such as 2030-01-02T03:04:05)"
                ) from exc
        if not isinstance(clocked_time, dt.datetime):
            raise ImproperlyConfigured(f"{clocked_time!r} is not a datetime")
        self.clocked_time = clocked_time

    def next_after(
        self, moment: dt.datetime, default_tz: dt.tzinfo | None = None
    ) -> dt.datetime | None:
        """See :meth:`BaseSchedule.next_after`."""
        due = self.clocked_time
        if due.tzinfo is None:
            due = due.replace(tzinfo=self.in_zone(default_tz))
        due = due.astimezone(UTC)
        return due if due > aware(moment) else None

    def arguments(self) -> dict[str, Any]:
        """See :meth:`BaseSchedule.arguments`."""
        return {"clocked_time": self.clocked_time.isoformat(), "tz": zone_name(self._tz)}

    def words(self) -> str:
        """See :meth:`BaseSchedule.words`."""
        return f"once, at {self.clocked_time:%Y-%m-%d %H:%M:%S}"

    def __repr__(self) -> str:
        return f"<clocked: {self.clocked_time.isoformat()}>"
