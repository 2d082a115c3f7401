"""Leases and records in Redis."""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from chervil import clock
from chervil.drivers.contracts import Broker, Queue
from chervil.drivers.coordination import Firing, Grant, Record
from chervil.drivers.redis.broker import RedisBroker
from chervil.drivers.redis.link import Argument, Link
from chervil.drivers.redis.scripts import load
from chervil.drivers.redis.sending import groups
from chervil.exceptions import BrokerUnavailable, LeaseLost
from chervil.wire.message import Message

_COORDINATE: Final = load("coordinate.lua")
#: Seconds between looks for changes that nobody told of.
_LOOK: Final = 5.0
#: Records in one command.
_AT_ONCE: Final = 1000


class RedisCoordinator:
    """See :class:`chervil.drivers.coordination.Coordinator`.

    Leases run on the server's clock.

    :param url: as for :class:`chervil.drivers.redis.broker.RedisBroker`; in the same
        database as the broker, messages are stored by the script that fires them.
    :param options: the same.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._broker = RedisBroker(url, options)
        self._known: set[str] = set()

    def _do(self, what: str, *arguments: Argument) -> Any:
        with self._broker.pool.link() as link:
            return link.script(_COORDINATE, (), self._broker.names.prefix, what, *arguments)

    def _own(self, name: str) -> bytes:
        return self._broker.names.own(name)

    # --- leases

    def acquire(self, name: str, owner: str, seconds: float) -> Grant:
        """See :meth:`chervil.drivers.coordination.Coordinator.acquire`."""
        holder, token, left = self._do("acquire", name, owner, max(1, round(seconds * 1000)))
        return Grant(holder.decode(), token, left / 1000)

    def release(self, name: str, token: int) -> None:
        """See :meth:`chervil.drivers.coordination.Coordinator.release`."""
        self._do("release", name, token)

    def holder(self, name: str) -> Grant | None:
        """See :meth:`chervil.drivers.coordination.Coordinator.holder`."""
        key = self._own(f"lease-of.{name}")
        with self._broker.pool.link() as link:
            value, left = link.pipeline([("GET", key), ("PTTL", key)])
        if not isinstance(value, bytes) or not isinstance(left, int) or left <= 0:
            return None
        token, _, owner = value.decode().partition(":")
        return Grant(owner, int(token), left / 1000)

    # --- records

    def put(self, table: str, records: Sequence[Record]) -> Sequence[int]:
        """See :meth:`chervil.drivers.coordination.Coordinator.put`."""
        found: list[int] = []
        for start in range(0, len(records), _AT_ONCE):
            part = records[start : start + _AT_ONCE]
            values = [v for record in part for v in (record.key, record.version, record.data)]
            found += self._do("put", table, len(part), *values)
        return found

    def get(self, table: str, keys: Sequence[str] | None = None) -> Sequence[Record]:
        """See :meth:`chervil.drivers.coordination.Coordinator.get`."""
        name = self._own(f"records.{table}")
        with self._broker.pool.link() as link:
            if keys is None:
                found = link.call("HGETALL", name)
                pairs = zip(found[::2], found[1::2], strict=True)
                return [_record(key.decode(), value) for key, value in pairs]
            wanted = list(dict.fromkeys(keys))
            values = link.call("HMGET", name, *wanted) if wanted else []
        return [_record(k, v) for k, v in zip(wanted, values, strict=True) if v is not None]

    def delete(self, table: str, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.coordination.Coordinator.delete`."""
        wanted = list(dict.fromkeys(keys))
        parts = [wanted[start : start + _AT_ONCE] for start in range(0, len(wanted), _AT_ONCE)]
        return sum(self._do("delete", table, *part) for part in parts)

    def changes(self, table: str) -> int:
        """See :meth:`chervil.drivers.coordination.Coordinator.changes`."""
        with self._broker.pool.link() as link:
            return int(link.call("HGET", self._own(f"table.{table}"), "changes") or 0)

    def watch(self, table: str) -> RedisWatch:
        """See :meth:`chervil.drivers.coordination.Coordinator.watch`."""
        return RedisWatch(self, table, self._broker, self._own(f"changes.{table}"))

    # --- what only the holder of a lease may do

    def fire(self, table: str, lease: str, token: int, firings: Sequence[Firing]) -> Sequence[int]:
        """See :meth:`chervil.drivers.coordination.Coordinator.fire`."""
        names, now = self._broker.names, clock.now()
        self._introduce(firings)
        values: list[Argument] = []
        for firing in firings:
            record = firing.record
            count, arguments = groups(firing.publish, names, now)
            values += (record.key, record.version, record.data, len(firing.pending), count)
            for message in firing.pending:
                values += (message.id, msgspec.msgpack.encode(message))
            values += arguments
        found = self._do("fire", table, lease, token, repr(now), len(firings), *values)
        if found is None:
            raise LeaseLost(f"the lease {lease!r} belongs to somebody else by now")
        versions: Sequence[int] = found
        return versions

    def _introduce(self, firings: Sequence[Firing]) -> None:
        """Make the queues known that the messages go to."""
        queues = {message.queue for firing in firings for message in firing.publish}
        unknown = queues - self._known
        if unknown:
            self._broker.declare([Queue(name) for name in unknown])
            self._known |= unknown

    def pending(self, table: str, limit: int = 1000) -> Sequence[Message]:
        """See :meth:`chervil.drivers.coordination.Coordinator.pending`."""
        name = self._own(f"pending.{table}")
        with self._broker.pool.link() as link:
            ids = sorted(link.call("HKEYS", name))[:limit]  # which begin with their time
            values = link.call("HMGET", name, *ids) if ids else []
        return [msgspec.msgpack.decode(v, type=Message) for v in values if v is not None]

    def sent(self, table: str, ids: Sequence[str]) -> None:
        """See :meth:`chervil.drivers.coordination.Coordinator.sent`."""
        if ids:
            with self._broker.pool.link() as link:
                link.call("HDEL", self._own(f"pending.{table}"), *ids)

    def shares(self, broker: Broker) -> bool:
        """See :meth:`chervil.drivers.coordination.Coordinator.shares`."""
        mine = self._broker.location
        return (
            isinstance(broker, RedisBroker)
            and broker.location.place == mine.place
            and broker.location.global_keyprefix == mine.global_keyprefix
        )

    def close(self) -> None:
        """See :meth:`chervil.drivers.coordination.Coordinator.close`."""
        self._broker.close()


class RedisWatch:
    """See :class:`chervil.drivers.coordination.Watch`: a subscribed connection."""

    def __init__(
        self, coordinator: RedisCoordinator, table: str, broker: RedisBroker, channel: bytes
    ) -> None:
        self._coordinator = coordinator
        self._table = table
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)
        try:
            self._link = Link(broker.location, BrokerUnavailable)
            self._link.call("SUBSCRIBE", channel)
            self._seen = coordinator.changes(table)
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(self._link.socket, select.POLLIN)
        self._look = clock.monotonic() + _LOOK

    def wait(self, timeout: float) -> bool:
        """See :meth:`chervil.drivers.coordination.Watch.wait`."""
        ready = {number for number, _ in self._poll.poll(max(0.0, timeout) * 1000)}
        if self._bell.fileno() in ready:
            try:
                self._bell.recv(4096)
            except OSError:
                pass
        told = self._link.socket.fileno() in ready and bool(list(self._link.arrived()))
        now = clock.monotonic()
        if not told and now < self._look:
            return False
        self._look = now + _LOOK
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
        if hasattr(self, "_link"):
            self._link.close()
        self._bell.close()
        self._clapper.close()


def _record(key: str, value: bytes) -> Record:
    version, _, data = value.partition(b":")
    return Record(key, data, int(version))
