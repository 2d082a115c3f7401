"""Kinds of single settings whose values have a structure of their own."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from chervil.exceptions import ImproperlyConfigured
from chervil.settings.kinds import NAMES, Kind, checked, from_json
from chervil.wire import serializers

RETRY_POLICY: dict[str, Any] = {
    "max_retries": 3,
    "interval_start": 0,
    "interval_step": 0.2,
    "interval_max": 1,
}


def _check_policy(value: Any) -> dict[str, Any]:
    known = (*RETRY_POLICY, "retry_errors")
    if not isinstance(value, Mapping):
        raise ValueError(f"a dict with keys among {', '.join(known)}")
    if wrong := [key for key in value if key not in known]:
        raise ValueError(f"keys among {', '.join(known)}, not {wrong[0]!r}")
    for key in RETRY_POLICY:
        number = value.get(key, 0)
        if key == "max_retries" and number is None:
            continue  # for ever
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number < 0:
            raise ValueError(f"{key!r} to be a number of at least 0")
    return {**RETRY_POLICY, **value}


POLICY = checked("retry policy", "dict[str, Any]", _check_policy)


def _is_serializer(name: str) -> bool:
    try:
        serializers.accept_types((name,))
    except ImproperlyConfigured:
        return False
    return True


def _check_content(value: Any) -> list[str]:
    wanted: list[str] = NAMES.check(value)
    for name in wanted:
        # What is like none of them may be registered later; the worker looks again.
        close = get_close_matches(name, serializers.names(), n=1, cutoff=0.75)
        if close and not _is_serializer(name):
            raise ValueError(
                f"names of serializers, not {name!r}; did you mean {close[0]!r}? (Register a "
                "serializer of your own before you name it here)"
            )
    return wanted


CONTENT_TYPES = Kind(
    NAMES.label, NAMES.annotation, _check_content, lambda text: _check_content(NAMES.parse(text))
)


def _is_queue(value: Any) -> bool:
    return isinstance(getattr(value, "name", None), str)


def _check_queues(value: Any) -> list[Any] | dict[str, Any]:
    if isinstance(value, Mapping):
        for name, options in value.items():
            if not isinstance(name, str) or not (_is_queue(options) or _is_options(options)):
                raise ValueError(f"queue names with a Queue or a dict each, not {name!r}")
        return dict(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        for queue in value:
            if not (_is_queue(queue) or (isinstance(queue, str) and queue)):
                raise ValueError(f"Queue objects or names in the list, not {queue!r}")
        return list(value)
    raise ValueError("a list of Queue objects or names, or a dict from name to options")


def _is_options(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _parse_queues(text: str) -> list[Any] | dict[str, Any]:
    if text.lstrip()[:1] in ("{", "["):
        return _check_queues(from_json(text))
    return [name.strip() for name in text.split(",") if name.strip()]


QUEUES = Kind("list of queues", "list[Any] | dict[str, Any]", _check_queues, _parse_queues)


def _check_routes(value: Any) -> Any:
    if isinstance(value, (Mapping, list, tuple, str)) or callable(value):
        return value
    if hasattr(value, "route_for_task"):
        return value
    raise ValueError(
        "a dict from task name or pattern to route, a list of (pattern, route) pairs "
        "and routers, or a router function"
    )


def _parse_routes(text: str) -> Any:
    if text.lstrip()[:1] in ("{", "["):
        return from_json(text)
    return _check_routes(text.strip())


ROUTES = Kind("routes", "Any", _check_routes, _parse_routes)


def _check_annotations(value: Any) -> Any:
    expected = (
        "a dict from task name (or '*') to a dict of attributes, "
        "or a list of such dicts and of objects with an 'annotate' method"
    )
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    for item in items:
        if callable(getattr(item, "annotate", None)):
            continue
        if not isinstance(item, Mapping):
            raise ValueError(expected)
        for name, attributes in item.items():
            if not isinstance(name, str) or not _is_options(attributes):
                raise ValueError(expected)
    return value


ANNOTATIONS = checked("task annotations", "Any", _check_annotations)
