"""Outcomes in Redis, under the keys of Celery's result backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chervil import clock
from chervil.drivers.chords import Arrival, Joined, pack, unpack
from chervil.drivers.redis import joining, outcomes
from chervil.drivers.redis.link import Argument, Pool
from chervil.drivers.redis.listener import RedisListener
from chervil.drivers.redis.location import parse
from chervil.drivers.redis.names import Names, group_prefix, result_prefix
from chervil.drivers.redis.scripts import load
from chervil.exceptions import BackendError
from chervil.wire.message import Message, Outcome

_STORE = load("outcomes.lua")
_ARRIVE = load("arrive.lua")
#: Outcomes that are stored by one call of the script; others wait as long.
_AT_ONCE = 500
#: Triggers that are found again in one go.
_UNSENT = 100


class RedisResults:
    """See :class:`chervil.drivers.contracts.ResultStore`.

    A result is the value of ``celery-task-meta-<id>`` and is published on the channel of
    the same name. Redis deletes it when it expires.

    :param url: as for :class:`chervil.drivers.redis.broker.RedisBroker`; in the same
        database as the broker's, outcomes are stored with the acknowledgements.
    :param options: see :class:`chervil.drivers.redis.location.Location`.
    :raises ImproperlyConfigured: the URL or an option is wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.location = parse(url, options or {})
        self.prefix = result_prefix(self.location)
        self.groups = group_prefix(self.location)
        self._names = Names(self.location)
        self._pool = Pool(self.location, BackendError)

    def put(self, outcomes_: Sequence[Outcome]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.put`."""
        for start in range(0, len(outcomes_), _AT_ONCE):
            part = outcomes_[start : start + _AT_ONCE]
            arguments = outcomes.arguments(part, clock.now())
            with self._pool.link() as link:
                link.script(_STORE, (), self._names.prefix, self.prefix, len(part), *arguments)

    def get(self, ids: Collection[str]) -> Mapping[str, Outcome]:
        """See :meth:`chervil.drivers.contracts.ResultStore.get`."""
        if not ids:
            return {}
        with self._pool.link() as link:
            found = outcomes.get(link, self._names, self.prefix, ids)
        return {outcome.task_id: outcome for outcome in found}

    def forget(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.forget`."""
        if not ids:
            return
        keys = [self.prefix + task_id.encode() for task_id in ids]
        keys += [self._names.own(f"status.{task_id}") for task_id in ids]
        with self._pool.link() as link:
            for start in range(0, len(keys), _AT_ONCE):
                link.call("UNLINK", *keys[start : start + _AT_ONCE])

    def listener(self, address: str) -> RedisListener:
        """See :meth:`chervil.drivers.contracts.ResultStore.listener`."""
        return RedisListener(self.location, self._names, self.prefix, self._pool, address)

    # --- chords and groups

    joins = True

    def announce(self, joins: Mapping[str, int]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.announce`."""
        self._join(len(joins), joining.begins_of(joins))

    def arrive(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """See :meth:`chervil.drivers.contracts.ResultStore.arrive`."""
        if not arrivals:
            return ()
        fired = self._join(
            *joining.arrivals_of(arrivals, lambda arrival: (b"", pack(arrival.trigger)))
        )
        pairs = set(zip(fired[::2], fired[1::2], strict=True))
        return [a for a in arrivals if (a.join.encode(), a.member.encode()) in pairs]

    def close_joins(self, joins: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.close_joins`."""
        self._join(len(joins), joining.closes_of(joins))

    def _join(self, count: int, arguments: Sequence[Argument]) -> list[bytes]:
        if not count:
            return []
        with self._pool.link() as link:
            answer: list[bytes] = link.script(
                _ARRIVE, (), self._names.prefix, self.groups, repr(clock.now()), count, *arguments
            )
        return answer

    def sent(self, joins: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.sent`."""
        if joins:
            with self._pool.link() as link:
                link.call("UNLINK", *map(self._trigger, joins))
                link.call("ZREM", self._names.own("unsent"), *joins)

    def unsent(self, age: float) -> Mapping[str, Message]:
        """See :meth:`chervil.drivers.contracts.ResultStore.unsent`."""
        key, now = self._names.own("unsent"), clock.now()
        with self._pool.link() as link:
            found = link.call("ZRANGEBYSCORE", key, "-inf", repr(now - age), "LIMIT", 0, _UNSENT)
            if not found:
                return {}
            joins = [join.decode() for join in found]
            triggers = link.call("MGET", *map(self._trigger, joins))
            for join, trigger in zip(joins, triggers, strict=True):
                if trigger is None:  # its body was sent
                    link.call("ZREM", key, join)
                else:
                    link.call("ZADD", key, "XX", repr(now), join)
        pairs = zip(joins, triggers, strict=True)
        return {join: unpack(trigger) for join, trigger in pairs if trigger is not None}

    def _trigger(self, join: str) -> bytes:
        return self._names.own(f"trigger.{join}")

    def joined(self, join: str) -> Joined | None:
        """See :meth:`chervil.drivers.contracts.ResultStore.joined`."""
        key = self._group(join)
        with self._pool.link() as link:
            values = link.call("ZRANGE", key + b".j", 0, -1)
            done = link.call("GET", key + b".c") == b"done"
        return Joined(done, values) if values else None

    def widen(self, join: str, by: int) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.widen`."""
        with self._pool.link() as link:
            link.call("INCRBY", self._group(join) + b".t", by)

    def put_group(self, group: str, payload: bytes, expires: float) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.put_group`."""
        life = int((expires - clock.now()) * 1000)
        with self._pool.link() as link:
            if expires <= 0:
                link.call("SET", self._group(group), payload)
            elif life > 0:
                link.call("SET", self._group(group), payload, "PX", life)
            else:
                link.call("UNLINK", self._group(group))

    def get_group(self, group: str) -> bytes | None:
        """See :meth:`chervil.drivers.contracts.ResultStore.get_group`."""
        with self._pool.link() as link:
            payload: bytes | None = link.call("GET", self._group(group))
        return payload

    def forget_group(self, group: str) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.forget_group`."""
        with self._pool.link() as link:
            link.call("UNLINK", self._group(group))

    def _group(self, name: str) -> bytes:
        return self.groups + name.encode()

    def expire(self) -> int:
        """See :meth:`chervil.drivers.contracts.ResultStore.expire`; Redis does it by itself."""
        return 0

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.close`."""
        self._pool.close()
