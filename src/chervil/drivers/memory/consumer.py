"""A consumer's claims on the queues of a space."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from heapq import heappop
from typing import TYPE_CHECKING

from chervil import clock
from chervil.drivers.contracts import Action, Delivery, Queue, Settlement
from chervil.drivers.memory.space import Entry, Space
from chervil.exceptions import LeaseLost
from chervil.wire.message import Outcome

if TYPE_CHECKING:
    from chervil.drivers.memory.listener import MemoryListener


class MemoryConsumer:
    """See :class:`chervil.drivers.contracts.Consumer`."""

    room: int | None = None

    def __init__(self, space: Space, queues: Sequence[Queue], lease: float) -> None:
        self.names = list(dict.fromkeys(queue.name for queue in queues))
        #: Tags to what they stand for; changed under the space's lock.
        self.held: dict[int, Entry] = {}
        self._space = space
        self._lease = lease
        self._turn = 0
        self._next_due: float | None = None
        self._ear, self._poke = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.setblocking(False)
        self._poke.setblocking(False)
        self.lease_until = clock.monotonic() + lease
        with space.lock:
            for name in self.names:
                space.line(name)
            self._number = next(space.numbers)
            space.consumers[self._number] = self

    # --- claiming and settling

    def exchange(self, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
        """See :meth:`chervil.drivers.contracts.Consumer.exchange`."""
        space, now = self._space, clock.now()
        packed = [space.pack(settlement.publish) for settlement in settlements]
        changed: set[str] = set()
        outcomes: list[Outcome] = []
        told: list[MemoryListener] = []
        with space.lock:
            self._check()
            for settlement, entries in zip(settlements, packed, strict=True):
                entry = self.held.pop(settlement.delivery.tag, None)
                if entry is None:
                    continue  # not ours, or not any more: it changes nothing
                changed |= self._settle(entry, settlement, now)
                changed |= space.insert(entries, now)
                if settlement.outcome is not None:
                    outcomes.append(settlement.outcome)
                outcomes.extend(settlement.others)
                if settlement.arrivals:
                    fired = space.joins.arrive(settlement.arrivals, now)
                    changed |= space.insert(space.pack(a.trigger for a in fired), now)
                if settlement.closes:
                    space.joins.close(settlement.closes, now)
            if outcomes:
                told = space.put(outcomes, now)
            claimed = self._claim(limit, now)
            sleepers = space.consumers_of(changed) if changed else []
        for consumer in sleepers:
            if consumer is not self or len(claimed) >= limit:
                consumer.wake()
        for listener in told:
            listener.wake()
        return claimed

    def _check(self) -> None:
        if self._number not in self._space.consumers:
            self.held.clear()
            raise LeaseLost(
                f"the lease of {self._lease:g} s ran out without being renewed, or this "
                "consumer was closed, and the claims were given to others"
            )

    def _settle(self, entry: Entry, settlement: Settlement, now: float) -> set[str]:
        action = settlement.action
        if action == Action.ACK:
            return set()
        if action == Action.DEAD:
            self._space.bury(entry, settlement.reason, settlement.detail, now)
            return set()
        if not settlement.counted:
            entry.deliveries -= 1
        if action == Action.DEFER and settlement.until > now:
            return {entry.queue} if self._space.delay(entry, settlement.until) else set()
        self._space.make_ready(entry, now)
        return {entry.queue}

    def _claim(self, limit: int, now: float) -> list[Delivery]:
        """Claim from each queue in turn, another one first each time."""
        self._turn = turn = (self._turn + 1) % len(self.names)
        space = self._space
        found: list[Delivery] = []
        dues: list[float] = []
        for name in self.names[turn:] + self.names[:turn]:
            due = space.promote(name, now)
            if due is not None:
                dues.append(due)
            ready = space.line(name).ready
            while ready and len(found) < limit:
                entry = heappop(ready)[2]
                entry.deliveries += 1
                tag = next(space.numbers)
                self.held[tag] = entry
                revoked = space.revoked.get(entry.task_id, 0.0) > now
                found.append(Delivery(tag, name, entry.head, entry.body, entry.deliveries, revoked))
        self._next_due = min(dues, default=None)
        return found

    # --- waiting

    def fileno(self) -> int:
        """See :meth:`chervil.drivers.contracts.Consumer.fileno`."""
        return self._ear.fileno()

    def drain(self) -> bool:
        """See :meth:`chervil.drivers.contracts.Consumer.drain`."""
        heard = False
        try:
            while self._ear.recv(16):
                heard = True
        except OSError:
            pass
        return heard or (self._next_due is not None and self._next_due <= clock.now())

    def next_due(self) -> float | None:
        """See :meth:`chervil.drivers.contracts.Consumer.next_due`."""
        return self._next_due

    def wake(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.wake`."""
        try:
            self._poke.send(b"!")
        except OSError:  # full: it is readable already; or closed
            pass

    # --- the lease

    def renew(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.renew`."""
        with self._space.lock:
            self._check()
            self.lease_until = clock.monotonic() + self._lease

    def tend(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.tend`; there is nothing to do."""

    def recover(self) -> int:
        """See :meth:`chervil.drivers.contracts.Consumer.recover`."""
        now, found = clock.monotonic(), 0
        changed: set[str] = set()
        space = self._space
        with space.lock:
            for number, consumer in list(space.consumers.items()):
                if consumer is not self and consumer.lease_until < now:
                    del space.consumers[number]
                    found += len(consumer.held)
                    changed |= consumer.give_back(uncounted=0)
            for task_id in [t for t, expires in space.revoked.items() if expires <= clock.now()]:
                del space.revoked[task_id]
            sleepers = space.consumers_of(changed)
        _wake(sleepers)
        return found

    def give_back(self, uncounted: int) -> set[str]:
        """With the space's lock: make ready again what is held; which queues changed."""
        now = clock.now()
        changed: set[str] = set()
        for entry in self.held.values():
            entry.deliveries -= uncounted
            self._space.make_ready(entry, now)
            changed.add(entry.queue)
        self.held.clear()
        return changed

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.close`."""
        sleepers: list[MemoryConsumer] = []
        with self._space.lock:
            if self._space.consumers.pop(self._number, None) is not None:
                sleepers = self._space.consumers_of(self.give_back(uncounted=1))
        _wake(sleepers)
        self._ear.close()
        self._poke.close()


def _wake(consumers: Iterable[MemoryConsumer]) -> None:
    for consumer in consumers:
        consumer.wake()
