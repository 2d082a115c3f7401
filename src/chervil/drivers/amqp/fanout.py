"""Notes over RabbitMQ, as kombu lays them out.

What is told to all goes to a fanout exchange (with keys: a topic exchange), and each who
listens has a queue of its own there. An answer goes through a direct exchange to the queue
of who asked. All these queues go when the connection of their owner does. (Source:
celery/kombu ``kombu/pidbox.py`` and celery/celery ``celery/events/receiver.py``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.pool import PUBLISHING, Pool
from chervil.drivers.amqp.properties import decode_properties, encode_properties, frames
from chervil.drivers.amqp.trouble import (
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    Refused,
)
from chervil.exceptions import BrokerUnavailable, DecodeError
from chervil.ids import new_id
from chervil.wire.notes import Note

_CHANNEL: Final = 1
#: Milliseconds that Celery keeps a queue that nobody reads, and a message in it.
_OF_CONTROL: Final = {"x-expires": 10_000, "x-message-ttl": 300_000}
_OF_EVENTS: Final = {"x-expires": 60_000, "x-message-ttl": 5_000}


class _Place(msgspec.Struct):
    """What a mailbox declares."""

    exchange: str
    exchange_type: str
    queue: str
    routing_key: str

    def declare(self, link: Link) -> str:
        """Declare exchange, queue and binding; the name of the queue.

        :raises Refused: the user may not do that.
        """
        self._declare_exchange(link)
        try:
            return self._declare_queue(link, self.queue)
        except Refused as exc:
            if exc.code not in (RESOURCE_LOCKED, PRECONDITION_FAILED):
                raise
            # Of another of that name, or of us before the connection broke: who sends
            # knows the exchange alone.
            return self._declare_queue(link, f"{self.queue}.{new_id()}")

    def _declare_exchange(self, link: Link) -> None:
        durable = self.exchange_type == "topic"
        call: tuple[Any, ...] = (self.exchange, self.exchange_type, False, durable)
        try:
            link.call(link.ready(_CHANNEL), m.EXCHANGE_DECLARE, *call, False, False, False, {})
        except Refused as exc:
            if exc.code != PRECONDITION_FAILED:  # another program has declared it otherwise
                raise

    def _declare_queue(self, link: Link, name: str) -> str:
        arguments = _OF_EVENTS if self.exchange_type == "topic" else _OF_CONTROL
        link.calls(
            link.ready(_CHANNEL),
            [
                (m.QUEUE_DECLARE, name, False, False, True, True, False, arguments),
                (m.QUEUE_BIND, name, self.exchange, self.routing_key, False, {}),
            ],
        )
        return name


class AmqpMailbox:
    """See :class:`chervil.drivers.contracts.Mailbox`; a connection of its own.

    What is not read waits in the server, which drops it when it is too old.
    """

    def __init__(self, pool: Pool, place: _Place) -> None:
        self._link = Link(pool.location, BrokerUnavailable, f"chervil {place.queue}"[:200])
        try:
            queue = place.declare(self._link)
            self._link.consume(_CHANNEL, queue, "notes", no_ack=True)
        except Refused as exc:
            self._link.close()
            raise self._link.refused(exc) from None
        except BaseException:
            self._link.close()
            raise

    def fileno(self) -> int:
        """See :meth:`chervil.drivers.contracts.Mailbox.fileno`."""
        return self._link.fileno()

    def receive(self) -> Sequence[Note]:
        """See :meth:`chervil.drivers.contracts.Mailbox.receive`."""
        link = self._link
        link.pump()
        found = []
        for content in link.take():
            try:
                properties = decode_properties(content.header)
            except DecodeError:
                continue
            found.append(
                Note(
                    content.body,
                    properties.get("headers") or {},
                    properties.get("content_type") or "application/json",
                    properties.get("content_encoding") or "utf-8",
                )
            )
        if not found and (link.cancelled or link.is_closed(_CHANNEL)):
            self.close()
            raise BrokerUnavailable(f"RabbitMQ at {link.server.name} has closed a mailbox")
        return found

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Mailbox.close`."""
        self._link.close()


class AmqpFanout:
    """See :class:`chervil.drivers.contracts.Fanout`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def subscribe(self, exchange: str, name: str, key: str = "") -> AmqpMailbox:
        """See :meth:`chervil.drivers.contracts.Fanout.subscribe`."""
        if key:
            return AmqpMailbox(self._pool, _Place(exchange, "topic", f"{exchange}.{name}", key))
        return AmqpMailbox(self._pool, _Place(exchange, "fanout", f"{name}.{exchange}", ""))

    def answers(self, exchange: str, key: str) -> AmqpMailbox:
        """See :meth:`chervil.drivers.contracts.Fanout.answers`."""
        return AmqpMailbox(self._pool, _Place(exchange, "direct", f"{key}.{exchange}", key))

    def broadcast(self, exchange: str, note: Note, key: str = "") -> int | None:
        """See :meth:`chervil.drivers.contracts.Fanout.broadcast`; 0 or unknown."""
        return None if self._send(exchange, key, note, 1 if key else 2) else 0

    def reply(self, exchange: str, key: str, note: Note) -> None:
        """See :meth:`chervil.drivers.contracts.Fanout.reply`."""
        self._send(exchange, key, note, 1)

    def _send(self, exchange: str, key: str, note: Note, delivery_mode: int) -> bool:
        """Whether there is somebody whom it reaches."""
        properties = encode_properties(
            {
                "content_type": note.content_type,
                "content_encoding": note.content_encoding,
                "headers": note.headers,
                "delivery_mode": delivery_mode,
                "priority": 0,
            }
        )
        with self._pool.link() as link:
            packed = frames(properties, note.body, exchange, key, link.session.frame_max)
            try:
                failures = link.publish([packed], link.ready(PUBLISHING, confirm=True))
            except Refused as exc:
                if exc.code != NOT_FOUND:  # nobody who listens has declared the exchange
                    raise
                return False
            if failures.refused:
                raise link.error(f"RabbitMQ at {link.server.name} did not take a note")
            return not failures.returned
