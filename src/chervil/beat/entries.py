"""A periodic task: what is sent, when, and what becomes of times that were missed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chervil import clock
from chervil.beat.missed import MISSED
from chervil.beat.rule import Rule, moment, spread
from chervil.beat.state import State
from chervil.exceptions import ImproperlyConfigured
from chervil.options import check
from chervil.schedules import BaseSchedule, Calendar, maybe_schedule, schedstate, schedule, to_dict
from chervil.schedules.base import UTC, zone, zone_name

if TYPE_CHECKING:
    from chervil.app import Chervil

#: What may be done when the run before has not ended.
OVERLAP: Final = ("allow", "skip", "queue", "cancel_previous")
#: Keys of an entry in ``beat_schedule``.
FIELDS: Final = (
    "task", "schedule", "args", "kwargs", "options", "relative", "start", "end", "jitter",
    "exclude", "tz", "missed", "missed_window", "overlap", "paused",
)  # fmt: skip
#: Keys that Celery's entries may have besides; they are kept elsewhere.
_ACCEPTED: Final = frozenset({"name", "last_run_at", "total_run_count", "app", "enabled"})


class ScheduleEntry:
    """An entry of the schedule, under Celery's names and more.

    :param name: of the entry; the task's when None.
    :param task: name of the task.
    :param schedule: seconds, ``timedelta``, ``crontab(...)``, ``solar(...)``, a ``datetime``
        or five fields of crontab.
    :param options: of ``apply_async``.
    :param relative: round an interval to its unit.
    :param start: nothing is due before; an interval is counted from here. A ``datetime`` (naive:
        in ``tz``), ISO text or Unix time.
    :param end: nothing is due after.
    :param jitter: seconds or ``timedelta`` up to which a firing is put off, by a time that
        follows from name and due time.
    :param exclude: times to leave out: a :class:`~chervil.schedules.Calendar`, or its arguments.
    :param tz: zone in which the schedule is read; the ``timezone`` setting when None.
    :param missed: for due times that nobody was there for: ``skip``; ``once``: the last one;
        ``all``.
    :param missed_window: seconds or ``timedelta`` up to which that is done; None: without a
        limit, and a day for ``all``.
    :param overlap: when the run before has not ended: ``allow``, ``skip``, ``queue`` (wait for
        its end) or ``cancel_previous``.
    :param paused: begin paused.
    :raises ImproperlyConfigured: an argument is wrong.
    """

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: dt.datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        relative: bool = False,
        app: Chervil | None = None,
        *,
        start: Any = None,
        end: Any = None,
        jitter: float | dt.timedelta = 0.0,
        exclude: Calendar | Mapping[str, Any] | None = None,
        tz: str | dt.tzinfo | None = None,
        missed: str = "once",
        missed_window: float | dt.timedelta | None = None,
        overlap: str = "allow",
        paused: bool = False,
    ) -> None:
        self.name = name or task or ""
        self.app = app
        self.task = self._text("task", task)
        self.args, self.kwargs = self._arguments(args, kwargs)
        self.options = dict(options or {})
        check(self.options, f"the periodic task {self.name!r}")
        self.tz = zone(tz) if tz is not None else None
        self.schedule = self._schedule(schedule, relative)
        self.start, self.end = self.time("start", start), self.time("end", end)
        if self.start is not None and self.end is not None and self.end < self.start:
            raise self._wrong("end", end, "after start")
        self.jitter = self._seconds("jitter", jitter) or 0.0
        self.exclude = self._calendar(exclude)
        self.missed = self._choice("missed", missed, MISSED)
        self.missed_window = self._seconds("missed_window", missed_window)
        self.overlap = self._choice("overlap", overlap, OVERLAP)
        self.paused = bool(paused)
        self.rule = Rule(self.schedule, self.zone, self.start, self.end, self.exclude)
        #: As it is stored, and the version of that; set by the scheduler.
        self.state = State({}, paused=self.paused)
        self.version = 0
        #: Its present place in the scheduler's heap.
        self.place = -1
        self._begun = (last_run_at, total_run_count)

    @property
    def zone(self) -> dt.tzinfo:
        """The zone in which the entry is read."""
        return self.tz or (self.app.zone if self.app is not None else UTC)

    # --- checks

    def _wrong(self, field: str, value: object, expected: str) -> ImproperlyConfigured:
        return ImproperlyConfigured(
            f"periodic task {self.name!r}: {field}={value!r:.100} must be {expected}"
        )

    def _text(self, field: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self._wrong(field, value, "the name of a task")
        return value

    def _arguments(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if isinstance(args, (str, bytes, Mapping)) or not isinstance(args or (), Iterable):
            raise self._wrong("args", args, "a list or tuple")
        if not isinstance(kwargs or {}, Mapping):
            raise self._wrong("kwargs", kwargs, "a dict")
        return tuple(args or ()), dict(kwargs or {})

    def _schedule(self, given: Any, relative: bool) -> BaseSchedule:
        try:
            found = maybe_schedule(given)  # which others may share: its zone is not set here
        except ImproperlyConfigured as exc:
            raise ImproperlyConfigured(f"periodic task {self.name!r}: {exc}") from exc
        if relative and type(found) is schedule and not found.relative:
            found = schedule(found.run_every, True, tz=found._tz)
        return found

    def _choice(self, field: str, value: Any, known: tuple[str, ...]) -> str:
        if value not in known:
            raise self._wrong(field, value, f"one of {', '.join(known)}")
        return str(value)

    def _seconds(self, field: str, value: Any) -> float | None:
        if isinstance(value, dt.timedelta):
            value = value.total_seconds()
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise self._wrong(field, value, "seconds or a timedelta, not negative")
        return float(value)

    def time(self, field: str, value: Any) -> float | None:
        """A time in one of the forms that entries take, as Unix time.

        :param field: for the message.
        :raises ImproperlyConfigured: it is in another form.
        """
        expected = "a datetime, ISO 8601 text or Unix time"
        if isinstance(value, str):
            try:
                value = dt.datetime.fromisoformat(value)
            except ValueError:
                raise self._wrong(field, value, expected) from None
        if isinstance(value, dt.datetime):
            return (value if value.tzinfo else value.replace(tzinfo=self.zone)).timestamp()
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(field, value, expected)
        return float(value)

    def _calendar(self, value: Any) -> Calendar | None:
        if value is None or isinstance(value, Calendar):
            return value
        if callable(value):
            return Calendar(check=value)
        if not isinstance(value, Mapping) or value.keys() - {"dates", "weekdays", "check"}:
            raise self._wrong("exclude", value, "a Calendar, or a dict with dates and weekdays")
        return Calendar(**value)

    # --- as values

    @classmethod
    def from_fields(
        cls, name: str, fields: Mapping[str, Any], app: Chervil | None = None
    ) -> ScheduleEntry:
        """Make one of an entry of ``beat_schedule``.

        :raises ImproperlyConfigured: a key is unknown, or a value is wrong.
        """
        for key in fields:
            if key not in FIELDS and key not in _ACCEPTED:
                close = get_close_matches(key, FIELDS, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f" ({', '.join(FIELDS)})"
                raise ImproperlyConfigured(f"periodic task {name!r}: unknown key {key!r}{hint}")
        given = {key: value for key, value in fields.items() if key in FIELDS}
        if fields.get("enabled") is False:
            given["paused"] = True
        return cls(name, app=app, **given)

    def definition(self) -> dict[str, Any]:
        """The entry in values that JSON has.

        :raises ImproperlyConfigured: it has something that cannot be stored.
        """
        found: dict[str, Any] = {"task": self.task, "schedule": to_dict(self.schedule)}
        exclude = self.exclude.to_dict() if self.exclude else None
        for key, value in (
            ("args", list(self.args)),
            ("kwargs", self.kwargs),
            ("options", self.options),
            ("start", self.start),
            ("end", self.end),
            ("jitter", self.jitter),
            ("exclude", exclude),
            ("tz", zone_name(self.tz)),
            ("missed", self.missed if self.missed != "once" else None),
            ("missed_window", self.missed_window),
            ("overlap", self.overlap if self.overlap != "allow" else None),
        ):
            if value:
                found[key] = value
        try:
            same = msgspec.json.decode(msgspec.json.encode(found)) == found
        except (TypeError, ValueError, msgspec.MsgspecError):
            same = False
        if not same:
            raise ImproperlyConfigured(
                f"periodic task {self.name!r} cannot be stored: args, kwargs and options must be "
                "made of text, numbers, lists, dicts with text as keys, True, False and None; "
                "keep others in beat_schedule"
            )
        return found

    def fingerprint(self) -> str:
        """What the due times follow from, as text."""
        try:
            when: Any = sorted(to_dict(self.schedule).items())
        except ImproperlyConfigured:
            when = repr(self.schedule)
        calendar = repr(self.exclude) if self.exclude else ""
        return f"{when} {self.start} {self.end} {self.zone} {calendar}"

    def words(self) -> str:
        """When it is due, in plain English."""
        text = self.schedule.words()
        if self.tz is not None and self.schedule._tz is None:
            text += f", {zone_name(self.tz)}"
        if self.start is not None:
            text += f", from {self.shown(self.start)}"
        if self.end is not None:
            text += f", until {self.shown(self.end)}"
        if self.exclude is not None:
            parts = repr(self.exclude).strip("<>").partition(": ")[2]
            text += f", {parts}"
        return text

    def shown(self, seconds: float) -> str:
        """A time in the zone of the entry."""
        return f"{moment(seconds).astimezone(self.zone):%Y-%m-%d %H:%M:%S %Z}"

    # --- when

    def fire_at(self, due: float) -> float:
        """When a firing is sent: the due time, and its jitter."""
        return due + spread(self.name, due, self.jitter)

    def upcoming(self, count: int, after: float | None = None) -> list[float]:
        """The next due times.

        :param after: Unix time; None: from the stored next one on.
        """
        at = self.state.due if after is None else self.rule.from_now(self.state.last, after)
        found: list[float] = []
        while at is not None and len(found) < count:
            found.append(at)
            at = self.rule.after(at)
        return found

    # --- Celery's

    @property
    def relative(self) -> bool:
        """Whether an interval is rounded to its unit."""
        return bool(getattr(self.schedule, "relative", False))

    @property
    def last_run_at(self) -> dt.datetime | None:
        """When it last sent its task."""
        run = self.state.last_sent
        return moment(run.at) if run is not None else self._begun[0]

    @property
    def total_run_count(self) -> int:
        """How many tasks it has sent."""
        return self.state.count + (self._begun[1] or 0)

    def is_due(self) -> schedstate:
        """Whether it is due by now, and seconds until that should be asked again."""
        now, due = clock.now(), self.state.due
        if due is None or self.state.paused:
            return schedstate(False, dt.timedelta.max.total_seconds())
        left = self.fire_at(due) - now
        if left > 0:
            return schedstate(False, left)
        following = self.rule.after(due)
        far = dt.timedelta.max.total_seconds()
        return schedstate(True, far if following is None else max(0.0, following - now))

    def __repr__(self) -> str:
        return f"<ScheduleEntry: {self.name} {self.task} {self.schedule!r}>"
