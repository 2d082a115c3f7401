"""Queues in Redis, in kombu's lists."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from chervil import clock
from chervil.drivers.contracts import DeadLetter, Depth, Features, Queue, ResultStore
from chervil.drivers.redis import looking
from chervil.drivers.redis.consumer import RedisConsumer
from chervil.drivers.redis.fanout import RedisFanout
from chervil.drivers.redis.link import Argument, Link, Pool, Refused, pack
from chervil.drivers.redis.location import parse
from chervil.drivers.redis.names import Names, group_prefix, result_prefix
from chervil.drivers.redis.results import RedisResults
from chervil.drivers.redis.scripts import load
from chervil.drivers.redis.sending import MAX_SIZE, envelope, groups, one_group
from chervil.exceptions import BrokerUnavailable, OperationalError, PublishError
from chervil.wire.message import Message

logger = logging.getLogger("chervil.redis")
_PUBLISH = load("publish.lua")
_HANDOVER = load("handover.lua")
_RETIRE = load("retire.lua")
_REVOKE = load("revoke.lua")

#: Messages, and bytes of their bodies, that are stored by one call.
_AT_ONCE = 1000
_BYTES_AT_ONCE = 8 << 20


class RedisBroker:
    """See :class:`chervil.drivers.contracts.Broker`.

    Messages are kombu's envelopes in kombu's lists, so that workers and clients of
    Celery can be at the other end of a queue, or at the same one. As there, **smaller
    priorities are served first**.

    :param url: see :func:`chervil.drivers.redis.location.parse`.
    :param options: see :class:`chervil.drivers.redis.location.Location`.
    :raises ImproperlyConfigured: the URL or an option is wrong.
    """

    features = Features(atomic_results=True, max_size=MAX_SIZE, fanout=True)
    definition: Callable[[str], Queue] | None = None

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.location = parse(url, options or {})
        self.names = Names(self.location)
        self.pool = Pool(self.location, BrokerUnavailable)
        #: Where outcomes go that are settled with their messages; see :meth:`shares`.
        self.results = result_prefix(self.location)
        self.groups = group_prefix(self.location)
        #: Queues that this object has made known to the server.
        self._known: set[str] = set()
        #: The server's settings were looked at.
        self._warned = False

    # --- sending

    def declare(self, queues: Sequence[Queue]) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.declare`."""
        commands = self.names.bindings(queues)
        commands += self._introductions(queue.name for queue in queues)
        with self.pool.link() as link:
            for answer in link.pipeline(commands):
                if isinstance(answer, Exception):
                    raise Refused(str(answer))
        self._known.update(queue.name for queue in queues)

    def _introductions(self, queues: Iterable[str]) -> list[Sequence[bytes | str]]:
        key, check = self.names.own("queues"), self.names.check
        return [("HSETNX", key, check(name), "0") for name in queues]

    def publish(self, messages: Sequence[Message]) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.publish`."""
        if len(messages) == 1 and not messages[0].due and messages[0].queue in self._known:
            (message,) = messages
            key = self.names.list_of(message.queue, message.priority)
            self._push(key, envelope(message, clock.now()))
            return
        unknown = {message.queue for message in messages} - self._known
        if unknown:
            self.declare([Queue(name) for name in unknown])
        stored: set[int] = set()
        try:
            self._store(list(_parts(messages)), stored)
        except OperationalError as exc:
            if not stored:
                raise
            parts = enumerate(_parts(messages))
            failed = tuple(m.id for number, part in parts if number not in stored for m in part)
            raise PublishError(
                f"{len(failed)} of {len(messages)} messages were not stored: {exc}", failed
            ) from exc

    def _push(self, key: bytes, data: bytes) -> None:
        pool = self.pool
        link = pool.take()
        try:
            link.call("LPUSH", key, data)
        except Refused as exc:
            raise link.refused(exc) from None
        finally:
            pool.give(link)

    def _store(self, parts: Sequence[Sequence[Message]], stored: set[int]) -> None:
        """Store parts, the next one being made while the server has the one before.

        :param stored: takes the numbers of those that are known to be stored.
        """
        now = clock.now()
        with self.pool.link() as link:
            for number, part in enumerate(parts):
                group = one_group(part, self.names, now)
                packed = pack(("LPUSH", group[0], *group[1])) if group else b""
                if link.owed:
                    self._confirm(link, number - 1, stored)
                if group:
                    link.send(packed)
                else:
                    count, arguments = groups(part, self.names, now)
                    link.script(_PUBLISH, (), self.names.prefix, repr(now), count, *arguments)
                    stored.add(number)
            if link.owed:
                self._confirm(link, len(parts) - 1, stored)

    def _confirm(self, link: Link, number: int, stored: set[int]) -> None:
        answer = link.receive()
        if isinstance(answer, Exception):
            raise Refused(str(answer))
        stored.add(number)

    # --- consuming

    def consumer(self, queues: Sequence[Queue], node: str, lease: float = 10.0) -> RedisConsumer:
        """See :meth:`chervil.drivers.contracts.Broker.consumer`."""
        if not queues:
            raise ValueError("a consumer needs at least one queue")
        self.declare(queues)
        self._warn_of_eviction()
        return RedisConsumer(self, queues, node, lease)

    def _warn_of_eviction(self) -> None:
        """Say it where the server may delete messages to make room."""
        if self._warned:
            return
        self._warned = True
        with self.pool.link() as link:
            try:
                text = link.call("INFO", "memory").decode()
            except Refused:  # this user may not ask
                return
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and info.get("maxmemory", "0") != "0":
            logger.warning(
                "Redis at %s deletes keys when its memory is full (maxmemory-policy %s), which "
                "can be queues with all their messages: set it to noeviction",
                self.location.name,
                policy,
            )

    def recover(self, own: str) -> int:
        """Take back the claims of consumers that died, except of the one named ``own``."""
        with self.pool.link() as link:
            names = [name.decode() for name in link.call("HKEYS", self.names.own("consumers"))]
            others = [name for name in names if name != own]
            if not others:
                return 0
            leases = link.call("MGET", *[self.names.own(f"lease.{name}") for name in others])
            found = 0
            for name, lease in zip(others, leases, strict=True):
                if lease is None:
                    found += self._retire(link, name, 1)
            return found

    def dismiss(self, name: str, queues: Iterable[str]) -> None:
        """End the lease of a consumer of these queues and give back what it holds, uncounted.

        Where workers of Celery stay behind alone, they get the delayed messages too.
        """
        with self.pool.link() as link:
            self._retire(link, name, 0, *queues)
            for queue in queues:
                self._hand_over(link, queue)

    def _hand_over(self, link: Link, queue: str) -> None:
        staying = 0
        while True:
            answer = link.script(_HANDOVER, (), self.names.prefix, queue, staying, _AT_ONCE)
            if answer is None:
                return
            looked_at, stay = answer
            staying += stay
            if looked_at < _AT_ONCE:
                return

    def _retire(self, link: Link, name: str, died: int, *queues: str) -> int:
        now = repr(clock.now())
        return int(link.script(_RETIRE, (), self.names.prefix, name, now, died, *queues))

    # --- looking and tidying

    def depths(self, queues: Sequence[str] | None = None) -> Mapping[str, Depth]:
        """See :meth:`chervil.drivers.contracts.Broker.depths`.

        The age of the oldest message is that of its id, where the id tells its time (as
        ours do), or of the moment at which it came back to the queue; where neither is
        known, as with Celery's messages, it counts as 0.
        """
        if queues is not None and not queues:
            return {}
        with self.pool.link() as link:
            return looking.depths(link, self.names, queues, clock.now())

    def purge(self, queue: str) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.purge`."""
        with self.pool.link() as link:
            return looking.purge(link, self.names, queue)

    def revoke(self, ids: Iterable[str], expires: float) -> Collection[str]:
        """See :meth:`chervil.drivers.contracts.Broker.revoke`.

        What Celery's workers have not acknowledged counts as claimed. What they took off
        before it runs (their default) cannot be told from what nobody sent.
        """
        wanted: list[Argument] = list(ids)
        held: set[str] = set()
        with self.pool.link() as link:
            for start in range(0, len(wanted), _AT_ONCE):
                found = link.script(
                    _REVOKE,
                    (),
                    self.names.prefix,
                    repr(clock.now()),
                    repr(float(expires)),
                    *wanted[start : start + _AT_ONCE],
                )
                held.update(task_id.decode() for task_id in found)
        return held

    def revoked(self, limit: int = 1000) -> Sequence[str]:
        """See :meth:`chervil.drivers.contracts.Broker.revoked`."""
        since = f"({clock.now()!r}"
        with self.pool.link() as link:
            found = link.call(
                "ZREVRANGEBYSCORE", self.names.own("revoked"), "+inf", since, "LIMIT", 0, limit
            )
        return [task_id.decode("utf-8", "replace") for task_id in found]

    def fanout(self) -> RedisFanout:
        """See :meth:`chervil.drivers.contracts.Broker.fanout`."""
        return RedisFanout(self.pool, self.names)

    def dead(
        self, queue: str | None = None, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """See :meth:`chervil.drivers.contracts.Broker.dead`."""
        with self.pool.link() as link:
            return looking.dead(link, self.names, queue, limit, after)

    def replay(self, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.replay`."""
        with self.pool.link() as link:
            return looking.take(link, self.names, "replay", keys, clock.now())

    def drop(self, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.drop`."""
        with self.pool.link() as link:
            return looking.take(link, self.names, "drop", keys, clock.now())

    def shares(self, store: ResultStore) -> bool:
        """See :meth:`chervil.drivers.contracts.Broker.shares`."""
        if not isinstance(store, RedisResults) or store.location.place != self.location.place:
            return False
        self.results, self.groups = store.prefix, store.groups
        return True

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.close`."""
        self.pool.close()


def _parts(messages: Sequence[Message]) -> Iterable[Sequence[Message]]:
    """Parts of which each is stored by one call, so that others get a turn."""
    first = size = 0
    for place, message in enumerate(messages):
        size += len(message.body)
        if place - first == _AT_ONCE or (size > _BYTES_AT_ONCE and place > first):
            yield messages[first:place]
            first, size = place, len(message.body)
    if first < len(messages):
        yield messages[first:]
