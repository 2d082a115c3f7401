"""Outcomes inside this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heappop
from typing import Any

from chervil import clock
from chervil.drivers.memory.listener import MemoryListener
from chervil.drivers.memory.space import space_of
from chervil.wire.message import Outcome

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
        return found

    def close(self) -> None:
        """There is nothing to release; what is stored stays."""
