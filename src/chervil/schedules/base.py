"""What all schedules have in common, and their JSON form."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

from chervil import clock
from chervil.exceptions import ImproperlyConfigured

UTC = dt.timezone.utc  # noqa: UP017 - an attribute that mypy and readers know
_KINDS: dict[str, type[BaseSchedule]] = {}


class schedstate(NamedTuple):
    """The answer of ``is_due``, as Celery has it."""

    is_due: bool
    #: Seconds until it should be asked again.
    next: float


class BaseSchedule:
    """A rule that says when something is due.

    A subclass defines :meth:`next_after`; one that was written for Celery and defines
    ``is_due`` and ``remaining_estimate`` alone works too.

    :param tz: zone in which the rule is read: a name or a ``tzinfo``; None takes the
        one that the caller of :meth:`next_after` gives (the ``timezone`` setting).
    :param nowfun: the present as an aware datetime, for :meth:`is_due`; the clock's when
        None.
    :param app: takes its time zone, where ``tz`` is None.
    """

    #: Name in the JSON form; a subclass with one is registered under it.
    kind: ClassVar[str] = ""

    def __init__(
        self,
        *,
        tz: str | dt.tzinfo | None = None,
        nowfun: Callable[[], dt.datetime] | None = None,
        app: Any = None,
    ) -> None:
        self._tz = zone(tz) if tz is not None else None
        self.nowfun = nowfun
        self.app = app

    def __init_subclass__(cls) -> None:
        if cls.kind:
            _KINDS[cls.kind] = cls

    # --- to be defined by each

    def next_after(
        self, moment: dt.datetime, default_tz: dt.tzinfo | None = None
    ) -> dt.datetime | None:
        """The first due time that is later than ``moment``; None: there is none any more.

        :param moment: aware; for an interval, the due time before.
        :param default_tz: the zone of a schedule that has none of its own; UTC when None.
        :returns: aware, in UTC.
        """
        own = type(self).remaining_estimate
        if own is BaseSchedule.remaining_estimate:
            raise NotImplementedError(f"{type(self).__name__} must define next_after()")
        return (self._now() + self.remaining_estimate(moment)).astimezone(UTC)

    def arguments(self) -> dict[str, Any]:
        """What makes this one again, in values that JSON has."""
        raise NotImplementedError(f"{type(self).__name__} cannot be stored: define arguments()")

    def words(self) -> str:
        """The rule in plain English."""
        return repr(self)

    # --- derived

    @property
    def tz(self) -> dt.tzinfo:
        """The zone that the rule is read in, as far as it is known here."""
        found = self._tz or getattr(self.app, "timezone", None)
        return found if isinstance(found, dt.tzinfo) else UTC

    def in_zone(self, default_tz: dt.tzinfo | None) -> dt.tzinfo:
        """Its own zone, or else the caller's."""
        return self._tz or default_tz or self.tz

    def _now(self) -> dt.datetime:
        if self.nowfun is not None:
            return aware(self.nowfun())
        return dt.datetime.fromtimestamp(clock.now(), UTC)

    def remaining_estimate(self, last_run_at: dt.datetime) -> dt.timedelta:
        """Time from now until it is due again; negative when that has passed."""
        due = self.next_after(aware(last_run_at))
        return dt.timedelta.max if due is None else due - self._now()

    def is_due(self, last_run_at: dt.datetime) -> schedstate:
        """Whether it is due by now, and when to ask again."""
        now = self._now()
        due = self.next_after(aware(last_run_at))
        if due is None:
            return schedstate(False, dt.timedelta.max.total_seconds())
        if due > now:
            return schedstate(False, (due - now).total_seconds())
        following = self.next_after(now)
        if following is None:
            return schedstate(True, dt.timedelta.max.total_seconds())
        return schedstate(True, (following - now).total_seconds())

    # --- as a value

    def _key(self) -> tuple[Any, ...]:
        return (type(self), tuple(sorted(self.arguments().items(), key=lambda item: item[0])))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BaseSchedule):
            return NotImplemented
        return type(self) is type(other) and self.arguments() == other.arguments()

    def __hash__(self) -> int:
        return hash(repr(self._key()))

    def __reduce__(self) -> tuple[Any, ...]:
        return (from_dict, (to_dict(self),))


def zone(tz: str | dt.tzinfo) -> dt.tzinfo:
    """The zone of that name.

    :raises ImproperlyConfigured: there is none.
    """
    if isinstance(tz, dt.tzinfo):
        return tz
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, OSError) as exc:
        raise ImproperlyConfigured(
            f"there is no time zone {tz!r}; names are those of the IANA database, such as "
            "'Europe/Berlin' (on systems without one: pip install tzdata)"
        ) from exc


def zone_name(tz: dt.tzinfo | None) -> str | None:
    """The name of a zone, for the JSON form.

    :raises ImproperlyConfigured: it has none, such as an offset of a program's own.
    """
    if tz is None:
        return None
    name = getattr(tz, "key", None) or ("UTC" if tz == UTC else None)
    if not isinstance(name, str):
        raise ImproperlyConfigured(f"{tz!r} has no name to be stored by; use a zoneinfo.ZoneInfo")
    return name


def aware(moment: dt.datetime) -> dt.datetime:
    """A datetime without a zone is in UTC, as in Celery with ``enable_utc``."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


# --- the JSON form ---------------------------------------------------------------------


def to_dict(rule: BaseSchedule) -> dict[str, Any]:
    """A schedule in values that JSON has.

    :raises ImproperlyConfigured: its type is registered under no name.
    """
    if _KINDS.get(rule.kind) is not type(rule):
        raise ImproperlyConfigured(
            f"a schedule of type {type(rule).__name__} cannot be stored: give the class "
            "an attribute `kind`, its name in stored entries"
        )
    return {"type": rule.kind, **rule.arguments()}


def from_dict(stored: Mapping[str, Any]) -> BaseSchedule:
    """Make a schedule from what :func:`to_dict` wrote.

    :raises ImproperlyConfigured: its type is unknown or its arguments are wrong.
    """
    arguments = dict(stored)
    kind = arguments.pop("type", None)
    cls = _KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        known = ", ".join(sorted(_KINDS))
        raise ImproperlyConfigured(f"{kind!r} is no type of schedule; there are: {known}")
    try:
        return cls(**arguments)
    except TypeError as exc:
        raise ImproperlyConfigured(f"a stored {kind} schedule is wrong: {exc}") from exc


def maybe_schedule(
    value: BaseSchedule | dt.timedelta | dt.datetime | float | str | Mapping[str, Any],
    *,
    tz: str | dt.tzinfo | None = None,
    app: Any = None,
) -> BaseSchedule:
    """What a user may write for a schedule.

    Seconds or a ``timedelta`` are an interval, a ``datetime`` a single moment, text
    a crontab expression of five fields, a mapping the JSON form.

    :raises ImproperlyConfigured: it is none of these.
    """
    from_value = _converter(value)
    if from_value is None:
        if not isinstance(value, BaseSchedule):
            raise ImproperlyConfigured(
                f"{value!r} is no schedule: give seconds, a timedelta, crontab(...), solar(...), "
                "a datetime, or five fields of crontab in a string"
            )
        rule = value
    else:
        rule = from_value
    if tz is not None and rule._tz is None:
        rule._tz = zone(tz)
    if rule.app is None:
        rule.app = app
    return rule


def _converter(value: Any) -> BaseSchedule | None:
    if isinstance(value, bool | BaseSchedule):
        return None
    if isinstance(value, int | float | dt.timedelta):
        return _KINDS["interval"](value)  # type: ignore[arg-type,call-arg]
    if isinstance(value, dt.datetime):
        return _KINDS["once"](value)  # type: ignore[arg-type,call-arg]
    if isinstance(value, str):
        return _KINDS["cron"](value)  # type: ignore[call-arg]
    if isinstance(value, Mapping):
        return from_dict(value)
    return None
