"""A node's claims: what it took, settles, gives back, and loses with its lease."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from chervil import clock
from chervil.drivers.contracts import Action, Delivery, Queue, Settlement
from chervil.drivers.sqlite import messages, outcomes, revoked
from chervil.drivers.sqlite.database import Database, Link
from chervil.drivers.sqlite.wake import Ear
from chervil.exceptions import BrokerUnavailable, LeaseLost, OperationalError
from chervil.wire.message import Outcome

if TYPE_CHECKING:
    from chervil.drivers.sqlite.broker import SqliteBroker

#: Pages in the write-ahead log after which a commit of a consumer copies them into
#: the file: sooner than anybody else does, so that clients seldom have to.
_CHECKPOINT = 1000


class _OutOfStep(Exception):
    """The file says otherwise than our memory of what we hold."""


class _Work:
    """What one exchange has to do, prepared outside of its transaction."""

    __slots__ = ("acks", "claimed", "numbers", "others", "outcomes", "packed")

    def __init__(self, settlements: Sequence[Settlement], held: dict[int, int]) -> None:
        self.numbers: dict[int, int] = {}
        self.acks: list[int] = []
        self.others: list[tuple[int, Settlement]] = []
        self.outcomes: list[Outcome] = []
        self.packed: list[messages.Packed] = []
        self.claimed: list[Delivery] = []
        for settlement in settlements:
            tag = settlement.delivery.tag
            number = held.get(tag)
            if number is None or tag in self.numbers:
                continue  # not ours, or not any more: it changes nothing
            self.numbers[tag] = number
            if settlement.action == Action.ACK:
                self.acks.append(number)
            else:
                self.others.append((number, settlement))
            if settlement.outcome is not None:
                self.outcomes.append(settlement.outcome)
            for message in settlement.publish:
                self.packed.append(messages.pack(message))


class SqliteConsumer:
    """See :class:`chervil.drivers.contracts.Consumer`."""

    def __init__(
        self, broker: SqliteBroker, queues: Sequence[Queue], node: str, lease: float
    ) -> None:
        self._broker = broker
        self._database = Database(broker.location, BrokerUnavailable, _CHECKPOINT)
        self._names = list(dict.fromkeys(queue.name for queue in queues))
        self._lease = lease
        self._turn = 0
        self._next_due: float | None = None
        #: Tags of what we hold to numbers of messages. A number may be given to
        #: another message when its own is gone; a tag never is.
        self._held: dict[int, int] = {}
        broker.number(self._names)
        self._ear = Ear(broker.places, "c", locked=True)
        try:
            self._id = self._database.write(
                lambda link: self._register(link, node),
                lambda link: messages.number_queues(link, self._names),
            )
        except BaseException:
            self._ear.close()
            raise
        self._tag = self._id << 40
        self._closed = False

    def _register(self, link: Link, node: str) -> int:
        self._numbers = [link.queues[name] for name in self._names]
        due = " UNION ALL ".join(
            f"SELECT min(due) AS due FROM delayed WHERE queue = {number}"
            for number in self._numbers
        )
        among = ", ".join(map(str, self._numbers))
        self._look = (
            f"SELECT EXISTS (SELECT 1 FROM ready WHERE queue IN ({among})), "
            f"(SELECT min(due) FROM ({due})), EXISTS (SELECT 1 FROM consumers WHERE id = ?)"
        )
        number = link.execute(
            "INSERT INTO consumers (name, node, lease_until) VALUES (?, ?, ?)",
            (self._ear.name, node, clock.monotonic() + self._lease),
        ).lastrowid
        link.executemany(
            "INSERT INTO wants (queue, name) VALUES (?, ?)",
            [(queue, self._ear.name) for queue in self._numbers],
        )
        assert number is not None
        return number

    # --- claiming and settling

    def exchange(self, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
        """See :meth:`chervil.drivers.contracts.Consumer.exchange`."""
        if self._closed:
            raise LeaseLost("this consumer is closed")
        if not settlements and (limit <= 0 or not self._database.read(self._is_something_there)):
            return ()
        work = _Work(settlements, self._held)
        if not work.numbers and limit <= 0:
            self._database.read(self._is_something_there)  # is the lease still ours?
            return ()
        try:
            return self._exchange(work, limit)
        except _OutOfStep:
            self._database.read(self._resynchronize)
        return self._exchange(_Work(settlements, self._held), limit)

    def _exchange(self, work: _Work, limit: int) -> Sequence[Delivery]:
        queues: Iterable[str] = self._names
        if work.packed:
            queues = {*self._names, *(row.queue for row in work.packed)}
        wake, news = self._database.write(
            lambda link: self._transact(link, work, limit),
            lambda link: messages.number_queues(link, queues),
        )
        held = self._held
        for tag in work.numbers:
            del held[tag]
        for delivery in work.claimed:
            held[delivery.tag[0]] = delivery.tag[1]
        return work.claimed
