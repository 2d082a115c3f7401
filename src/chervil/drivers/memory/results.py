"""Outcomes inside this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heappop
from typing import Any

from chervil import clock
from chervil.drivers.chords import Arrival, Joined
from chervil.drivers.memory.listener import MemoryListener
from chervil.drivers.memory.space import space_of
from chervil.wire.message import Message, Outcome

#: Outcomes that are deleted in one go.
_EXPIRE = 1000


class MemoryResults:
    """See :class:`chervil.drivers.contracts.ResultStore`.

    :param url: ``memory://`` or ``memory://name``.
    :param options: none are known.
    :raises ImproperlyConfigured: there are options.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.space = space_of(url, options)

    def put(self, outcomes: Sequence[Outcome]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.put`."""
        with self.space.lock:
            told = self.space.put(outcomes, clock.now())
        for listener in told:
            listener.wake()

    def get(self, ids: Collection[str]) -> Mapping[str, Outcome]:
        """See :meth:`chervil.drivers.contracts.ResultStore.get`."""
        now, found = clock.now(), {}
        with self.space.lock:
            for task_id in ids:
                outcome = self.space.results.get(task_id)
                if outcome is not None and not 0 < outcome.expires <= now:
                    found[task_id] = outcome
        return found

    def forget(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.forget`."""
        with self.space.lock:
            for task_id in ids:
                self.space.results.pop(task_id, None)

    def listener(self, address: str) -> MemoryListener:
        """See :meth:`chervil.drivers.contracts.ResultStore.listener`."""
        return MemoryListener(self.space, address)

    # --- chords and groups

    joins = True

    def announce(self, joins: Mapping[str, int]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.announce`; members say it themselves."""

    def arrive(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """See :meth:`chervil.drivers.contracts.ResultStore.arrive`."""
        with self.space.lock:
            return self.space.joins.arrive(arrivals, clock.now(), again=True)

    def sent(self, joins: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.sent`."""
        with self.space.lock:
            self.space.joins.sent(joins)

    def unsent(self, age: float) -> Mapping[str, Message]:
        """See :meth:`chervil.drivers.contracts.ResultStore.unsent`."""
        now = clock.now()
        with self.space.lock:
            return self.space.joins.unsent(now - age, now)

    def joined(self, join: str) -> Joined | None:
        """See :meth:`chervil.drivers.contracts.ResultStore.joined`."""
        with self.space.lock:
            return self.space.joins.joined(join)

    def widen(self, join: str, by: int) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.widen`."""
        with self.space.lock:
            self.space.joins.get(join, clock.now()).wider += by

    def close_joins(self, joins: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.close_joins`."""
        with self.space.lock:
            self.space.joins.close(joins, clock.now())

    def put_group(self, group: str, payload: bytes, expires: float) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.put_group`."""
        with self.space.lock:
            self.space.groups[group] = (expires, payload)

    def get_group(self, group: str) -> bytes | None:
        """See :meth:`chervil.drivers.contracts.ResultStore.get_group`."""
        with self.space.lock:
            expires, payload = self.space.groups.get(group, (0.0, None))
        return None if 0 < expires <= clock.now() else payload

    def forget_group(self, group: str) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.forget_group`."""
        with self.space.lock:
            self.space.groups.pop(group, None)

    def expire(self) -> int:
        """See :meth:`chervil.drivers.contracts.ResultStore.expire`."""
        now, found = clock.now(), 0
        with self.space.lock:
            expiries, results = self.space.expiries, self.space.results
            while expiries and expiries[0][0] <= now and found < _EXPIRE:
                expires, task_id = heappop(expiries)
                outcome = results.get(task_id)
                if outcome is not None and outcome.expires == expires:
                    del results[task_id]
                    found += 1
            found += self.space.joins.expire(now, _EXPIRE)
            for group in [g for g, (until, _) in self.space.groups.items() if 0 < until <= now]:
                del self.space.groups[group]
        return found

    def close(self) -> None:
        """There is nothing to release; what is stored stays."""
