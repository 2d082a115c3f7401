"""Queues in an SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from chervil import clock
from chervil.drivers.contracts import DeadLetter, Depth, Features, Queue, ResultStore
from chervil.drivers.sqlite import dead_letters, fanout, messages, outcomes, revoked
from chervil.drivers.sqlite.consumer import SqliteConsumer
from chervil.drivers.sqlite.database import Database, Link
from chervil.drivers.sqlite.location import parse
from chervil.drivers.sqlite.results import SqliteResults
from chervil.drivers.sqlite.wake import Bell, Places
from chervil.exceptions import BrokerUnavailable
from chervil.wire.message import Message

#: Messages that are deleted in one transaction, so that others get a turn.
_PURGE = 2000
#: Seconds between looks for files that belong to nobody.
_SWEEP = 60.0


class SqliteBroker:
    """See :class:`chervil.drivers.contracts.Broker`.

    :param url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.
    :param options: ``synchronous``, ``busy_timeout``, ``cache_size``; see
        :class:`chervil.drivers.sqlite.location.Location`.
    :raises ImproperlyConfigured: the URL or an option is wrong.
    """

    features = Features(atomic_results=True, max_size=messages.MAX_SIZE, fanout=True)
    definition: Callable[[str], Queue] | None = None

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.location = parse(url, options or {})
        self.places = Places(self.location.path)
        self.database = Database(self.location, BrokerUnavailable)
        self._bell = Bell(self.places)
        self._swept = 0.0

    # --- sending

    def declare(self, queues: Sequence[Queue]) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.declare`."""
        names = [queue.name for queue in queues]
        self.database.read(lambda link: messages.number_queues(link, names))

    def publish(self, messages_: Sequence[Message]) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.publish`."""
        if len(messages_) != 1 or not messages.is_usual(messages_[0]):
            self._publish_any(messages_)
            return
        try:
            wanting = self.database.write(partial(messages.insert_one, messages_[0]))
        except KeyError:  # the first message of this connection to that queue
            self._publish_any(messages_)
            return
        if wanting:
            self.knock([name for (name,) in wanting])

    def _publish_any(self, messages_: Sequence[Message]) -> None:
        if not messages_:
            return
        packed = [messages.pack(message) for message in messages_]
        names = self.database.write(
            lambda link: self._insert(link, packed),
            lambda link: messages.number_queues(link, {row.queue for row in packed}),
        )
        if names:
            self.knock(names)

    def _insert(self, link: Link, packed: Sequence[messages.Packed]) -> set[str]:
        return self.names_at(link, messages.insert(link, packed, clock.now()))

    # --- consuming

    def consumer(self, queues: Sequence[Queue], node: str, lease: float = 10.0) -> SqliteConsumer:
        """See :meth:`chervil.drivers.contracts.Broker.consumer`."""
        if not queues:
            raise ValueError("a consumer needs at least one queue")
        return SqliteConsumer(self, queues, node, lease)

    def names_at(self, link: Link, queues: Iterable[int]) -> set[str]:
        """The sockets of those who consume from these queues; inside a transaction."""
        found: set[str] = set()
        for queue in queues:
            rows = link.execute(messages.WANTING, (queue,)).fetchall()
            found.update(name for (name,) in rows)
        return found

    def knock(self, names: Iterable[str], news: Sequence[tuple[list[str], bytes]] = ()) -> None:
        """Wake consumers, and tell listeners; forget those that are gone."""
        gone = self._bell.ring(names)
        for listeners, datagram in news:
            gone += self._bell.ring(listeners, datagram)
        if gone:
            outcomes.forget_listeners(self.database, self.places, gone)

    def recover(self, own: int) -> int:
        """Take back the claims of consumers that died, except of the one numbered ``own``."""
        now = clock.monotonic()
        rows = self.database.read(
            lambda link: link.execute("SELECT id, name, lease_until FROM consumers").fetchall()
        )
        found = 0
        for number, name, until in rows:
            if number != own and (until < now or self.places.is_dead(name)):
                found += self.dismiss(number, name, unless_renewed_since=until)
        self._clean({name for _, name, _ in rows})
        return found

    def dismiss(self, number: int, name: str, unless_renewed_since: float | None = None) -> int:
        """End a consumer's lease and give back what it holds; how many messages.

        With ``unless_renewed_since``, it is for another one, which died: its
        deliveries count, and nothing happens if the lease is not that any more.
        """
        uncounted = 1 if unless_renewed_since is None else 0

        def work(link: Link) -> tuple[int, set[str]]:
            row = link.execute("SELECT lease_until FROM consumers WHERE id = ?", (number,))
            lease = row.fetchone()
            if lease is None or unless_renewed_since not in (None, lease[0]):
                return 0, set()
            by_queue = messages.give_back(link, number, clock.now(), uncounted)
            link.execute("DELETE FROM consumers WHERE id = ?", (number,))
            link.execute("DELETE FROM wants WHERE name = ?", (name,))
            return sum(by_queue.values()), self.names_at(link, by_queue)

        found, names = self.database.write(work)
        if unless_renewed_since is not None and self.places.is_dead(name):
            self.places.remove(name)
        self.knock(names)
        return found

    def _clean(self, known: set[str]) -> None:
        now = clock.monotonic()
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        self.database.write(lambda link: revoked.expire(link, clock.now()))
        rows = self.database.read(
            lambda link: link.execute("SELECT name FROM listeners").fetchall()
        )
        mailboxes = fanout.sweep(self.database, self.places)
        self.places.sweep(known | mailboxes | {name for (name,) in rows})

    # --- looking and tidying

    def depths(self, queues: Sequence[str] | None = None) -> Mapping[str, Depth]:
        """See :meth:`chervil.drivers.contracts.Broker.depths`."""
        now = clock.now()
        found = self.database.read(lambda link: messages.depths(link, queues, now))
        if queues is None:
            return found
        return {name: found.get(name, Depth()) for name in queues}

    def purge(self, queue: str) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.purge`."""
        total = 0
        while True:
            found = self.database.write(lambda link: messages.purge(link, queue, _PURGE))
            total += found
            if found < _PURGE:
                return total

    def revoke(self, ids: Iterable[str], expires: float) -> Collection[str]:
        """See :meth:`chervil.drivers.contracts.Broker.revoke`."""
        wanted = list(ids)

        def work(link: Link) -> set[str]:
            revoked.expire(link, clock.now())
            revoked.add(link, wanted, expires)
            return revoked.held(link, wanted)

        return self.database.write(work)

    def revoked(self, limit: int = 1000) -> Sequence[str]:
        """See :meth:`chervil.drivers.contracts.Broker.revoked`."""
        return self.database.read(lambda link: revoked.known(link, clock.now(), limit))

    def fanout(self) -> fanout.SqliteFanout:
        """See :meth:`chervil.drivers.contracts.Broker.fanout`."""
        return fanout.SqliteFanout(self.database, self.places, self._bell)

    def dead(
        self, queue: str | None = None, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """See :meth:`chervil.drivers.contracts.Broker.dead`."""
        return self.database.read(lambda link: dead_letters.find(link, queue, limit, after))

    def replay(self, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.replay`."""

        def work(link: Link) -> tuple[int, set[str]]:
            found, queues = dead_letters.replay(link, keys, clock.now())
            return found, self.names_at(link, queues)

        found, names = self.database.write(work)
        self.knock(names)
        return found

    def drop(self, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.contracts.Broker.drop`."""
        return self.database.write(lambda link: dead_letters.drop(link, keys))

    def shares(self, store: ResultStore) -> bool:
        """See :meth:`chervil.drivers.contracts.Broker.shares`."""
        return isinstance(store, SqliteResults) and store.location.path == self.location.path

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Broker.close`."""
        self.database.close()
        self._bell.close()
