"""Times of day, week and year: Celery's crontab, and that of Unix."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from cronsim import CronSim, CronSimError

from chervil.exceptions import ImproperlyConfigured
from chervil.schedules.base import UTC, BaseSchedule, aware, zone_name
from chervil.schedules.fields import FIELDS, Spec, as_text, expand

_MINUTE = dt.timedelta(minutes=1)
_DAY = dt.timedelta(days=1)
#: The 29th of February falls on each day of the week within 40 years.
_YEARS = 41
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class _Cron(BaseSchedule):
    """A rule of five fields, in the wall-clock time of a zone.

    Where clocks are moved, it does what Debian's cron does. A rule whose minute and hour
    are both given (not beginning with ``*``) is due once on every day that it names: a
    time that does not exist is moved to the first one that does, and of a time that comes
    twice the first counts. Other rules follow the clock on the wall: nothing is due in the
    hour that is left out, and what comes twice is due twice.
    """

    #: The fields as text, in cron's order.
    _text: str
    #: The parsed fields; it also knows which days match.
    _fields: CronSim

    def _parse(self, text: str, both: bool) -> None:
        """
        :param both: day of month and day of week must both match; else one is enough.
        """
        self._text = text
        try:
            self._fields = CronSim(text, dt.datetime(2024, 1, 1, tzinfo=UTC))
        except CronSimError as exc:
            raise ImproperlyConfigured(f"{self!r}: {str(exc).lower()}") from exc
        if both:
            self._fields.day_and = True
        minute, hour, *_ = text.split()
        self._fixed = not (minute.startswith("*") or hour.startswith("*"))
        if self.next_after(dt.datetime(2024, 1, 1, tzinfo=UTC)) is None:
            raise ImproperlyConfigured(f"{self!r} names no day that exists")

    def next_after(
        self, moment: dt.datetime, default_tz: dt.tzinfo | None = None
    ) -> dt.datetime | None:
        """See :meth:`BaseSchedule.next_after`."""
        moment, tz = aware(moment), self.in_zone(default_tz)
        day = moment.astimezone(tz).date()
        if self._fixed:
            day -= _DAY  # a time that does not exist may be moved over midnight
        last = day.year + _YEARS
        while day.year <= last:
            if day.month not in self._fields.months:
                day = (day.replace(day=1) + 32 * _DAY).replace(day=1)
                continue
            if self._fields.match_day(day):
                found = self._on(day, moment, tz)
                if found is not None:
                    return found
            day += _DAY
        return None

    def _on(self, day: dt.date, moment: dt.datetime, tz: dt.tzinfo) -> dt.datetime | None:
        """The first due time on that day that is later than the moment."""
        if not self._fixed:
            return self._walk(day, moment, tz)
        for hour in sorted(self._fields.hours):
            for minute in sorted(self._fields.minutes):
                due = _first_that_exists(dt.datetime.combine(day, dt.time(hour, minute)), tz)
                if due > moment:
                    return due
        return None

    def _walk(self, day: dt.date, moment: dt.datetime, tz: dt.tzinfo) -> dt.datetime | None:
        """Follow the clock on the wall through that day."""
        hours, minutes = self._fields.hours, self._fields.minutes
        # Where midnight does not exist this is the first moment of the day.
        at = dt.datetime.combine(day, dt.time(), tz).astimezone(UTC)
        if at <= moment:
            at = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        wall = at.astimezone(tz)
        while wall.date() == day:
            if wall.hour in hours and wall.minute in minutes:
                return at
            step = 1
            if wall.hour not in hours:
                step = 60 - wall.minute
            else:
                later = [minute for minute in minutes if minute > wall.minute]
                step = min(later, default=60) - wall.minute
            following = (at + step * _MINUTE).astimezone(tz)
            if following.utcoffset() != wall.utcoffset():
                step = 1  # clocks are moved on the way
            at += step * _MINUTE
            wall = at.astimezone(tz)
        return None

    def _explain(self) -> str:
        said = self._fields.explain()
        return said[:1].lower() + said[1:]

    def _zone_text(self) -> str:
        return f", {zone_name(self._tz)}" if self._tz is not None else ""


def _first_that_exists(wall: dt.datetime, tz: dt.tzinfo) -> dt.datetime:
    """In UTC, the time that a clock shows there, or the next that it ever shows."""
    while True:
        found = wall.replace(tzinfo=tz).astimezone(UTC)
        if found.astimezone(tz).replace(tzinfo=None) == wall:
            return found
        wall += _MINUTE


class crontab(_Cron):
    """Due when the clock shows what all five fields name, as in Celery.

    Each field takes a number, text (``"*"``, ``"*/15"``, ``"8-17"``, ``"8-17/2"``, ``"22-4"``,
    ``"mon,wed"``, ``"jan"``) or several of these. A time is due only if *all* fields match:
    ``day_of_month="13", day_of_week="fri"`` is Friday the 13th. (In a Unix crontab it would
    be every 13th and every Friday: that is :class:`cron`.)

    :param day_of_week: Sunday is 0, and 7 as well.
    :param tz: see :class:`BaseSchedule`.
    :raises ImproperlyConfigured: a field is wrong, or they name no day that exists.
    """

    kind = "crontab"

    def __init__(
        self,
        minute: Spec = "*",
        hour: Spec = "*",
        day_of_week: Spec = "*",
        day_of_month: Spec = "*",
        month_of_year: Spec = "*",
        nowfun: Callable[[], dt.datetime] | None = None,
        app: Any = None,
        *,
        tz: str | dt.tzinfo | None = None,
    ) -> None:
        super().__init__(tz=tz, nowfun=nowfun, app=app)
        given = (minute, hour, day_of_week, day_of_month, month_of_year)
        self._given = tuple(s if isinstance(s, int | str) else _several(s) for s in given)
        sets = [expand(field, spec) for field, spec in zip(FIELDS, self._given, strict=True)]
        self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year = sets
        texts = [as_text(*three) for three in zip(FIELDS, self._given, sets, strict=True)]
        self._parse(" ".join(texts[place] for place in (0, 1, 3, 4, 2)), both=True)

    @classmethod
    def from_string(cls, crontab: str) -> crontab:
        """From five fields in cron's order: minute, hour, day of month, month, day of week.

        :raises ImproperlyConfigured: it has another number of fields, or one is wrong.
        """
        fields = crontab.split()
        if len(fields) != 5:
            raise ImproperlyConfigured(
                f"crontab {crontab!r} has {len(fields)} fields and needs 5: minute, hour, "
                "day of month, month, day of week"
            )
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    def arguments(self) -> dict[str, Any]:
        """See :meth:`BaseSchedule.arguments`."""
        named = {field.name: spec for field, spec in zip(FIELDS, self._given, strict=True)}
        return {**named, "tz": zone_name(self._tz)}

    def words(self) -> str:
        """See :meth:`BaseSchedule.words`."""
        text = self._explain()
        fields = self._text.split()
        if not (fields[2].startswith("*") or fields[4].startswith("*")):
            text += " (when both match)"
        return text + self._zone_text()

    def __repr__(self) -> str:
        shown = (",".join(map(str, s)) if isinstance(s, list) else str(s) for s in self._given)
        minute, hour, week, month_day, month = shown
        return f"<crontab: {minute} {hour} {month_day} {month} {week} (m/h/dM/MY/d)>"


class cron(_Cron):
    """Due as a line of a Unix crontab: ``"30 9 * * mon-fri"``, ``"@daily"``.

    Five fields: minute, hour, day of month, month, day of week. Where both days are given,
    one that matches is enough. Also known are names of days and months, ``L`` (last), ``LW``
    (last weekday of the month), ``fri#2`` (the second Friday) and ``5L`` (the last Friday).

    :raises ImproperlyConfigured: it is no such text, or names no day that exists.
    """

    kind = "cron"

    def __init__(
        self,
        expression: str,
        nowfun: Callable[[], dt.datetime] | None = None,
        app: Any = None,
        *,
        tz: str | dt.tzinfo | None = None,
    ) -> None:
        super().__init__(tz=tz, nowfun=nowfun, app=app)
        self.expression = expression
        text = _NICKNAMES.get(expression.strip().lower(), expression)
        if len(text.split()) != 5:
            names = ", ".join(_NICKNAMES)
            raise ImproperlyConfigured(
                f"{expression!r} is no crontab expression: it has {len(text.split())} fields and "
                f"needs 5 (minute, hour, day of month, month, day of week), or one of {names}"
            )
        self._parse(text, both=False)

    def arguments(self) -> dict[str, Any]:
        """See :meth:`BaseSchedule.arguments`."""
        return {"expression": self.expression, "tz": zone_name(self._tz)}

    def words(self) -> str:
        """See :meth:`BaseSchedule.words`."""
        return self._explain() + self._zone_text()

    def __repr__(self) -> str:
        return f"<cron: {self.expression}>"


def _several(spec: Any) -> Any:
    try:
        return list(spec)
    except TypeError:
        return spec
