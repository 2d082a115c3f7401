"""Notes over a Redis server, as kombu lays them out.

What is told to all is published on a channel. An answer is pushed on the list that the
exchange's table of bindings names for its key; who waits for answers makes that entry and
removes it. (Source: celery/kombu ``kombu/transport/redis.py``.)
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from chervil.drivers.redis.link import _MORE, Argument, Link, Pool, Refused, pack
from chervil.drivers.redis.names import Names
from chervil.exceptions import BrokerUnavailable, DecodeError, OperationalError
from chervil.wire.notes import Note, decode_note, encode_note

_READ = 65536
#: Seconds after which answers to somebody who died are deleted, and his entry in the table
#: if nobody else uses it.
_LEFT_SECONDS = 60
_TABLE_SECONDS = 3600


class RedisMailbox:
    """See :class:`chervil.drivers.contracts.Mailbox`; a connection of its own."""

    def __init__(self, pool: Pool) -> None:
        self._link = Link(pool.location, BrokerUnavailable)

    def _begin(self, *commands: Sequence[Argument]) -> None:
        """Send these; from then on what the server tells is notes."""
        try:
            for answer in self._link.pipeline(commands):
                if isinstance(answer, Exception):
                    raise self._link.refused(answer)
        except BaseException:
            self._link.close()
            raise
        self._link.socket.setblocking(False)

    def fileno(self) -> int:
        """See :meth:`chervil.drivers.contracts.Mailbox.fileno`."""
        return self._link.socket.fileno()

    def receive(self) -> Sequence[Note]:
        """See :meth:`chervil.drivers.contracts.Mailbox.receive`."""
        found = []
        for answer in self._arrived():
            if isinstance(answer, Exception):
                raise self._link.refused(answer)
            data = self._data(answer)
            if data is not None:
                try:
                    found.append(decode_note(data))
                except DecodeError:
                    continue
        return found

    def _arrived(self) -> list[Any]:
        link = self._link
        answers: list[Any] = []
        # A note may have come together with the answer to what was sent first.
        while (answer := link.reader.gets()) is not _MORE:
            answers.append(answer)
        while link.open:
            try:
                data = link.socket.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError):
                return answers
            except OSError as exc:
                raise link.lost(exc) from exc
            if not data:
                raise link.lost(None)
            link.reader.feed(data)
            while (answer := link.reader.gets()) is not _MORE:
                answers.append(answer)
        raise link.lost(None)

    def _data(self, answer: Any) -> bytes | None:
        """The envelope in what the server told."""
        if isinstance(answer, list) and answer and answer[0] in (b"message", b"pmessage"):
            return bytes(answer[-1])
        return None

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Mailbox.close`."""
        self._link.close()


class Subscription(RedisMailbox):
    """What is told to all on a channel."""

    def __init__(self, pool: Pool, names: Names, exchange: str, key: str) -> None:
        super().__init__(pool)
        pattern = "#" in key or "*" in key
        channel = names.channel(exchange, key.replace("#", "*"))
        self._begin(("PSUBSCRIBE" if pattern else "SUBSCRIBE", channel))


class Answers(RedisMailbox):
    """What is pushed on a list of our own."""

    def __init__(self, pool: Pool, names: Names, exchange: str, key: str) -> None:
        super().__init__(pool)
        self._pool = pool
        queue = f"{key}.{exchange}"
        self._list = names.key(queue)
        self._table = names.key(f"_kombu.binding.{exchange}")
        self._entry = names.binding(key, queue)
        self._begin(("SADD", self._table, self._entry), ("EXPIRE", self._table, _TABLE_SECONDS))
        self._pop()

    def _pop(self) -> None:
        self._link.send(pack(("BRPOP", self._list, 0)), 0)

    def _data(self, answer: Any) -> bytes | None:
        self._pop()
        return bytes(answer[1]) if isinstance(answer, list) and len(answer) == 2 else None

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Mailbox.close`."""
        if not self._link.open:
            return
        super().close()
        try:
            with self._pool.link() as link:
                link.pipeline(
                    [
                        ("SREM", self._table, self._entry),
                        ("PERSIST", self._table),
                        ("DEL", self._list),
                    ]
                )
        except OperationalError:
            pass  # both expire


class RedisFanout:
    """See :class:`chervil.drivers.contracts.Fanout`."""

    def __init__(self, pool: Pool, names: Names) -> None:
        self._pool = pool
        self._names = names

    def subscribe(self, exchange: str, name: str, key: str = "") -> RedisMailbox:
        """See :meth:`chervil.drivers.contracts.Fanout.subscribe`."""
        return Subscription(self._pool, self._names, exchange, key)

    def answers(self, exchange: str, key: str) -> RedisMailbox:
        """See :meth:`chervil.drivers.contracts.Fanout.answers`."""
        return Answers(self._pool, self._names, exchange, key)

    def broadcast(self, exchange: str, note: Note, key: str = "") -> int:
        """See :meth:`chervil.drivers.contracts.Fanout.broadcast`."""
        data = encode_note(note, exchange, key, 1 if key else 2)
        with self._pool.link() as link:
            return int(link.call("PUBLISH", self._names.channel(exchange, key), data))

    def reply(self, exchange: str, key: str, note: Note) -> None:
        """See :meth:`chervil.drivers.contracts.Fanout.reply`."""
        names = self._names
        data = encode_note(note, exchange, key, 1)
        with self._pool.link() as link:
            members = link.call("SMEMBERS", names.key(f"_kombu.binding.{exchange}"))
            queues = [queue for m in members if (queue := names.bound_to(m, key)) is not None]
            commands: list[Sequence[Argument]] = []
            for queue in queues:
                commands.append(("LPUSH", names.key(queue), data))
                commands.append(("EXPIRE", names.key(queue), _LEFT_SECONDS))
            for answer in link.pipeline(commands):
                if isinstance(answer, Exception):
                    raise Refused(str(answer))
