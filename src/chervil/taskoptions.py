"""The options of ``@app.task(...)``: what they may be, and where defaults come from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from chervil.exceptions import ImproperlyConfigured
from chervil.options import CHECKS as SEND_CHECKS
from chervil.settings.kinds import RATE

if TYPE_CHECKING:
    from chervil.task import Task

#: Attributes of tasks whose default is a setting.
FROM_CONFIG = {
    "serializer": "task_serializer",
    "compression": "task_compression",
    "rate_limit": "task_default_rate_limit",
    "priority": "task_default_priority",
    "track_started": "task_track_started",
    "acks_late": "task_acks_late",
    "acks_on_failure_or_timeout": "task_acks_on_failure_or_timeout",
    "reject_on_worker_lost": "task_reject_on_worker_lost",
    "max_deliveries": "task_max_deliveries",
    "ignore_result": "task_ignore_result",
    "store_eager_result": "task_store_eager_result",
    "store_errors_even_if_ignored": "task_store_errors_even_if_ignored",
}

#: Attributes that are options of every call of the task.
SENT_WITH = (
    "queue",
    "routing_key",
    "exchange",
    "priority",
    "expires",
    "serializer",
    "delivery_mode",
    "compression",
    "time_limit",
    "soft_time_limit",
)

#: Methods that a worker calls only when the task has its own.
HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")


class FromConfig:
    """An attribute that is a setting's value until the task has its own."""

    __slots__ = ("name", "setting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.setting = FROM_CONFIG[name]

    def __get__(self, task: Task[Any, Any] | None, owner: type[Any]) -> Any:
        return None if task is None else getattr(task.app.conf, self.setting)


def _is_exceptions(value: Any) -> bool:
    items = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(item, type) and issubclass(item, BaseException) for item in items)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_rate(value: Any) -> bool:
    try:
        RATE.check(value)
    except ValueError:
        return False
    return True


_Check = tuple[Callable[[Any], bool], str]
_BOOL: _Check = (_is_bool, "True or False")
_SECONDS: _Check = (_is_seconds, "a number of seconds, not negative")
_EXCEPTIONS: _Check = (_is_exceptions, "exception classes, such as (ValueError, OSError)")
_MAP: _Check = (lambda value: isinstance(value, Mapping), "a dict")

CHECKS: dict[str, _Check] = {
    "name": (lambda value: isinstance(value, str) and bool(value), "text"),
    "bind": _BOOL,
    "typing": _BOOL,
    "max_retries": (_is_count, "a whole number from 0 on, or None for no limit"),
    "default_retry_delay": _SECONDS,
    "autoretry_for": _EXCEPTIONS,
    "dont_autoretry_for": _EXCEPTIONS,
    "throws": _EXCEPTIONS,
    "retry_kwargs": _MAP,
    "retry_backoff": (
        lambda value: isinstance(value, bool) or _is_seconds(value),
        "True, False or the first delay in seconds",
    ),
    "retry_backoff_max": _SECONDS,
    "retry_jitter": _BOOL,
    "rate_limit": (_is_rate, "a number a second, or text such as '10/s', '100/m' or '5/h'"),
    "time_limit": _SECONDS,
    "soft_time_limit": _SECONDS,
    "ignore_result": _BOOL,
    "store_errors_even_if_ignored": _BOOL,
    "store_eager_result": _BOOL,
    "acks_late": _BOOL,
    "acks_on_failure_or_timeout": _BOOL,
    "reject_on_worker_lost": _BOOL,
    "track_started": _BOOL,
    "trail": _BOOL,
    "max_deliveries": (lambda value: _is_count(value) and value > 0, "a whole number from 1 on"),
    "expires": (
        lambda value: _is_seconds(value) or isinstance(value, (dt.datetime, dt.timedelta)),
        "a number of seconds, a timedelta or a datetime",
    ),
    "pydantic": _BOOL,
    "pydantic_strict": _BOOL,
    "pydantic_context": _MAP,
    "pydantic_dump_kwargs": _MAP,
    **{
        name: SEND_CHECKS[name]
        for name in ("queue", "routing_key", "exchange", "priority", "delivery_mode")
    },
}

#: Options that must be tuples of exception classes; one class alone will do, too.
_TUPLES = frozenset({"autoretry_for", "dont_autoretry_for", "throws"})


def checked(name: str, value: Any, what: str) -> Any:
    """The value of one option in the form that the task keeps.

    :param what: for the message: the task.
    :raises ImproperlyConfigured: it must be something else.
    """
    known = CHECKS.get(name)
    if known is None or value is None:
        return value
    if not known[0](value):
        raise ImproperlyConfigured(f"task {what}: {name}={value!r:.100} must be {known[1]}")
    if name in _TUPLES:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if name == "retry_kwargs":
        return dict(value)
    return value


def check_names(names: Iterable[str], base: type[Task[Any, Any]], what: str) -> None:
    """Options that nobody knows are attributes of the user's own, unless they look like slips.

    :param base: the task's class, whose attributes are no slips.
    :raises ImproperlyConfigured: one is nearly called like an option.
    """
    for name in names:
        if name.startswith("_") or name in CHECKS or hasattr(base, name):
            continue
        close = get_close_matches(name, (*CHECKS, *FROM_CONFIG, "base"), n=1, cutoff=0.8)
        if close:
            raise ImproperlyConfigured(
                f"task {what}: there is no option {name!r}; did you mean {close[0]!r}?"
            )
