"""Every so many seconds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from chervil.exceptions import ImproperlyConfigured
from chervil.schedules.base import UTC, BaseSchedule, aware, zone_name

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class schedule(BaseSchedule):
    """Every ``run_every``, counted in time that really passes: a day is 24 hours, also
    where clocks are moved in between; use :class:`crontab` for times of day.

    :param run_every: seconds or a ``timedelta``; more than 0.
    :param relative: round down to the unit of the interval (with days to midnight, with
        hours to the full hour...), in the schedule's zone.
    """

    kind = "interval"

    def __init__(
        self,
        run_every: float | dt.timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], dt.datetime] | None = None,
        app: Any = None,
        *,
        tz: str | dt.tzinfo | None = None,
    ) -> None:
        super().__init__(tz=tz, nowfun=nowfun, app=app)
        if isinstance(run_every, bool) or not isinstance(run_every, int | float | dt.timedelta):
            raise ImproperlyConfigured(f"run_every={run_every!r} is neither seconds nor timedelta")
        try:
            every = (
                run_every
                if isinstance(run_every, dt.timedelta)
                else dt.timedelta(seconds=run_every)
            )
        except (OverflowError, ValueError) as exc:
            raise ImproperlyConfigured(f"run_every={run_every!r}: {exc}") from exc
        if every <= dt.timedelta(0):
            raise ImproperlyConfigured(f"run_every={run_every!r} must be more than 0 seconds")
        self.run_every = every
        self.relative = bool(relative)

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return self.run_every.total_seconds()

    @property
    def human_seconds(self) -> str:
        """The interval in words."""
        return _in_words(self.seconds)

    def next_after(
        self, moment: dt.datetime, default_tz: dt.tzinfo | None = None
    ) -> dt.datetime | None:
        """See :meth:`BaseSchedule.next_after`; ``moment`` is the due time before."""
        moment = aware(moment).astimezone(UTC)
        try:
            due = moment + self.run_every
        except OverflowError:
            return None
        if not self.relative:
            return due
        rounded = self._rounded(due, self.in_zone(default_tz))
        return rounded if rounded > moment else due

    def _rounded(self, due: dt.datetime, tz: dt.tzinfo) -> dt.datetime:
        local, seconds = due.astimezone(tz), self.seconds
        fields: dict[str, int] = {"microsecond": 0}
        for size, name in _UNITS[::-1]:
            if size <= 1 or seconds < size:
                continue
            fields |= {"day": {"hour": 0}, "hour": {"minute": 0}, "minute": {"second": 0}}[name]
        return local.replace(**fields).astimezone(UTC)  # type: ignore[arg-type]

    def arguments(self) -> dict[str, Any]:
        """See :meth:`BaseSchedule.arguments`."""
        return {"run_every": self.seconds, "relative": self.relative, "tz": zone_name(self._tz)}

    def words(self) -> str:
        """See :meth:`BaseSchedule.words`."""
        rounded = ", on the full unit" if self.relative else ""
        return f"every {self.human_seconds}{rounded}"

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"


def _in_words(seconds: float) -> str:
    rest, parts = seconds, []
    for size, name in _UNITS[:-1]:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count:.0f} {name}{'s' if count > 1 else ''}")
    if rest or not parts:
        parts.append(f"{rest:g} second{'' if rest == 1 else 's'}")
    text = " ".join(parts)
    return text[2:] if text.startswith("1 ") and len(parts) == 1 else text
