"""Queues in RabbitMQ, as Celery uses them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from chervil import clock
from chervil.drivers.amqp import dead_letters
from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.consumer import AmqpConsumer
from chervil.drivers.amqp.dead_letters import DeadLetters
from chervil.drivers.amqp.fanout import AmqpFanout
from chervil.drivers.amqp.location import parse
from chervil.drivers.amqp.pool import ASKING, PUBLISHING, Pool
from chervil.drivers.amqp.properties import frames, of_message
from chervil.drivers.amqp.revocations import Revocations, stored
from chervil.drivers.amqp.sending import Parcel, parcels, store
from chervil.drivers.amqp.topology import Topology
from chervil.drivers.amqp.trouble import NOT_FOUND, Refused
from chervil.drivers.contracts import DeadLetter, Depth, Features, Queue, ResultStore
from chervil.exceptions import BrokerUnavailable
from chervil.wire.message import Message

#: The default of ``max_message_size`` in RabbitMQ 3.8 to 3.13; 4.x takes 16 MiB.
_MAX_SIZE = 128 * 1024 * 1024


class AmqpBroker:
    """See :class:`chervil.drivers.contracts.Broker`.

    Messages, queues, exchanges and bindings are those of Celery, so that its workers and
    clients can be at the other end of a queue, or at the same one. **Larger priorities are
    served first**, by queues that have a ``max_priority``.

    Each thread that publishes at the same time as others has a connection of its own; up
    to 16 are kept. A consumer has one.

    :param url: ``amqp://user:password@host:port/vhost``, ``amqps://`` for TLS; several
        servers of a cluster, separated by semicolons.
    :param options: see :class:`chervil.drivers.amqp.location.Location`.
    :raises ImproperlyConfigured: the URL or an option is wrong.
    """

    features = Features(sees_delayed=False, lists_queues=False, max_size=_MAX_SIZE, fanout=True)
    definition: Callable[[str], Queue] | None = None

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.location = parse(url, options or {})
        self.pool = Pool(self.location, BrokerUnavailable)
        self.topology = Topology(self.location, [dead_letters.QUEUE])
        self.revocations = Revocations(self.location)
        self._dead = DeadLetters(self)

    # --- sending

    def declare(self, queues: Sequence[Queue]) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.declare`."""
        with self.pool.link() as link:
            self.topology.declare(link, queues)

    def publish(self, messages: Sequence[Message]) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.publish`."""
        if len(messages) == 1 and not messages[0].due and self._publish_one(messages[0]):
            return
        if messages:
            self.send(parcels(messages, clock.now()))

    def _publish_one(self, message: Message) -> bool:
        """The usual case; False when it turns out to be another one, and nothing is stored."""
        if message.queue not in self.topology.known:
            return False
        exchange = message.exchange
        key = message.routing_key if exchange else message.queue
        properties = of_message(message)
        with self.pool.link() as link:
            packed = frames(properties, message.body, exchange, key, link.session.frame_max)
            try:
                return not link.publish([packed], link.ready(PUBLISHING, confirm=True))
            except Refused as exc:
                if exc.code != NOT_FOUND:
                    raise
                return False

    def send(self, items: Sequence[Parcel]) -> None:
        """Store parcels; errors as for :meth:`publish`."""
        with self.pool.link() as link:
            store(link, self.topology, items, self.definition)

    # --- consuming

    def consumer(self, queues: Sequence[Queue], node: str, lease: float = 10.0) -> AmqpConsumer:
        """See :meth:`chervil.drivers.contracts.Broker.consumer`."""
        if not queues:
            raise ValueError("a consumer needs at least one queue")
        self.topology.known.clear()  # a queue may have gone since, with its server
        return AmqpConsumer(self, queues, node, lease)

    # --- looking and tidying

    def depths(self, queues: Sequence[str] | None = None) -> Mapping[str, Depth]:
        """See :meth:`chervil.drivers.contracts.Broker.depths`.

        A server tells how many messages are ready, and no more: delayed ones wait in queues
        that all share. Without names, these are the queues that this object has declared.
        """
        names = list(self.topology.known) if queues is None else list(queues)
        if not names:
            return {}
        with self.pool.link() as link:
            dead = self._dead.counts(link)
            found = {}
            for name in names:
                ready = messages_in(link, name) or 0
                count = None if dead is None else dead.get(name, 0)
                found[name] = Depth(ready, None, None, count, None)
            return found

    def purge(self, queue: str) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.purge`; delayed messages stay."""
        with self.pool.link() as link:
            try:
                (count,) = link.call(link.ready(ASKING), m.QUEUE_PURGE, queue, False)
            except Refused as exc:
                if exc.code != NOT_FOUND:
                    raise
                return 0
            return int(count)

    def revoke(self, ids: Iterable[str], expires: float) -> Collection[str] | None:
        """See :meth:`chervil.drivers.contracts.Broker.revoke`; who holds what is not known."""
        with self.pool.link() as link:
            self.revocations.send(link, ids, expires)
        return None

    def revoked(self, limit: int = 1000) -> Sequence[str]:
        """See :meth:`chervil.drivers.contracts.Broker.revoked`."""
        with self.pool.link() as link:
            return stored(link, self.revocations, limit) if limit > 0 else []

    def fanout(self) -> AmqpFanout:
        """See :meth:`chervil.drivers.contracts.Broker.fanout`."""
        return AmqpFanout(self.pool)

    def dead(
        self, queue: str | None = None, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """See :meth:`chervil.drivers.contracts.Broker.dead`."""
        return self._dead.find(queue, limit, after)

    def replay(self, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.replay`."""
        return self._dead.replay(keys)

    def drop(self, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.drop`."""
        return self._dead.drop(keys)

    def shares(self, store: ResultStore) -> bool:
        """See :meth:`chervil.drivers.contracts.Broker.shares`."""
        return False

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.close`."""
        self.pool.close()


def messages_in(link: Any, queue: str) -> int | None:
    """How many messages are ready in a queue; None when there is no such queue."""
    try:
        found = link.call(
            link.ready(ASKING), m.QUEUE_DECLARE, queue, True, False, False, False, False, {}
        )
    except Refused as exc:
        if exc.code != NOT_FOUND:
            raise
        return None
    return int(found[1])
