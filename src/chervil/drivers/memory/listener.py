"""An ear at the results of a space."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from chervil.drivers.memory.space import Space
from chervil.wire.message import Outcome


class MemoryListener:
    """See :class:`chervil.drivers.contracts.Listener`."""

    def __init__(self, space: Space, address: str) -> None:
        self.address = address
        self._space = space
        self._watched: set[str] = set()
        self._news: dict[str, Outcome] = {}
        self._woken = threading.Event()
        with space.lock:
            space.listeners.append(self)

    def note(self, outcome: Outcome) -> bool:
        """With the space's lock: remember news; whether they are wanted."""
        if outcome.task_id not in self._watched:
            return False
        self._news[outcome.task_id] = outcome
        return True

    def watch(self, ids: Collection[str], sent_here: bool) -> bool:
        """See :meth:`chervil.drivers.contracts.Listener.watch`."""
        with self._space.lock:
            self._watched.update(ids)
        return False

    def unwatch(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.unwatch`."""
        with self._space.lock:
            self._watched.difference_update(ids)
            for task_id in ids:
                self._news.pop(task_id, None)

    def wait(self, timeout: float) -> Sequence[Outcome]:
        """See :meth:`chervil.drivers.contracts.Listener.wait`."""
        self._woken.wait(max(0.0, timeout))
        self._woken.clear()
        with self._space.lock:
            news, self._news = self._news, {}
        return list(news.values())

    def wake(self) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.wake`."""
        self._woken.set()

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.close`."""
        with self._space.lock:
            if self in self._space.listeners:
                self._space.listeners.remove(self)
        self._woken.set()
