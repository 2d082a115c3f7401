"""Notes in an SQLite file: a row for each mailbox that they are for, and a knock.

A mailbox holds a lock for as long as its process lives (see ``wake``), so whoever
comes by can remove what a dead one left.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from chervil.drivers.sqlite.database import Database, Link
from chervil.drivers.sqlite.wake import Bell, Ear, Places
from chervil.exceptions import DecodeError, OperationalError
from chervil.wire.notes import Note, decode_note, encode_note

#: Notes that wait in a mailbox; older ones are lost.
ROOM = 1000


class SqliteMailbox:
    """See :class:`chervil.drivers.contracts.Mailbox`."""

    def __init__(
        self, database: Database, places: Places, exchange: str, key: str, answers: bool
    ) -> None:
        self._database = database
        self._places = places
        self._closed = False
        self._pid = os.getpid()
        database.read(Link.changed)  # the file must exist before its sockets do
        self._ear = Ear(places, "m", locked=True)
        row = (self._ear.name, exchange, key, answers)
        try:
            database.write(
                lambda link: link.execute(
                    "INSERT INTO mailboxes (name, exchange, key, answers) VALUES (?, ?, ?, ?)", row
                )
            )
        except BaseException:
            self._ear.close()
            raise

    def fileno(self) -> int:
        """See :meth:`chervil.drivers.contracts.Mailbox.fileno`."""
        return self._ear.fileno()

    def receive(self) -> Sequence[Note]:
        """See :meth:`chervil.drivers.contracts.Mailbox.receive`."""
        if not self._ear.drain():
            return ()
        return list(_notes(self._database.write(self._take)))

    def _take(self, link: Link) -> list[bytes]:
        rows = link.execute(
            "DELETE FROM notes WHERE mailbox = ? RETURNING id, note", (self._ear.name,)
        ).fetchall()
        return [note for _, note in sorted(rows)]

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Mailbox.close`."""
        if self._closed:
            return
        self._closed = True
        if self._pid == os.getpid():
            try:
                forget(self._database, self._places, [self._ear.name])
            except OperationalError:
                pass  # others find it dead and remove what it left
            self._ear.close()


class SqliteFanout:
    """See :class:`chervil.drivers.contracts.Fanout`."""

    def __init__(self, database: Database, places: Places, bell: Bell) -> None:
        self._database = database
        self._places = places
        self._bell = bell

    def subscribe(self, exchange: str, name: str, key: str = "") -> SqliteMailbox:
        """See :meth:`chervil.drivers.contracts.Fanout.subscribe`."""
        return SqliteMailbox(self._database, self._places, exchange, key, answers=False)

    def answers(self, exchange: str, key: str) -> SqliteMailbox:
        """See :meth:`chervil.drivers.contracts.Fanout.answers`."""
        return SqliteMailbox(self._database, self._places, exchange, key, answers=True)

    def broadcast(self, exchange: str, note: Note, key: str = "") -> int:
        """See :meth:`chervil.drivers.contracts.Fanout.broadcast`."""
        return self._put(exchange, key, encode_note(note, exchange, key, 2), answers=False)

    def reply(self, exchange: str, key: str, note: Note) -> None:
        """See :meth:`chervil.drivers.contracts.Fanout.reply`."""
        self._put(exchange, key, encode_note(note, exchange, key, 1), answers=True)

    def _put(self, exchange: str, key: str, data: bytes, answers: bool) -> int:
        def work(link: Link) -> list[str]:
            rows = link.execute(
                "SELECT name, key FROM mailboxes WHERE exchange = ? AND answers = ?",
                (exchange, answers),
            ).fetchall()
            names = [name for name, pattern in rows if matches(pattern, key)]
            for name in names:
                link.execute("INSERT INTO notes (mailbox, note) VALUES (?, ?)", (name, data))
                _keep_room(link, name)
            return names

        names = self._database.write(work)
        gone = self._bell.ring(names)
        if gone:
            forget(self._database, self._places, gone)
        return len(names) - len(gone)


def _keep_room(link: Link, name: str) -> None:
    (count,) = link.execute("SELECT count(*) FROM notes WHERE mailbox = ?", (name,)).fetchone()
    if count > ROOM:
        link.execute(
            "DELETE FROM notes WHERE id IN "
            "(SELECT id FROM notes WHERE mailbox = ? ORDER BY id LIMIT ?)",
            (name, count - ROOM),
        )


def _notes(found: Iterable[bytes]) -> Iterable[Note]:
    for data in found:
        try:
            yield decode_note(data)
        except DecodeError:
            continue


def forget(database: Database, places: Places, names: Sequence[str]) -> None:
    """Remove mailboxes and what is in them."""

    def work(link: Link) -> None:
        for name in names:
            link.execute("DELETE FROM mailboxes WHERE name = ?", (name,))
            link.execute("DELETE FROM notes WHERE mailbox = ?", (name,))

    database.write(work)
    for name in names:
        if places.is_dead(name):
            places.remove(name)


def sweep(database: Database, places: Places) -> set[str]:
    """Remove what dead processes left; the names of the mailboxes of living ones."""
    rows = database.read(lambda link: link.execute("SELECT name FROM mailboxes").fetchall())
    names = {name for (name,) in rows}
    dead = sorted(name for name in names if places.is_dead(name))
    if dead:
        forget(database, places, dead)
    return names.difference(dead)


def matches(pattern: str, key: str) -> bool:
    """Whether a topic pattern matches: ``*`` is one word, ``#`` any number of them."""
    if "#" not in pattern and "*" not in pattern:
        return pattern == key
    text = re.escape(pattern).replace(r"\#", ".*").replace(r"\*", r"[^.]*")
    return re.fullmatch(text, key) is not None
