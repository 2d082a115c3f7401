"""How many messages the server may send before any of them is settled.

Classic queues share one window for all of a channel. Quorum queues, and RabbitMQ from 4.0
on, know only windows of single consumers, which are fixed when these begin: there a change
means to consume anew, which is done rarely: what is on its way to a consumer that ends goes
back, and a quorum queue counts that as a delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.trouble import NOT_IMPLEMENTED, Refused
from chervil.drivers.contracts import Queue

if TYPE_CHECKING:
    from chervil.drivers.amqp.topology import Topology

logger = logging.getLogger("chervil.worker")
#: Windows above that size may be a quarter larger than they would have to be.
_LARGE: Final = 16
_MOST: Final = 65535


class Window:
    """The consumers of a channel, and what they may hold."""

    def __init__(
        self, link: Link, channel: int, queues: Sequence[Queue], topology: Topology
    ) -> None:
        self._link = link
        self._channel = channel
        self._queues = {f"{place}": queue for place, queue in enumerate(queues)}
        self._quorum = {queue.name for queue in queues if topology.is_quorum(queue)}
        #: Consumer tags as they come with deliveries -> queue.
        self.queue_of: dict[bytes, str] = {}
        #: One window for all: what classic queues can do.
        self._shared = not self._quorum and link.session.version < (4,)
        #: Tags of the consumers that the server knows.
        self._consuming: list[str] = []
        #: Of these, a queue goes when nobody consumes from it.
        self._fleeting = any(queue.auto_delete for queue in queues)
        self._round = 0
        #: 0: nothing is sent now.
        self.size = 0

    def is_quorum(self, queue: str) -> bool:
        """Whether that queue counts how often its messages come back."""
        return queue in self._quorum

    def open(self, size: int) -> None:
        """See that so many messages, or somewhat more, may be unsettled at a time.

        :raises Refused: a queue is gone, or somebody else's.
        """
        now = self.size
        size = max(1, min(size, _MOST))
        if size <= now <= (size if size <= _LARGE else size + size // 4):
            return
        if self._shared:
            try:
                self._link.call(self._channel, m.BASIC_QOS, 0, size, True)
                if not self._consuming:
                    self._consume()
            except Refused as exc:
                if exc.code != NOT_IMPLEMENTED:
                    raise
                # One of the queues is a quorum queue that others declared.
                self._shared = False
                self._quorum = {queue.name for queue in self._queues.values()}
                self._link.open_channel(self._channel)
                self._consuming.clear()
        if not self._shared:
            if size <= now < 4 * size:
                return
            if size > _LARGE:
                size = 1 << (size - 1).bit_length()
            self._link.call(self._channel, m.BASIC_QOS, 0, min(size, _MOST), False)
            old, self._consuming = self._consuming, []
            self._consume()
            self._cancel(old)
        self.size = size

    def _consume(self) -> None:
        """Begin with all queues."""
        self._round += 1
        calls: list[tuple[Any, ...]] = []
        for number, queue in self._queues.items():
            tag = f"{self._round}.{number}"
            self.queue_of[m.short_text(tag)] = queue.name
            calls.append(
                (
                    m.BASIC_CONSUME,
                    queue.name,
                    tag,
                    False,
                    False,
                    False,
                    False,
                    queue.consumer_arguments,
                )
            )
            self._consuming.append(tag)
        self._link.calls(self._channel, calls)

    def close(self) -> None:
        """Have nothing more sent, or one message where that would be the end of a queue."""
        if self._fleeting:
            self.open(1)
            return
        self.size = 0
        old, self._consuming = self._consuming, []
        self._cancel(old)

    def _cancel(self, tags: Sequence[str]) -> None:
        """End consumers; what was sent to them stays unsettled."""
        if tags:
            self._link.calls(self._channel, [(m.BASIC_CANCEL, tag, False) for tag in tags])

    def cancelled(self, tags: Iterable[str]) -> None:
        """The server ended consumers: their queues are gone.

        :raises Refused: for the first of them.
        """
        for tag in tags:
            if tag in self._consuming:
                queue = self.queue_of[m.short_text(tag)]
                raise Refused(404, f"NOT_FOUND - queue {queue!r} was deleted", m.BASIC_CONSUME.id)
