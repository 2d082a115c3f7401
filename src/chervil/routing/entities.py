"""Queues and exchanges as users write them down, with kombu's arguments.

Brokers without exchanges get the queue's name; what an exchange would do is done
by :class:`chervil.routing.queues.Queues`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from chervil.drivers import contracts
from chervil.exceptions import ImproperlyConfigured
from chervil.ids import new_id

EXCHANGE_TYPES = ("direct", "topic", "fanout")
_DELIVERY_MODES = {"transient": 1, "persistent": 2}


class Exchange:
    """Where messages are sent to; bindings lead from here to queues.

    :param name: empty: the default exchange, in which the routing key is the name
        of the queue.
    :param type: ``"direct"`` (equal keys), ``"topic"`` (patterns with ``*`` for one
        word and ``#`` for any number) or ``"fanout"`` (all queues).
    :param delivery_mode: 2 or ``"persistent"``, 1 or ``"transient"``.
    :raises ImproperlyConfigured: the type is not one of these.
    """

    __slots__ = (
        "arguments",
        "auto_delete",
        "delivery_mode",
        "durable",
        "name",
        "no_declare",
        "type",
    )

    def __init__(
        self,
        name: str = "",
        type: str = "direct",  # noqa: A002 - kombu's name
        channel: Any = None,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        delivery_mode: int | str | None = None,
        arguments: Mapping[str, Any] | None = None,
        no_declare: bool = False,
    ) -> None:
        if type and type not in EXCHANGE_TYPES:
            raise ImproperlyConfigured(
                f"exchange {name!r} has type {type!r}; expected one of {', '.join(EXCHANGE_TYPES)}"
            )
        self.name = name or ""
        self.type = type or "direct"
        self.durable = durable
        self.auto_delete = auto_delete
        self.delivery_mode = _DELIVERY_MODES.get(str(delivery_mode), delivery_mode)
        self.arguments = dict(arguments or {})
        self.no_declare = no_declare

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Exchange):
            return NotImplemented
        return (self.name, self.type, self.durable) == (other.name, other.type, other.durable)

    def __hash__(self) -> int:
        return hash((Exchange, self.name))

    def __repr__(self) -> str:
        return f"Exchange({self.name!r}, type={self.type!r})"


class binding:
    """One of several ways from an exchange to a queue: ``Queue(name, [binding(...)])``."""

    __slots__ = ("arguments", "exchange", "routing_key")

    def __init__(
        self,
        exchange: Exchange | str | None = None,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.exchange = as_exchange(exchange)
        self.routing_key = routing_key
        self.arguments = dict(arguments or {})

    def __repr__(self) -> str:
        return f"binding({self.exchange!r}, {self.routing_key!r})"


def as_exchange(value: Any) -> Exchange | None:
    """An exchange from what stands for one; None when nothing does."""
    if value is None or isinstance(value, Exchange):
        return value
    if isinstance(value, str):
        return Exchange(value)
    # kombu's own class, for applications that import theirs from there.
    return Exchange(value.name, value.type, durable=getattr(value, "durable", True))


#: Argument of Queue -> RabbitMQ's argument, and what a unit of it is there.
_LIMITS = {
    "expires": ("x-expires", 1000),
    "message_ttl": ("x-message-ttl", 1000),
    "max_length": ("x-max-length", 1),
    "max_length_bytes": ("x-max-length-bytes", 1),
    "max_priority": ("x-max-priority", 1),
}


class Queue:
    """A queue, for ``task_queues``, ``apply_async(queue=...)`` and routes.

    :param name: what it is called in the broker.
    :param exchange: an :class:`Exchange` or its name; None: ``task_default_exchange``.
        A list of :class:`binding` objects binds it several times.
    :param routing_key: key (for topic exchanges: pattern) of its messages; None: its
        own name, or ``task_default_routing_key`` with an exchange that is named here.
    :param max_priority: highest priority, where the broker must be told.
    :param expires: seconds without a consumer after which the queue may be deleted.
    :param message_ttl: seconds after which its messages may be dropped.
    :param max_length: most messages, and ``max_length_bytes`` most bytes, it holds.
    :param queue_arguments: other arguments for the broker (``x-...``).
    :param alias: another name under which it can be sent to.
    :raises ImproperlyConfigured: an argument is wrong.
    """

    def __init__(
        self,
        name: str = "",
        exchange: Exchange | str | Iterable[binding] | None = None,
        routing_key: str | None = None,
        channel: Any = None,
        bindings: Iterable[binding] | None = None,
        on_declared: Callable[..., Any] | None = None,
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        max_priority: int | None = None,
        expires: float | None = None,
        message_ttl: float | None = None,
        max_length: int | None = None,
        max_length_bytes: int | None = None,
        queue_arguments: Mapping[str, Any] | None = None,
        binding_arguments: Mapping[str, Any] | None = None,
        consumer_arguments: Mapping[str, Any] | None = None,
        no_ack: bool = False,
        no_declare: bool = False,
        alias: str | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ImproperlyConfigured(f"the name of a queue must be text, not {name!r}")
        several = list(bindings or ())
        if isinstance(exchange, (list, tuple, set, frozenset)):
            several.extend(exchange)
            exchange = None
        self.name = name
        self.exchange = as_exchange(exchange)
        self.routing_key = routing_key or ""
        self.bindings = several
        self.on_declared = on_declared
        self.durable = durable
        self.exclusive = exclusive
        self.auto_delete = auto_delete or exclusive
        self.binding_arguments = dict(binding_arguments or {})
        self.consumer_arguments = dict(consumer_arguments or {})
        self.no_ack = no_ack
        self.no_declare = no_declare
        self.alias = alias
        limits = (expires, message_ttl, max_length, max_length_bytes, max_priority)
        self.queue_arguments = {**(queue_arguments or {}), **_limits(name, limits)}

    @property
    def max_priority(self) -> int | None:
        """Highest priority it was declared with."""
        highest = self.queue_arguments.get("x-max-priority")
        return None if highest is None else int(highest)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Queue):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((Queue, self.name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.exchange!r}, {self.routing_key!r})"


def _limits(queue: str, values: Iterable[Any]) -> dict[str, int]:
    found = {}
    for (argument, (key, unit)), value in zip(_LIMITS.items(), values, strict=True):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise ImproperlyConfigured(
                f"queue {queue!r}: {argument} is {value!r}; expected a number of at least 0"
            )
        found[key] = int(value * unit)
    return found


class Broadcast(Queue):
    """A queue of each worker of its own; a message goes to all of them.

    :param name: of the fanout exchange, and the name to send to.
    :param queue: name of the queue; None: a new one for each process.
    :param unique: add something new to that name, too.
    """

    def __init__(
        self,
        name: str,
        queue: str | None = None,
        unique: bool = False,
        auto_delete: bool = True,
        exchange: Exchange | str | None = None,
        alias: str | None = None,
        **options: Any,
    ) -> None:
        #: Only this process knows what its queue is called.
        self.private = unique or not queue
        super().__init__(
            f"{queue or 'bcast'}.{new_id()}" if self.private else str(queue),
            Exchange(name, type="fanout") if exchange is None else exchange,
            auto_delete=auto_delete,
            alias=alias or name,
            **options,
        )


def as_queue(name: str, value: Any) -> Queue:
    """A queue from what stands for one in ``task_queues``.

    :param name: its key there, when ``value`` is a dict of options.
    :raises ImproperlyConfigured: an option is unknown or wrong.
    """
    if isinstance(value, Queue):
        return value
    if isinstance(value, str):
        return Queue(value)
    if isinstance(value, Mapping):
        return _from_options(name, dict(value))
    return _from_kombu(value)


def _from_options(name: str, options: dict[str, Any]) -> Queue:
    exchange = options.pop("exchange", None)
    kind = options.pop("exchange_type", None)
    key = options.pop("binding_key", None)
    if isinstance(exchange, str) or (exchange is None and kind):
        exchange = Exchange(exchange or name, kind or "direct")
    options["routing_key"] = options.get("routing_key") or key
    try:
        return Queue(name, exchange, **options)
    except TypeError as exc:
        raise ImproperlyConfigured(f"queue {name!r} in task_queues: {exc}") from None


def _from_kombu(value: Any) -> Queue:
    many = [
        binding(as_exchange(one.exchange), one.routing_key or "")
        for one in getattr(value, "bindings", None) or ()
    ]
    limits: dict[str, Any] = {name: getattr(value, name, None) for name in _LIMITS}
    exchange = getattr(value, "exchange", None)
    return Queue(
        str(value.name),
        exchange if getattr(exchange, "name", "") else None,
        getattr(value, "routing_key", None),
        bindings=many,
        durable=getattr(value, "durable", True),
        exclusive=getattr(value, "exclusive", False),
        auto_delete=getattr(value, "auto_delete", False),
        queue_arguments=getattr(value, "queue_arguments", None),
        binding_arguments=getattr(value, "binding_arguments", None),
        alias=getattr(value, "alias", None),
        **limits,
    )


def to_contract(queue: Queue) -> contracts.Queue:
    """What a driver is told about a queue that has its exchange and key."""
    first = queue.bindings[0] if queue.bindings else queue
    exchange = first.exchange or Exchange()
    return contracts.Queue(
        name=queue.name,
        exchange=exchange.name,
        exchange_type=exchange.type,
        routing_key=first.routing_key or "",
        max_priority=queue.max_priority,
        durable=queue.durable,
        queue_arguments=queue.queue_arguments,
        binding_arguments=queue.binding_arguments,
        auto_delete=queue.auto_delete,
        exclusive=queue.exclusive,
        bindings=[_to_contract(one) for one in queue.bindings]
        or [_to_contract(binding(exchange, queue.routing_key or "", queue.binding_arguments))],
        declare=not queue.no_declare,
        consumer_arguments=queue.consumer_arguments,
    )


def _to_contract(one: binding) -> contracts.Binding:
    exchange = one.exchange or Exchange()
    return contracts.Binding(
        exchange.name,
        exchange.type,
        one.routing_key,
        one.arguments,
        exchange.durable,
        exchange.auto_delete,
        exchange.arguments,
        not exchange.no_declare,
    )
