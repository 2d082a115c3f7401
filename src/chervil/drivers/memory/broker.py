"""Queues inside this process, for tests and for programs that need no other one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from chervil import clock
from chervil.drivers.contracts import DeadLetter, Depth, Features, Queue, ResultStore
from chervil.drivers.memory.consumer import MemoryConsumer
from chervil.drivers.memory.fanout import MemoryFanout
from chervil.drivers.memory.results import MemoryResults
from chervil.drivers.memory.space import space_of
from chervil.wire.message import Message


class MemoryBroker:
    """See :class:`chervil.drivers.contracts.Broker`.

    :param url: ``memory://`` or ``memory://name``: brokers of the same name in the
        same process are the same one. What it holds is gone when nothing uses that
        name any more, and a forked child has a copy of its own.
    :param options: none are known.
    :raises ImproperlyConfigured: there are options.
    """

    features = Features(atomic_results=True, shared=False, fanout=True)
    definition: Callable[[str], Queue] | None = None

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._space = space_of(url, options)

    def declare(self, queues: Sequence[Queue]) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.declare`."""
        with self._space.lock:
            for queue in queues:
                self._space.line(queue.name)

    def publish(self, messages: Sequence[Message]) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.publish`."""
        entries = self._space.pack(messages)
        with self._space.lock:
            changed = self._space.insert(entries, clock.now())
        self._wake(changed)

    def consumer(self, queues: Sequence[Queue], node: str, lease: float = 10.0) -> MemoryConsumer:
        """See :meth:`chervil.drivers.contracts.Broker.consumer`."""
        if not queues:
            raise ValueError("a consumer needs at least one queue")
        return MemoryConsumer(self._space, queues, lease)

    def depths(self, queues: Sequence[str] | None = None) -> Mapping[str, Depth]:
        """See :meth:`chervil.drivers.contracts.Broker.depths`."""
        now, space = clock.now(), self._space
        with space.lock:
            names = list(space.lines) if queues is None else queues
            return {
                name: space.depth(name, now) if name in space.lines else Depth() for name in names
            }

    def purge(self, queue: str) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.purge`."""
        with self._space.lock:
            line = self._space.lines.get(queue)
            if line is None:
                return 0
            found = len(line.ready) + len(line.delayed)
            line.ready.clear()
            line.delayed.clear()
            return found

    def revoke(self, ids: Iterable[str], expires: float) -> Collection[str]:
        """See :meth:`chervil.drivers.contracts.Broker.revoke`."""
        wanted = set(ids)
        with self._space.lock:
            revoked = self._space.revoked
            for task_id in wanted:
                revoked[task_id] = max(expires, revoked.get(task_id, 0.0))
            consumers = self._space.consumers.values()
            held = {entry.task_id for consumer in consumers for entry in consumer.held.values()}
        return wanted & held

    def revoked(self, limit: int = 1000) -> Sequence[str]:
        """See :meth:`chervil.drivers.contracts.Broker.revoked`."""
        now = clock.now()
        with self._space.lock:
            found = [task_id for task_id, until in self._space.revoked.items() if until > now]
        return found[::-1][:limit]

    def fanout(self) -> MemoryFanout:
        """See :meth:`chervil.drivers.contracts.Broker.fanout`."""
        return MemoryFanout(self._space)

    def dead(
        self, queue: str | None = None, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """See :meth:`chervil.drivers.contracts.Broker.dead`."""
        (first,) = _numbers([after]) or (0,)
        with self._space.lock:
            letters = [letter for key, (_, letter) in self._space.dead.items() if key > first]
        return [letter for letter in letters if queue in (None, letter.queue)][:limit]

    def replay(self, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.replay`."""
        entries = []
        with self._space.lock:
            for key in _numbers(keys):
                if key in self._space.dead:
                    entry, _ = self._space.dead.pop(key)
                    entry.deliveries, entry.due = 0, 0.0
                    entries.append(entry)
            changed = self._space.insert(entries, clock.now())
        self._wake(changed)
        return len(entries)

    def drop(self, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.drop`."""
        with self._space.lock:
            return sum(self._space.dead.pop(key, None) is not None for key in _numbers(keys))

    def shares(self, store: ResultStore) -> bool:
        """See :meth:`chervil.drivers.contracts.Broker.shares`."""
        return isinstance(store, MemoryResults) and store.space is self._space

    def close(self) -> None:
        """There is nothing to release; what is stored stays."""

    def _wake(self, changed: Iterable[str]) -> None:
        with self._space.lock:
            sleepers = self._space.consumers_of(changed)
        for consumer in sleepers:
            consumer.wake()


def _numbers(keys: Iterable[str]) -> list[int]:
    """The numbers that keys stand for; what is no key of ours stands for nothing."""
    return [int(key) for key in keys if key.isascii() and key.isdigit()]
