"""A node's claims: what it took, settles, gives back, and loses with its lease."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from chervil import clock
from chervil.drivers.chords import Arrival
from chervil.drivers.contracts import Action, Delivery, Queue, Settlement
from chervil.drivers.sqlite import joins, messages, outcomes, revoked
from chervil.drivers.sqlite.database import Database, Link
from chervil.drivers.sqlite.wake import Ear
from chervil.exceptions import BrokerUnavailable, LeaseLost, OperationalError
from chervil.wire.message import Outcome

if TYPE_CHECKING:
    from chervil.drivers.sqlite.broker import SqliteBroker


_ID_BITS = 47


class _OutOfStep(Exception):
    """The file says otherwise than our memory of what we hold."""


class _Work:
    """What one exchange has to do and what came of it."""

    __slots__ = (
        "acks",
        "arrivals",
        "claimed",
        "closes",
        "news",
        "numbers",
        "others",
        "outcomes",
        "packed",
        "triggers",
        "wake",
    )

    def __init__(self, settlements: Sequence[Settlement], held: dict[int, int]) -> None:
        #: Tags to numbers of messages, of what is settled.
        self.numbers: dict[int, int] = {}
        self.acks: list[int] = []
        self.others: list[tuple[int, Settlement]] = []
        self.outcomes: list[Outcome] = []
        self.packed: list[messages.Packed] = []
        self.arrivals: list[Arrival] = []
        self.closes: list[str] = []
        #: Messages of which some may be published, by the member that brings them.
        self.triggers: dict[tuple[str, str], messages.Packed] = {}
        self.claimed: list[Delivery] = []
        #: Numbers of queues whose consumers should look.
        self.wake: set[int] = set()
        self.news: outcomes.News = []
        ack = Action.ACK
        for settlement in settlements:
            tag = settlement.delivery.tag
            number = held.get(tag)
            if number is None or tag in self.numbers:
                continue  # not ours, or not any more: it changes nothing
            self.numbers[tag] = number
            if settlement.action is ack:
                self.acks.append(number)
            else:
                self.others.append((number, settlement))
            if settlement.outcome is not None:
                self.outcomes.append(settlement.outcome)
            if settlement.others:
                self.outcomes.extend(settlement.others)
            if settlement.publish:
                self.packed.extend(map(messages.pack, settlement.publish))
            if settlement.arrivals:
                self.arrivals.extend(settlement.arrivals)
                for arrival in settlement.arrivals:
                    key = arrival.join, arrival.member
                    self.triggers[key] = messages.pack(arrival.trigger)
            if settlement.closes:
                self.closes.extend(settlement.closes)


class SqliteConsumer:
    """See :class:`chervil.drivers.contracts.Consumer`."""

    room: int | None = None

    def __init__(
        self, broker: SqliteBroker, queues: Sequence[Queue], node: str, lease: float
    ) -> None:
        self._broker = broker
        self._database = Database(broker.location, BrokerUnavailable)
        self._names = list(dict.fromkeys(queue.name for queue in queues))
        self._lease = lease
        self._turn = 0
        self._next_due: float | None = None
        #: Tags of what we hold to numbers of messages. SQLite may give the number
        #: of a message that is gone to a new one; a tag is never used again.
        self._held: dict[int, int] = {}
        self._closed = False
        self._pid = os.getpid()
        self._database.read(lambda link: None)  # the file must exist before its sockets do
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

    def _register(self, link: Link, node: str) -> int:
        self._numbers = [link.queues[name] for name in self._names]
        self._look = _look_at(self._numbers)
        # By chance and not in sequence, so that it means nobody in a file that has taken
        # the place of this one.
        number = secrets.randbits(_ID_BITS) + 1
        link.execute(
            "INSERT INTO consumers (id, name, node, lease_until) VALUES (?, ?, ?, ?)",
            (number, self._ear.name, node, clock.monotonic() + self._lease),
        )
        link.executemany(
            "INSERT INTO wants (queue, name) VALUES (?, ?)",
            [(queue, self._ear.name) for queue in self._numbers],
        )
        return number

    # --- claiming and settling

    def exchange(self, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
        """See :meth:`chervil.drivers.contracts.Consumer.exchange`."""
        if self._closed:
            raise LeaseLost("this consumer is closed")
        work = _Work(settlements, self._held)
        if not work.numbers and not self._database.read(self._is_something_there):
            return ()
        if not work.numbers and limit <= 0:
            return ()
        try:
            return self._exchange(work, limit)
        except _OutOfStep:
            # An earlier commit was reported as failed and was not.
            self._database.read(self._resynchronize)
        return self._exchange(_Work(settlements, self._held), limit)

    def _exchange(self, work: _Work, limit: int) -> Sequence[Delivery]:
        targets = {row.queue for row in (*work.packed, *work.triggers.values())}
        try:
            numbers, names = self._database.write(
                lambda link: self._transact(link, work, limit),
                (lambda link: messages.number_queues(link, targets)) if targets else None,
            )
        except LeaseLost:
            self._held.clear()
            raise
        held = self._held
        for tag in work.numbers:
            del held[tag]
        if work.claimed:
            first = self._tag
            self._tag = last = first + len(numbers)
            held.update(zip(range(first, last), numbers, strict=True))
        if len(work.claimed) < limit:
            names.discard(self._ear.name)  # there is nothing left for us
        if names or work.news:
            self._broker.knock(names, work.news)
        return work.claimed

    def _transact(self, link: Link, work: _Work, limit: int) -> tuple[list[int], set[str]]:
        now = clock.now()
        if not link.execute("SELECT 1 FROM consumers WHERE id = ?", (self._id,)).fetchone():
            raise self._lost()
        if work.numbers:
            self._settle(link, work, now)
        numbers = self._claim(link, work, limit, now)
        if work.claimed:
            revoked.mark(link, work.claimed, now)
        return numbers, self._broker.names_at(link, work.wake) if work.wake else set()

    def _settle(self, link: Link, work: _Work, now: float) -> None:
        found = 0
        if work.acks:
            found = messages.acknowledge(link, self._id, messages.runs(work.acks))
        for number, settlement in work.others:
            found += self._settle_other(link, work, number, settlement, now)
        if found != len(work.numbers):
            raise _OutOfStep
        if work.outcomes:
            sure = outcomes.put(link, work.outcomes, now)
            work.news = outcomes.news(link, work.outcomes, sure)
        packed = work.packed
        if work.arrivals:
            fired = joins.arrive(link, work.arrivals, now)
            packed = packed + [work.triggers[a.join, a.member] for a in fired]
        if work.closes:
            joins.close(link, work.closes, now)
        if packed:
            work.wake |= messages.insert(link, packed, now)

    def _settle_other(
        self, link: Link, work: _Work, number: int, settlement: Settlement, now: float
    ) -> int:
        uncounted = 0 if settlement.counted else 1
        if settlement.action == Action.DEAD:
            reason, detail = settlement.reason, settlement.detail
            return messages.bury(link, self._id, number, now, reason, detail)
        queue = self._numbers[self._names.index(settlement.delivery.queue)]
        if settlement.action == Action.DEFER and settlement.until > now:
            if messages.is_earliest(link, queue, settlement.until):
                work.wake.add(queue)
            return messages.defer(link, self._id, number, settlement.until, uncounted)
        work.wake.add(queue)
        return messages.requeue(link, self._id, number, now, uncounted)

    def _claim(self, link: Link, work: _Work, limit: int, now: float) -> list[int]:
        """Claim from each queue in turn, another one first each time."""
        self._turn = turn = (self._turn + 1) % len(self._numbers)
        tag = self._tag
        found: list[int] = []
        claimed: list[Delivery] = []
        dues: list[float] = []
        for place in (*range(turn, len(self._numbers)), *range(turn)):
            queue, name = self._numbers[place], self._names[place]
            due = messages.promote(link, queue, now)
            if due is not None:
                dues.append(due)
            if limit <= len(found):
                continue
            for row in messages.claim(link, queue, self._id, limit - len(found)):
                number, _, deliveries, head, body = row
                found.append(number)
                claimed.append(Delivery(tag, name, head, body, deliveries + 1))
                tag += 1
        work.claimed = claimed
        self._next_due = min(dues, default=None)
        return found

    def _is_something_there(self, link: Link) -> bool:
        """Look without taking the write lock."""
        ready, due, alive = link.execute(self._look, (self._id,)).fetchone()
        if not alive:
            self._held.clear()
            raise self._lost()
        self._next_due = due
        return bool(ready) or (due is not None and due <= clock.now())

    def _resynchronize(self, link: Link) -> None:
        rows = link.execute("SELECT id FROM claims WHERE owner = ?", (self._id,)).fetchall()
        ours = {number for (number,) in rows}
        self._held = {tag: number for tag, number in self._held.items() if number in ours}

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            f"the lease of {self._lease:g} s ran out without being renewed, "
            "and the claims were given to others"
        )

    # --- waiting

    def fileno(self) -> int:
        """See :meth:`chervil.drivers.contracts.Consumer.fileno`."""
        return self._ear.fileno()

    def drain(self) -> bool:
        """See :meth:`chervil.drivers.contracts.Consumer.drain`."""
        heard = self._ear.drain()
        if heard or (self._next_due is not None and self._next_due <= clock.now()):
            return True
        try:
            # For what was committed without a knock: by another program, or by one
            # that died before it could.
            return self._database.read(Link.changed)
        except OperationalError:
            return True  # the exchange says what is wrong

    def next_due(self) -> float | None:
        """See :meth:`chervil.drivers.contracts.Consumer.next_due`."""
        return self._next_due

    def wake(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.wake`."""
        self._ear.wake()

    # --- the lease

    def renew(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.renew`."""
        until = clock.monotonic() + self._lease
        found = self._broker.database.write(
            lambda link: (
                link.execute(
                    "UPDATE consumers SET lease_until = ? WHERE id = ?", (until, self._id)
                ).rowcount
            )
        )
        if not found:
            raise self._lost()

    def recover(self) -> int:
        """See :meth:`chervil.drivers.contracts.Consumer.recover`."""
        return self._broker.recover(self._id)

    def tend(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.tend`."""
        self._broker.database.checkpoint()

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.close`."""
        if self._closed:
            return
        self._closed = True
        self._held.clear()
        if self._pid != os.getpid():  # the lease is the parent's
            return
        try:
            self._broker.dismiss(self._id, self._ear.name)
        finally:
            self._ear.close()
            self._database.close()


def _look_at(queues: Iterable[int]) -> str:
    """A query for: is something ready, when is the next one due, do we exist."""
    numbers = list(map(str, queues))
    dues = " UNION ALL ".join(
        f"SELECT min(due) AS due FROM delayed WHERE queue = {number}" for number in numbers
    )
    return (
        f"SELECT EXISTS (SELECT 1 FROM ready WHERE queue IN ({', '.join(numbers)})), "
        f"(SELECT min(due) FROM ({dues})), EXISTS (SELECT 1 FROM consumers WHERE id = ?)"
    )
