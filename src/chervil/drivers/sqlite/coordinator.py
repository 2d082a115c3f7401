"""Leases and records in an SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from chervil import clock
from chervil.drivers.contracts import Broker
from chervil.drivers.coordination import ANY, Firing, Grant, Record
from chervil.drivers.sqlite import messages
from chervil.drivers.sqlite.broker import SqliteBroker
from chervil.drivers.sqlite.database import Database, Link
from chervil.drivers.sqlite.wake import Ear, Places
from chervil.exceptions import LeaseLost, OperationalError
from chervil.wire.message import Message

T = TypeVar("T")

#: Made when they are first needed: programs without periodic tasks do without.
_TABLES: Final = (
    # until is on the clock that starts with the machine; seconds tells what it cannot be.
    """CREATE TABLE IF NOT EXISTS coordinator_leases (
        name TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        token INTEGER NOT NULL,
        until REAL NOT NULL,
        seconds REAL NOT NULL
    ) WITHOUT ROWID""",
    # versions: the last one given; changes: the last one given by put or delete.
    """CREATE TABLE IF NOT EXISTS coordinator_tables (
        name TEXT PRIMARY KEY,
        versions INTEGER NOT NULL DEFAULT 0,
        changes INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS coordinator_records (
        id INTEGER PRIMARY KEY,
        tbl TEXT NOT NULL,
        key TEXT NOT NULL,
        version INTEGER NOT NULL,
        data BLOB NOT NULL,
        UNIQUE (tbl, key)
    )""",
    """CREATE TABLE IF NOT EXISTS coordinator_pending (
        id INTEGER PRIMARY KEY,
        tbl TEXT NOT NULL,
        task_id TEXT NOT NULL,
        message BLOB NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS coordinator_pending_ids ON coordinator_pending (tbl, task_id)",
    # Sockets to knock at when a table was changed.
    """CREATE TABLE IF NOT EXISTS coordinator_watches (
        tbl TEXT NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (tbl, name)
    ) WITHOUT ROWID""",
)
#: Seconds between looks for changes that nobody told of.
_LOOK: Final = 5.0


class SqliteCoordinator:
    """See :class:`chervil.drivers.coordination.Coordinator`.

    :param url: as for :class:`chervil.drivers.sqlite.broker.SqliteBroker`; in the same
        file as the broker, messages are stored in the transaction that fires them.
    :param options: the same.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._broker = SqliteBroker(url, options)
        self._database: Database = self._broker.database
        self._made = False

    def _write(
        self, work: Callable[[Link], T], before: Callable[[Link], object] | None = None
    ) -> T:
        self._make()
        return self._database.write(work, before)

    def _read(self, work: Callable[[Link], T]) -> T:
        self._make()
        return self._database.read(work)

    def _make(self) -> None:
        if not self._made:
            self._database.write(lambda link: [link.execute(text) for text in _TABLES])
            self._made = True

    # --- leases

    def acquire(self, name: str, owner: str, seconds: float) -> Grant:
        """See :meth:`chervil.drivers.coordination.Coordinator.acquire`."""

        def work(link: Link) -> Grant:
            row, now = _lease(link, name), clock.monotonic()
            if row is not None and row[0] != owner and row[2] > 0:
                return Grant(*row)
            token = 1 if row is None else row[1] + (row[0] != owner)
            link.execute(
                "INSERT OR REPLACE INTO coordinator_leases VALUES (?, ?, ?, ?, ?)",
                (name, owner, token, now + seconds, seconds),
            )
            return Grant(owner, token, seconds)

        return self._write(work)

    def release(self, name: str, token: int) -> None:
        """See :meth:`chervil.drivers.coordination.Coordinator.release`."""
        # The row stays: its token must not come again.
        self._write(
            lambda link: link.execute(
                "UPDATE coordinator_leases SET owner = '', until = 0 WHERE name = ? AND token = ?",
                (name, token),
            )
        )

    def holder(self, name: str) -> Grant | None:
        """See :meth:`chervil.drivers.coordination.Coordinator.holder`."""
        row = self._read(lambda link: _lease(link, name))
        return Grant(*row) if row is not None and row[2] > 0 else None

    # --- records

    def put(self, table: str, records: Sequence[Record]) -> Sequence[int]:
        """See :meth:`chervil.drivers.coordination.Coordinator.put`."""
        if not records:
            return ()

        def work(link: Link) -> tuple[list[int], list[str]]:
            version = _reserve(link, table, len(records))
            found = [
                number if _store(link, table, record, number) else 0
                for number, record in enumerate(records, version)
            ]
            return found, _changed(link, table) if any(found) else []

        found, names = self._write(work)
        self._broker.knock(names)
        return found

    def get(self, table: str, keys: Sequence[str] | None = None) -> Sequence[Record]:
        """See :meth:`chervil.drivers.coordination.Coordinator.get`."""
        query = "SELECT key, data, version FROM coordinator_records WHERE tbl = ?"
        values = [table]
        if keys is not None:
            query += " AND key IN (SELECT value FROM json_each(?))"
            values.append(msgspec.json.encode(list(keys)).decode())
        rows = self._read(lambda link: link.execute(query, values).fetchall())
        return [Record(*row) for row in rows]

    def delete(self, table: str, keys: Sequence[str]) -> int:
        """See :meth:`chervil.drivers.coordination.Coordinator.delete`."""

        def work(link: Link) -> tuple[int, list[str]]:
            found: int = link.executemany(
                "DELETE FROM coordinator_records WHERE tbl = ? AND key = ?",
                [(table, key) for key in dict.fromkeys(keys)],
            ).rowcount
            if found <= 0:
                return 0, []
            _reserve(link, table, 1)
            return found, _changed(link, table)

        found, names = self._write(work)
        self._broker.knock(names)
        return found

    def changes(self, table: str) -> int:
        """See :meth:`chervil.drivers.coordination.Coordinator.changes`."""
        query = "SELECT changes FROM coordinator_tables WHERE name = ?"
        row = self._read(lambda link: link.execute(query, (table,)).fetchone())
        return row[0] if row else 0

    def watch(self, table: str) -> SqliteWatch:
        """See :meth:`chervil.drivers.coordination.Coordinator.watch`."""
        return SqliteWatch(self, self._broker.places, table)

    def listen(self, table: str, name: str, on: bool) -> None:
        """Knock at that socket, or no longer, when the table was changed."""
        query = (
            "INSERT OR IGNORE INTO coordinator_watches VALUES (?, ?)"
            if on
            else "DELETE FROM coordinator_watches WHERE tbl = ? AND name = ?"
        )

        def work(link: Link) -> list[str]:
            link.execute(query, (table, name))
            rows = link.execute("SELECT name FROM coordinator_watches").fetchall()
            gone = [row for row in rows if row[0] != name and places.is_dead(row[0])]
            link.executemany("DELETE FROM coordinator_watches WHERE name = ?", gone)
            return [row[0] for row in gone]

        places = self._broker.places
        for gone in self._write(work):
            places.remove(gone)

    # --- what only the holder of a lease may do

    def fire(self, table: str, lease: str, token: int, firings: Sequence[Firing]) -> Sequence[int]:
        """See :meth:`chervil.drivers.coordination.Coordinator.fire`."""
        packed = [[messages.pack(message) for message in firing.publish] for firing in firings]
        queues = {row.queue for rows in packed for row in rows}

        def work(link: Link) -> tuple[list[int], set[str]]:
            row = _lease(link, lease)
            if row is None or row[1] != token or not row[0]:
                raise LeaseLost(f"the lease {lease!r} belongs to somebody else by now")
            version = _reserve(link, table, len(firings))
            found: list[int] = []
            chosen: list[messages.Packed] = []
            for number, (firing, rows) in enumerate(zip(firings, packed, strict=True), version):
                stored = _store(link, table, firing.record, number)
                found.append(number if stored else 0)
                if stored:
                    chosen += rows
                    _keep(link, table, firing.pending)
            told = messages.insert(link, chosen, clock.now()) if chosen else set()
            return found, self._broker.names_at(link, told)

        found, names = self._write(work, lambda link: messages.number_queues(link, queues))
        self._broker.knock(names)
        return found

    def pending(self, table: str, limit: int = 1000) -> Sequence[Message]:
        """See :meth:`chervil.drivers.coordination.Coordinator.pending`."""
        query = "SELECT message FROM coordinator_pending WHERE tbl = ? ORDER BY id LIMIT ?"
        rows = self._read(lambda link: link.execute(query, (table, limit)).fetchall())
        return [msgspec.msgpack.decode(data, type=Message) for (data,) in rows]

    def sent(self, table: str, ids: Sequence[str]) -> None:
        """See :meth:`chervil.drivers.coordination.Coordinator.sent`."""
        query = "DELETE FROM coordinator_pending WHERE tbl = ? AND task_id = ?"
        self._write(lambda link: link.executemany(query, [(table, task_id) for task_id in ids]))

    def shares(self, broker: Broker) -> bool:
        """See :meth:`chervil.drivers.coordination.Coordinator.shares`."""
        return (
            isinstance(broker, SqliteBroker) and broker.location.path == self._broker.location.path
        )

    def close(self) -> None:
        """See :meth:`chervil.drivers.coordination.Coordinator.close`."""
        self._broker.close()
        self._made = False


class SqliteWatch:
    """See :class:`chervil.drivers.coordination.Watch`."""

    def __init__(self, coordinator: SqliteCoordinator, places: Places, table: str) -> None:
        self._coordinator = coordinator
        self._table = table
        self._ear = Ear(places, "c", locked=True)
        coordinator.listen(table, self._ear.name, True)
        self._seen = coordinator.changes(table)
        self._look = clock.monotonic() + _LOOK
        self._close: Callable[[], object] | None = partial(
            coordinator.listen, table, self._ear.name, False
        )

    def wait(self, timeout: float) -> bool:
        """See :meth:`chervil.drivers.coordination.Watch.wait`."""
        told = bool(self._ear.wait(timeout))
        now = clock.monotonic()
        if not told and now < self._look:
            return False
        self._look = now + _LOOK
        seen, self._seen = self._seen, self._coordinator.changes(self._table)
        return seen != self._seen

    def wake(self) -> None:
        """See :meth:`chervil.drivers.coordination.Watch.wake`."""
        self._ear.wake()

    def close(self) -> None:
        """See :meth:`chervil.drivers.coordination.Watch.close`."""
        work, self._close = self._close, None
        self._ear.close()
        if work is not None:
            try:
                work()
            except OperationalError:
                pass  # the next one who watches sees that nobody lives here


def _lease(link: Link, name: str) -> tuple[str, int, float] | None:
    """Owner, token, and seconds left."""
    row = link.execute(
        "SELECT owner, token, until, seconds FROM coordinator_leases WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        return None
    owner, token, until, seconds = row
    remaining = until - clock.monotonic()
    # More than was given: it is from before the machine was started.
    return owner, token, remaining if remaining <= seconds else 0.0


def _reserve(link: Link, table: str, count: int) -> int:
    """The first of so many versions."""
    link.execute(
        "INSERT INTO coordinator_tables (name, versions) VALUES (?, ?) ON CONFLICT (name) "
        "DO UPDATE SET versions = versions + excluded.versions",
        (table, count),
    )
    query = "SELECT versions FROM coordinator_tables WHERE name = ?"
    return int(link.execute(query, (table,)).fetchone()[0]) - count + 1


def _store(link: Link, table: str, record: Record, version: int) -> bool:
    key, data, wanted = record.key, bytearray(record.data), record.version
    if wanted > 0:
        done = link.execute(
            "UPDATE coordinator_records SET version = ?, data = ? "
            "WHERE tbl = ? AND key = ? AND version = ?",
            (version, data, table, key, wanted),
        )
        return done.rowcount > 0
    clash = "UPDATE SET version = excluded.version, data = excluded.data"
    done = link.execute(
        "INSERT INTO coordinator_records (tbl, key, version, data) VALUES (?, ?, ?, ?) "
        f"ON CONFLICT (tbl, key) DO {clash if wanted == ANY else 'NOTHING'}",
        (table, key, version, data),
    )
    return done.rowcount > 0


def _changed(link: Link, table: str) -> list[str]:
    """Count a change; the sockets of those who watch."""
    link.execute("UPDATE coordinator_tables SET changes = versions WHERE name = ?", (table,))
    rows = link.execute("SELECT name FROM coordinator_watches WHERE tbl = ?", (table,)).fetchall()
    return [name for (name,) in rows]


def _keep(link: Link, table: str, pending: Iterable[Message]) -> None:
    link.executemany(
        "INSERT INTO coordinator_pending (tbl, task_id, message) VALUES (?, ?, ?)",
        [(table, message.id, msgspec.msgpack.encode(message)) for message in pending],
    )
