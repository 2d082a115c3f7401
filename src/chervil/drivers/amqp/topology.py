"""Queues, exchanges and bindings as Celery declares them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.delays import DELIVERY, Call, Delays
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.location import Location
from chervil.drivers.amqp.pool import ASKING
from chervil.drivers.contracts import Binding, Queue

#: Queues that are remembered as declared.
_MOST: Final = 10_000


class Topology:
    """What a broker object has declared, and what it must still declare.

    :param own: queues that the driver itself uses.

    Shared by threads, which at worst declare something twice.
    """

    def __init__(self, location: Location, own: Iterable[Queue] = ()) -> None:
        self._location = location
        self._own = {queue.name: queue for queue in own}
        self.known: dict[str, Queue] = {}
        self.delays = Delays(location)

    def declare(self, link: Link, queues: Iterable[Queue], own: bool = False) -> None:
        """Declare what is not known to be there.

        :param own: the connection stays, so that queues may be its own (``exclusive``).
        :raises Refused: something of that name is there with other properties, or the
            user may not declare it.
        """
        wanted = [
            queue
            for queue in queues
            if self.known.get(queue.name) != queue and (own or not queue.exclusive)
        ]
        if not wanted:
            return
        delayed = [queue for queue in wanted if self._kombu_delays(queue)]
        calls: list[Call] = self.delays.missing((), ()) if delayed else []
        for queue in wanted:
            calls += self._calls(queue)
        for queue in delayed:
            calls += _kombu_bindings(queue)
        link.calls(link.ready(ASKING), calls)
        if delayed:
            self.delays.done((), ())
        if len(self.known) >= _MOST:
            self.known.clear()
        self.known.update((queue.name, queue) for queue in wanted)

    def find(
        self, link: Link, names: Iterable[str], definition: Callable[[str], Queue] | None
    ) -> None:
        """Declare the queues of these names; errors as for :meth:`declare`."""
        wanted = [
            self._own.get(name) or (definition(name) if definition else Queue(name))
            for name in names
            if name not in self.known
        ]
        self.declare(link, wanted)

    def delay(self, link: Link, queues: Sequence[str], delays: Sequence[float]) -> None:
        """See that messages for these queues can wait so many seconds."""
        calls = self.delays.missing(queues, delays)
        if calls:
            link.calls(link.ready(ASKING), calls)
            self.delays.done(queues, delays)

    def forget(self) -> None:
        """Something is not there any more: declare all of it again when it is needed."""
        self.known.clear()
        self.delays.forget()

    # --- one queue

    def arguments(self, queue: Queue) -> dict[str, Any]:
        """The arguments that it is declared with."""
        arguments = dict(queue.queue_arguments)
        if queue.max_priority is not None:
            arguments.setdefault("x-max-priority", queue.max_priority)
        if (
            self._location.queue_type == "quorum"
            and queue.durable
            and not (queue.exclusive or queue.auto_delete)
            and "x-max-priority" not in arguments
        ):
            arguments.setdefault("x-queue-type", "quorum")
        return arguments

    def is_quorum(self, queue: Queue) -> bool:
        """Whether it is declared as a quorum queue."""
        return self.arguments(queue).get("x-queue-type") == "quorum"

    def _calls(self, queue: Queue) -> list[Call]:
        calls: list[Call] = []
        for one in bindings(queue):
            if one.declare and not one.exchange.startswith("amq."):
                calls.append(
                    (
                        m.EXCHANGE_DECLARE,
                        one.exchange,
                        one.exchange_type,
                        False,
                        one.durable,
                        one.auto_delete,
                        False,
                        False,
                        one.exchange_arguments,
                    )
                )
        if queue.declare:
            calls.append(
                (
                    m.QUEUE_DECLARE,
                    queue.name,
                    False,
                    queue.durable,
                    queue.exclusive,
                    queue.auto_delete,
                    False,
                    self.arguments(queue),
                )
            )
        for one in bindings(queue):
            calls.append(
                (m.QUEUE_BIND, queue.name, one.exchange, one.routing_key, False, one.arguments)
            )
        return calls

    def _kombu_delays(self, queue: Queue) -> bool:
        """Whether Celery sends delayed messages for it by native delayed delivery."""
        return self.is_quorum(queue) and any(
            one.exchange_type != "direct" for one in bindings(queue)
        )


def bindings(queue: Queue) -> Sequence[Binding]:
    """All bindings of a queue but the one that every queue has."""
    if queue.bindings:
        return [one for one in queue.bindings if one.exchange]
    if not queue.exchange:
        return ()
    return (
        Binding(queue.exchange, queue.exchange_type, queue.routing_key, queue.binding_arguments),
    )


def _kombu_bindings(queue: Queue) -> list[Call]:
    """How Celery's workers bind such a queue, so that what its clients delay arrives."""
    calls: list[Call] = []
    for one in bindings(queue):
        if one.exchange_type == "direct":
            continue
        key = one.routing_key if one.routing_key.startswith("#") else f"#.{one.routing_key}"
        calls.append((m.EXCHANGE_BIND, one.exchange, DELIVERY, key, False, {}))
        calls.append((m.QUEUE_BIND, queue.name, one.exchange, key, False, {}))
    return calls
