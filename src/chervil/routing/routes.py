"""``task_routes``, made ready for looking up."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from chervil.exceptions import ImproperlyConfigured
from chervil.settings import import_object

#: Options that say where a message goes and how soon.
ADDRESS = frozenset({"queue", "exchange", "exchange_type", "routing_key", "priority"})

#: The other options that a route may set; any name may stand for a message property.
_OPTIONS = frozenset(
    {
        *("serializer", "compression", "delivery_mode", "headers", "shadow", "reply_to"),
        *("countdown", "eta", "expires", "expiration", "time_limit", "soft_time_limit"),
        *("ignore_result", "retry", "retry_policy", "link", "link_error", "task_id"),
        *("argsrepr", "kwargsrepr", "app_id", "user_id"),
    }
)

RouterFunction = Callable[..., Any]


class Patterns:
    """Routes by name: exact names first, then patterns in their order."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Any]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Any]]] = []

    def add(self, pattern: Any, route: Any) -> None:
        """:raises ImproperlyConfigured: the pattern or the route has a wrong shape."""
        options = expand(route, f"the route of {pattern!r}")
        if options is None:
            raise ImproperlyConfigured(f"the route of {pattern!r} in task_routes is None")
        if isinstance(pattern, re.Pattern):
            self._patterns.append((pattern, options))
        elif not isinstance(pattern, str) or not pattern:
            raise ImproperlyConfigured(
                f"task_routes has {pattern!r} for a name; expected a task name, a glob such as "
                "'feeds.*' or a compiled regular expression"
            )
        else:
            self._exact.setdefault(pattern, options)
            if any(sign in pattern for sign in "*?["):
                self._patterns.append((re.compile(fnmatch.translate(pattern)), options))

    def find(self, name: str) -> dict[str, Any] | None:
        """The route of a task name."""
        exact = self._exact.get(name)
        if exact is not None:
            return exact
        for pattern, options in self._patterns:
            if pattern.match(name):
                return options
        return None

    def values(self) -> Iterator[dict[str, Any]]:
        """All routes."""
        yield from self._exact.values()
        yield from (options for _, options in self._patterns)


class Routes:
    """All of ``task_routes``.

    :raises ImproperlyConfigured: something in it has a wrong shape or cannot be
        imported.
    """

    def __init__(self, value: Any) -> None:
        self._steps: list[Patterns | RouterFunction] = []
        self._loose: Patterns | None = None
        for item in _items(value):
            self._add(item)
        #: Whether a route can depend on more than the task's name.
        self.dynamic = any(not isinstance(step, Patterns) for step in self._steps)

    def _add(self, item: Any) -> None:
        if isinstance(item, str):
            item = _imported(item)
        if _is_pair(item):
            self._add_loose(item)
            return
        self._loose = None
        if isinstance(item, Mapping):
            self._steps.append(_patterns(item.items()))
        elif isinstance(item, (list, tuple)) and all(map(_is_pair, item)):
            self._steps.append(_patterns(item))
        elif isinstance(item, type) and hasattr(item, "route_for_task"):
            self._steps.append(_method_router(item()))
        elif hasattr(item, "route_for_task"):
            self._steps.append(_method_router(item))
        elif callable(item):
            self._steps.append(item)
        else:
            raise ImproperlyConfigured(
                f"task_routes has {item!r}; expected a dict, a (pattern, route) pair, a function "
                "or the dotted name of one"
            )

    def _add_loose(self, pair: Any) -> None:
        # Pairs that follow one another are one step, as if they were in a list.
        if self._loose is None:
            self._loose = Patterns()
            self._steps.append(self._loose)
        self._loose.add(*pair)

    def static_values(self) -> Iterator[dict[str, Any]]:
        """The routes that are known without a call."""
        for step in self._steps:
            if isinstance(step, Patterns):
                yield from step.values()

    def find(
        self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], task: Any
    ) -> dict[str, Any]:
        """What the first router that has an answer says; not to be changed.

        :raises ImproperlyConfigured: its answer has a wrong shape.
        """
        for step in self._steps:
            if isinstance(step, Patterns):
                found = step.find(name)
            else:
                answer = step(name, args, kwargs or {}, options, task=task)
                found = expand(answer, f"the answer of router {step!r} for {name!r}")
            if found is not None:
                return found
        return {}


def expand(route: Any, what: str) -> dict[str, Any] | None:
    """A route's options: a queue or its name stands for ``{"queue": ...}``.

    :raises ImproperlyConfigured: it is something else.
    """
    if route is None:
        return None
    if isinstance(route, str) and route:
        return {"queue": route}
    if isinstance(route, Mapping):
        options = {key: value for key, value in route.items() if value is not None}
        for key, value in options.items():
            _check_option(key, value, what)
        return options
    if isinstance(getattr(route, "name", None), str):
        return {"queue": route}
    raise ImproperlyConfigured(
        f"{what} is {route!r}; expected the name of a queue or a dict such as "
        "{'queue': 'feeds', 'priority': 3}"
    )


def _check_option(key: Any, value: Any, what: str) -> None:
    if key in ADDRESS:
        if key == "priority":
            right = isinstance(value, int) and not isinstance(value, bool)
        elif key in ("queue", "exchange"):
            right = isinstance(getattr(value, "name", value), str)
        else:
            right = isinstance(value, str)
        if not right:
            raise ImproperlyConfigured(f"{what}: {key!r} must not be {value!r}")
    elif not isinstance(key, str):
        raise ImproperlyConfigured(f"{what}: {key!r} is not the name of an option")
    elif key not in _OPTIONS and (
        close := get_close_matches(key, [*ADDRESS, *_OPTIONS], n=1, cutoff=0.75)
    ):
        raise ImproperlyConfigured(f"{what}: no option {key!r}; did you mean {close[0]!r}?")


def _items(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_pair(item: Any) -> bool:
    return (
        isinstance(item, (list, tuple))
        and len(item) == 2
        and isinstance(item[0], (str, re.Pattern))
        and not isinstance(item[1], (list, tuple))
    )


def _patterns(pairs: Iterable[Any]) -> Patterns:
    patterns = Patterns()
    for pattern, route in pairs:
        patterns.add(pattern, route)
    return patterns


def _imported(name: str) -> Any:
    try:
        return import_object(name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(
            f"task_routes names the router {name!r}, which cannot be imported: {exc} (a route "
            "for one pattern is a pair in a list: [('feeds.*', 'feeds')])"
        ) from exc


def _method_router(router: Any) -> RouterFunction:
    """A router object of Celery 3, as a function."""

    def ask(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:  # noqa: ARG001
        return router.route_for_task(name, args, kwargs)

    return ask
