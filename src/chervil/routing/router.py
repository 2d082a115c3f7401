"""Where a task goes.

What is said in the call comes before the routes in ``task_routes``, these before
the attributes of the task, and these before the defaults. Whoever names a queue or
an exchange names the whole address: what less important places say about it is
not mixed in. A routing key or a priority alone can be added at any place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from chervil.drivers import contracts
from chervil.exceptions import QueueNotFound
from chervil.routing.entities import Broadcast, Exchange, Queue
from chervil.routing.queues import Queues
from chervil.routing.routes import ADDRESS, Routes

if TYPE_CHECKING:
    from chervil.settings import Settings

_MOST_REMEMBERED = 10_000
_NO_OPTIONS: Mapping[str, Any] = {}
_NAME = (str, type(None))
_FROM_TASK = ("queue", "exchange", "routing_key", "priority")


class Route(msgspec.Struct, frozen=True):
    """Where a message goes. Shared between messages: not to be changed."""

    #: Queue to store it in.
    queue: str
    #: Address as brokers with exchanges see it; ``""`` with the queue's name as key
    #: unless the queue needs its exchange.
    exchange: str
    routing_key: str
    #: None: nothing was said.
    priority: int | None
    #: What the route says besides, such as the serializer, and the call does not.
    options: Mapping[str, Any]
    #: All queues it belongs into: more than one for topic and fanout exchanges.
    queues: tuple[str, ...]


class Router:
    """Finds the way of each task; knows when the settings have changed.

    :raises ImproperlyConfigured: ``task_queues`` or ``task_routes`` is wrong.
    :raises QueueNotFound: a route leads to a queue that is not in ``task_queues``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._load()

    def _load(self) -> None:
        settings = self._settings
        version = settings.version
        self._queues = Queues(settings)
        self._routes = Routes(settings.task_routes)
        self._priority = settings.task_default_priority
        self._default_key = settings.task_default_routing_key or settings.task_default_queue
        # One for calls with the task and one for those by name alone, whose task may
        # have attributes that are not known here.
        self._by_task: dict[Any, Route] = {}
        self._by_name: dict[Any, Route] = {}
        for route in self._routes.static_values():
            self._resolve(route, {})
        self._version = version

    @property
    def queues(self) -> Queues:
        """The queues that are known."""
        if self._version != self._settings.version:
            self._load()
        return self._queues

    def queues_for(self, exchange: str, routing_key: str) -> list[str]:
        """The queues that an address leads to; see :meth:`Queues.queues_for`."""
        return list(self.queues.queues_for(exchange, routing_key))

    def select(
        self, names: str | Iterable[str] | None = None, exclude: str | Iterable[str] | None = None
    ) -> list[contracts.Queue]:
        """The queues that a worker serves; see :meth:`Queues.select`."""
        return self.queues.select(names, exclude)

    def route(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        args: Any = (),
        kwargs: Any = None,
        task: Any = None,
    ) -> Route:
        """Where a call of a task goes.

        :param options: those of the call; None in them means not given.
        :param task: its attributes ``queue``, ``exchange``, ``routing_key`` and
            ``priority`` count when nothing else was said.
        :raises QueueNotFound: there is no such queue, or the address leads to none.
        :raises ImproperlyConfigured: a router function's answer has a wrong shape.
        """
        if self._version != self._settings.version:
            self._load()
        if self._routes.dynamic:
            return self._ask(name, options or _NO_OPTIONS, args, kwargs, task)
        known = self._by_name if task is None else self._by_task
        key: Any = name
        if options and not ADDRESS.isdisjoint(options):
            get = options.get
            queue, exchange = get("queue"), get("exchange")
            if not isinstance(queue, _NAME) or not isinstance(exchange, _NAME):
                return self._ask(name, options, args, kwargs, task)
            key = (name, queue, exchange, get("routing_key"), get("priority"))
        found = known.get(key)
        if found is None:
            found = self._find(name, options or _NO_OPTIONS, args, kwargs, task)
            if len(known) >= _MOST_REMEMBERED:
                known.clear()
            known[key] = found
        return _without(found, options) if options and found.options else found

    def depends_on_arguments(self, name: str) -> bool:
        """Whether two calls of this task with the same options may go different ways."""
        if self._version != self._settings.version:
            self._load()
        return self._routes.dynamic

    def _ask(
        self, name: str, options: Mapping[str, Any], args: Any, kwargs: Any, task: Any
    ) -> Route:
        return _without(self._find(name, options, args, kwargs, task), options)

    def _find(
        self, name: str, options: Mapping[str, Any], args: Any, kwargs: Any, task: Any
    ) -> Route:
        said = {key: options[key] for key in ADDRESS if options.get(key) is not None}
        routed = self._routes.find(name, args, kwargs, options, task)
        own = {key: getattr(task, key, None) for key in _FROM_TASK} if task is not None else {}
        extra = {key: value for key, value in routed.items() if key not in ADDRESS}
        return self._resolve(_merged(said, routed, own), extra)

    def _resolve(self, address: Mapping[str, Any], extra: Mapping[str, Any]) -> Route:
        queue, exchange = address.get("queue"), _name(address.get("exchange"))
        key, priority = address.get("routing_key"), address.get("priority")
        if priority is None:
            priority = self._priority
        if queue is None and (exchange is not None or key is not None):
            where = self._to_exchange(exchange, key)
        else:
            where = self._to_queue(self._queue(queue), exchange, key)
        return Route(where[0][0], where[1], where[2], priority, extra, where[0])

    def _queue(self, queue: Any) -> Queue:
        if queue is None:
            return self._queues[self._queues.default]
        found = self._queues.find(queue)
        if isinstance(found, Broadcast) and found.private:
            raise QueueNotFound(
                f"the queues of Broadcast {found.alias!r} are known only to the workers that "
                "serve them; name the queue: Broadcast(name, queue=...)"
            )
        return found

    def _to_queue(
        self, queue: Queue, exchange: str | None, key: str | None
    ) -> tuple[tuple[str, ...], str, str]:
        own = queue.exchange or Exchange()
        kind = own.type if exchange is None else self._queues.exchange_type(exchange)
        if not (exchange and key) and kind in ("direct", None):
            return (queue.name,), "", queue.name
        exchange = own.name if exchange is None else exchange
        key = queue.routing_key if key is None else key
        others = self._queues.queues_for(exchange, key) if exchange else ()
        return (queue.name, *(name for name in others if name != queue.name)), exchange, key

    def _to_exchange(
        self, exchange: str | None, key: str | None
    ) -> tuple[tuple[str, ...], str, str]:
        name = self._queues.default_exchange.name if exchange is None else exchange
        key = self._default_key if key is None else key
        queues = self._queues.queues_for(name, key)
        if queues:
            return queues, name, key
        if exchange is None:
            return self._to_queue(self._queue(None), None, key)
        raise QueueNotFound(
            f"no queue in task_queues is bound to exchange {exchange!r} with routing key {key!r}; "
            "the message would be lost"
        )


def _merged(*levels: Mapping[str, Any]) -> dict[str, Any]:
    """What was said, most important first; see the top of this module."""
    merged: dict[str, Any] = {}
    addressed = False
    for level in levels:
        for key in ADDRESS:
            value = level.get(key)
            if value is None or key in merged or (addressed and key != "priority"):
                continue
            merged[key] = value
        addressed = addressed or "queue" in merged or "exchange" in merged
    return merged


def _without(route: Route, options: Mapping[str, Any]) -> Route:
    """The route without what the call's options say themselves."""
    left = {key: value for key, value in route.options.items() if options.get(key) is None}
    return (
        route if len(left) == len(route.options) else msgspec.structs.replace(route, options=left)
    )


def _name(exchange: Any) -> str | None:
    if exchange is None or isinstance(exchange, str):
        return exchange
    return str(exchange.name)
