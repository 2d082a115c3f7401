"""The options of ``apply_async``: what they may be, and what they mean in a message.

Everything is checked before anything is sent, and an error names the option, what
was given and what would have been right.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from chervil.exceptions import ImproperlyConfigured
from chervil.wire import compression, serializers

UTC = dt.UTC
#: AMQP has eight bits for it.
MAX_PRIORITY = 255

_Check = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and abs(value) < 1e11


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_limit(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1e11


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_priority(value: Any) -> bool:
    return _is_index(value) and bool(value <= MAX_PRIORITY)


def _is_named(value: Any) -> bool:
    return _is_text(value) or _is_text(getattr(value, "name", None)) or value == ""


def _is_link(value: Any) -> bool:
    items = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(item, Mapping) and "task" in item for item in items)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


_TEXT: _Check = (_is_text, "text")
_BOOL: _Check = (_is_bool, "True or False")
_LIMIT: _Check = (_is_limit, "a number of seconds, not negative")
_INDEX: _Check = (_is_index, "a whole number from 0 on")
_LINK: _Check = (_is_link, "a signature, such as task.s(1), or a list of them")
_NAMED: _Check = (_is_named, "a name")
_MAP: _Check = (lambda value: isinstance(value, Mapping), "a dict")

#: What each option may be besides None.
CHECKS: dict[str, _Check] = {
    "countdown": (_is_finite, "a number of seconds"),
    "eta": (
        lambda value: isinstance(value, (dt.datetime, str)),
        "a datetime, or ISO 8601 text (for seconds from now use countdown=)",
    ),
    "expires": (
        lambda value: _is_finite(value) or isinstance(value, (dt.datetime, dt.timedelta, str)),
        "a number of seconds, a datetime, a timedelta or ISO 8601 text",
    ),
    "task_id": _TEXT,
    "group_id": _TEXT,
    "root_id": _TEXT,
    "parent_id": _TEXT,
    "group_index": _INDEX,
    "retries": _INDEX,
    "replaced_task_nesting": _INDEX,
    "queue": (_is_named, "a name or a Queue"),
    "exchange": (_is_named, "a name or an Exchange"),
    "exchange_type": _TEXT,
    "routing_key": (lambda value: isinstance(value, str), "text"),
    "priority": (_is_priority, f"a whole number from 0 to {MAX_PRIORITY}"),
    "delivery_mode": (
        lambda value: value in (1, 2, "persistent", "transient"),
        "2 (persistent) or 1 (transient)",
    ),
    "headers": _MAP,
    "retry": _BOOL,
    "retry_policy": _MAP,
    "ignore_result": _BOOL,
    "time_limit": _LIMIT,
    "soft_time_limit": _LIMIT,
    "shadow": _TEXT,
    "argsrepr": _TEXT,
    "kwargsrepr": _TEXT,
    "reply_to": (lambda value: isinstance(value, str), "text"),
    "link": _LINK,
    "link_error": _LINK,
    "chain": (_is_list, "a list of signatures"),
    "chord": _MAP,
    "stamped_headers": (
        lambda value: (
            isinstance(value, (list, tuple, set, frozenset)) and all(map(_is_text, value))
        ),
        "a list of names",
    ),
    "add_to_parent": _BOOL,
}
#: Taken and not looked at.
ACCEPTED = frozenset(
    {
        "connection",
        "producer",
        "publisher",
        "router",
        "route_name",
        "result_cls",
        "task_type",
        "immediate",
        "mandatory",
        "serializer",
        "compression",
        "stamps",
        "origin",
    }
)
#: Properties of messages that applications set; not to be taken for misspelt options.
_PROPERTIES = frozenset(
    {"app_id", "cluster_id", "correlation_id", "message_id", "timestamp", "type", "user_id"}
)


def check(options: Mapping[str, Any], what: str) -> None:
    """Check the values of options, and the names of unknown ones for slips.

    :param what: for the message: the task's name.
    :raises ImproperlyConfigured: one of them is wrong.
    """
    stamps = options.get("stamped_headers") or ()
    for name, value in options.items():
        known = CHECKS.get(name)
        if known is not None:
            if value is not None and not known[0](value):
                raise ImproperlyConfigured(
                    f"{what}: option {name}={value!r:.100} must be {known[1]}"
                )
        elif name == "serializer":
            check_serializer(value, what)
        elif name == "compression":
            check_compression(value, what)
        elif name not in ACCEPTED and name not in _PROPERTIES and name not in stamps:
            close = get_close_matches(name, CHECKS, n=1, cutoff=0.8)
            if close:
                raise ImproperlyConfigured(
                    f"{what}: there is no option {name!r}; did you mean {close[0]!r}? "
                    "(Data of your own goes into headers={...}.)"
                )
    check_limits(options.get("soft_time_limit"), options.get("time_limit"), what)


def check_limits(soft: Any, hard: Any, what: str) -> None:
    """:raises ImproperlyConfigured: the soft time limit would never come to act."""
    if soft and hard and _is_number(soft) and _is_number(hard) and soft >= hard:
        raise ImproperlyConfigured(
            f"{what}: soft_time_limit ({soft:g} s) must be less than time_limit ({hard:g} s), "
            "or the task is ended before it can clean up"
        )


def check_call_limits(options: Mapping[str, Any], task: Any) -> None:
    """:func:`check_limits` for one call, whose options win over the task's."""
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    if soft is not None or hard is not None:
        soft = task.soft_time_limit if soft is None else soft
        check_limits(soft, task.time_limit if hard is None else hard, task.name)


def check_serializer(name: Any, what: str) -> None:
    """:raises ImproperlyConfigured: no serializer has this name or content type."""
    if name is not None:
        try:
            serializers.accept_types((name,))
        except (ImproperlyConfigured, TypeError):
            raise ImproperlyConfigured(
                f"{what}: serializer {name!r} is not registered; "
                f"known: {', '.join(serializers.names())}"
            ) from None


def check_compression(name: Any, what: str) -> None:
    """:raises ImproperlyConfigured: no compression has this name."""
    if name is not None and name not in compression.names() and "/" not in str(name):
        raise ImproperlyConfigured(
            f"{what}: compression {name!r} is not known; known: {', '.join(compression.names())}"
        )


# --- times ---------------------------------------------------------------------------------


def moment(value: dt.datetime | str, name: str, what: str) -> dt.datetime:
    """A datetime, or the one that a text says.

    :raises ImproperlyConfigured: it says none.
    """
    if isinstance(value, dt.datetime):
        return value
    try:
        return dt.datetime.fromisoformat(value)
    except ValueError:
        raise ImproperlyConfigured(
            f"{what}: {name}={value!r} is not a time in ISO 8601, such as 2030-01-02T03:04:05+00:00"
        ) from None


def seconds_of(when: dt.datetime, zone: dt.tzinfo) -> float:
    """Unix time in seconds; naive times are meant in ``zone``."""
    return (when if when.tzinfo is not None else when.replace(tzinfo=zone)).timestamp()


def delay_of(
    options: Mapping[str, Any], zone: dt.tzinfo, now: float, what: str
) -> tuple[str | None, float]:
    """From ``countdown`` or ``eta``: the header's text, and the Unix time (0: at once).

    A countdown counts when both are given, as in Celery.
    """
    countdown = options.get("countdown")
    if countdown:
        due = now + countdown
        return dt.datetime.fromtimestamp(due, zone).isoformat(), due
    eta = options.get("eta")
    if not eta:
        return None, 0.0
    when = moment(eta, "eta", what)
    return when.isoformat(), seconds_of(when, zone)


def expiry_of(
    expires: Any, zone: dt.tzinfo, now: float, what: str
) -> tuple[str | None, str | None]:
    """From ``expires``: the header's text and the property ``expiration`` (milliseconds)."""
    if expires is None:
        return None, None
    if isinstance(expires, dt.timedelta):
        expires = expires.total_seconds()
    if isinstance(expires, (int, float)):
        at = now + expires
        text = dt.datetime.fromtimestamp(at, zone).isoformat()
    else:
        when = moment(expires, "expires", what)
        text, at = when.isoformat(), seconds_of(when, zone)
    return text, str(max(0, int((at - now) * 1000)))
