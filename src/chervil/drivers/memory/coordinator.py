"""Leases and records inside this process, for tests and for the ``solo`` pool."""

from __future__ import annotations

import select
import socket
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from chervil import clock
from chervil.drivers.contracts import Broker
from chervil.drivers.coordination import ANY, Firing, Grant, Record
from chervil.drivers.memory.broker import MemoryBroker
from chervil.drivers.memory.space import Space, space_of
from chervil.exceptions import LeaseLost
from chervil.wire.message import Message


class _Table:
    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.versions = 0
        self.changes = 0
        self.pending: dict[str, Message] = {}
        self.watches: weakref.WeakSet[MemoryWatch] = weakref.WeakSet()


class _State:
    """What the coordinators of one name have in common; its space's lock protects it."""

    def __init__(self) -> None:
        #: Owner, token, monotonic time at which it ends.
        self.leases: dict[str, tuple[str, int, float]] = {}
        self.tables: dict[str, _Table] = {}

    def table(self, name: str) -> _Table:
        return self.tables.setdefault(name, _Table())


_states: weakref.WeakKeyDictionary[Space, _State] = weakref.WeakKeyDictionary()


class MemoryCoordinator:
    """See :class:`chervil.drivers.coordination.Coordinator`.

    :param url: ``memory://`` or ``memory://name``, as for the broker.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._space = space_of(url, options)
        self._broker = MemoryBroker(url, options)
        with self._space.lock:
            self._state = _states.setdefault(self._space, _State())

    # --- leases

    def acquire(self, name: str, owner: str, seconds: float) -> Grant:
        """See :meth:`chervil.drivers.coordination.Coordinator.acquire`."""
        with self._space.lock:
            present, token, until = self._state.leases.get(name, ("", 0, 0.0))
            now = clock.monotonic()
            if present != owner:
                if present and until > now:
                    return Grant(present, token, until - now)
                token += 1
            self._state.leases[name] = (owner, token, now + seconds)
            return Grant(owner, token, seconds)

    def release(self, name: str, token: int) -> None:
        """See :meth:`chervil.drivers.coordination.Coordinator.release`."""
        with self._space.lock:
            _, present, _ = self._state.leases.get(name, ("", 0, 0.0))
            if present == token:
                self._state.leases[name] = ("", token, 0.0)

    def holder(self, name: str) -> Grant | None:
        """See :meth:`chervil.drivers.coordination.Coordinator.holder`."""
        with self._space.lock:
            owner, token, until = self._state.leases.get(name, ("", 0, 0.0))
        left = until - clock.monotonic()
        return Grant(owner, token, left) if owner and left > 0 else None

    # --- records

    def put(self, table: str, records: Sequence[Record]) -> Sequence[int]:
        """See :meth:`chervil.drivers.coordination.Coordinator.put`."""
        with self._space.lock:
            kept = self._state.table(table)
            found = [_store(kept, record) for record in records]
            watches = _changed(kept) if any(found) else []
        for watch in watches:
            watch.wake()
        return found

    def get(self, table: str, keys: Sequence[str] | None = None) -> Sequence[Record]:
        """See :meth:`chervil.drivers.coordination.Coordinator.get`."""
        with self._space.lock:
            records = self._state.table(table).records
            if keys is None:
                return list(records.values())
            return [records[key] for key in dict.fromkeys(keys) if key in records]

    def delete(self, table: str, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.coordination.Coordinator.delete`."""
        with self._space.lock:
            kept = self._state.table(table)
            found = sum(kept.records.pop(key, None) is not None for key in keys)
            kept.versions += 1
            watches = _changed(kept) if found else []
        for watch in watches:
            watch.wake()
        return found

    def changes(self, table: str) -> int:
        """See :meth:`chervil.drivers.coordination.Coordinator.changes`."""
        with self._space.lock:
            return self._state.table(table).changes

    def watch(self, table: str) -> MemoryWatch:
        """See :meth:`chervil.drivers.coordination.Coordinator.watch`."""
        watch = MemoryWatch(self, table)
        with self._space.lock:
            self._state.table(table).watches.add(watch)
        return watch

    # --- what only the holder of a lease may do

    def fire(self, table: str, lease: str, token: int, firings: Sequence[Firing]) -> Sequence[int]:
        """See :meth:`chervil.drivers.coordination.Coordinator.fire`."""
        entries = [self._space.pack(firing.publish) for firing in firings]
        changed: set[str] = set()
        with self._space.lock:
            owner, present, _ = self._state.leases.get(lease, ("", 0, 0.0))
            if present != token or not owner:
                raise LeaseLost(f"the lease {lease!r} belongs to somebody else by now")
            kept = self._state.table(table)
            found = []
            for firing, packed in zip(firings, entries, strict=True):
                version = _store(kept, firing.record)
                found.append(version)
                if version:
                    kept.pending.update((message.id, message) for message in firing.pending)
                    changed |= self._space.insert(packed, clock.now())
            sleepers = self._space.consumers_of(changed)
        for consumer in sleepers:
            consumer.wake()
        return found

    def pending(self, table: str, limit: int = 1000) -> Sequence[Message]:
        """See :meth:`chervil.drivers.coordination.Coordinator.pending`."""
        with self._space.lock:
            return list(self._state.table(table).pending.values())[:limit]

    def sent(self, table: str, ids: Sequence[str]) -> None:
        """See :meth:`chervil.drivers.coordination.Coordinator.sent`."""
        with self._space.lock:
            for task_id in ids:
                self._state.table(table).pending.pop(task_id, None)

    def shares(self, broker: Broker) -> bool:
        """See :meth:`chervil.drivers.coordination.Coordinator.shares`."""
        return isinstance(broker, MemoryBroker) and broker._space is self._space

    def close(self) -> None:
        """There is nothing to release; what is stored stays."""


class MemoryWatch:
    """See :class:`chervil.drivers.coordination.Watch`."""

    def __init__(self, coordinator: MemoryCoordinator, table: str) -> None:
        self._coordinator = coordinator
        self._table = table
        self._seen = coordinator.changes(table)
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)

    def wait(self, timeout: float) -> bool:
        """See :meth:`chervil.drivers.coordination.Watch.wait`."""
        select.select([self._bell], [], [], max(0.0, timeout))
        try:
            self._bell.recv(4096)
        except OSError:
            pass
        seen, self._seen = self._seen, self._coordinator.changes(self._table)
        return seen != self._seen

    def wake(self) -> None:
        """See :meth:`chervil.drivers.coordination.Watch.wake`."""
        try:
            self._clapper.send(b"!")
        except OSError:  # it has rung often enough, or is closed
            pass

    def close(self) -> None:
        """See :meth:`chervil.drivers.coordination.Watch.close`."""
        self._bell.close()
        self._clapper.close()

    def __del__(self) -> None:
        if hasattr(self, "_clapper"):
            self.close()


def _store(kept: _Table, record: Record) -> int:
    """The new version; 0 where the present one is another than the given one."""
    present = kept.records.get(record.key)
    if record.version != ANY and record.version != (present.version if present else 0):
        return 0
    kept.versions += 1
    kept.records[record.key] = Record(record.key, record.data, kept.versions)
    return kept.versions


def _changed(kept: _Table) -> list[MemoryWatch]:
    kept.changes = kept.versions
    return list(kept.watches)
