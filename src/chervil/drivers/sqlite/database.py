"""Connections to a database file: lent out, retried, closed before a fork.

Rules:

* A connection is used by one thread at a time: it is taken out of the pool for
  one operation and given back. Between operations nothing is open in it.
* SQLite must not be carried across a fork, not even unused: its record of which
  locks the process holds would be wrong in the child, which could then damage
  the file (https://www.sqlite.org/howtocorrupt.html, section 2.6). So a fork
  waits for the running operations, closes all connections, and both sides open
  new ones when they need them.
* Waiting for another writer is done here, not by SQLite's busy handler: that
  sleeps for whole milliseconds where a transaction takes tens of microseconds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

from chervil.drivers.sqlite import schema
from chervil.drivers.sqlite.location import Location
from chervil.exceptions import ImproperlyConfigured, MessageTooLarge, OperationalError

T = TypeVar("T")

#: Seconds between attempts to get the write lock: the first pause and the longest.
_SHORTEST_PAUSE = 50e-6
_LONGEST_PAUSE = 0.002
#: Seconds that a fork waits for operations that other threads have begun.
_FORK_WAIT = 10.0
#: Seconds between looks whether the file is still the one that was opened.
_LOOK_SECONDS = 0.5
#: Bytes up to which a copy costs less than what it saves, see :func:`blob`.
_SMALL = 65536

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
#: After these the connection is not used again.
_BROKEN = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_MISUSE,
)
_TEXTS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the file or its directory cannot be written to",
    sqlite3.SQLITE_PERM: "no permission to open the file",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it, or move it away and start anew",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}


#: Pages in the write-ahead log after which a commit copies them into the file, which
#: takes milliseconds. Nodes do it beside their work, so a commit seldom has to.
_CHECKPOINT = 16_000


def blob(data: bytes) -> bytes | bytearray:
    """The same bytes in the type that sqlite3 binds fastest.

    For ``bytes`` it looks for an adapter first, in vain, which takes longer than
    to copy a message.
    """
    return bytearray(data) if len(data) < _SMALL else data


class Link:
    """One connection, and what is known of the file through it."""

    __slots__ = (
        "broken",
        "connection",
        "data_version",
        "execute",
        "executemany",
        "file",
        "queues",
    )

    def __init__(self, connection: sqlite3.Connection, file: tuple[int, int] | None) -> None:
        #: Device and number of the file.
        self.file = file
        self.connection = connection
        cursor = connection.cursor()
        self.execute = connection.execute
        self.executemany = cursor.executemany
        self.broken = False
        #: Names of queues to their numbers, which never change.
        self.queues: dict[str, int] = {}
        self.data_version = -1

    def changed(self) -> bool:
        """Whether another connection committed something since the last call."""
        (version,) = self.execute("PRAGMA data_version").fetchone()
        seen, self.data_version = self.data_version, version
        return bool(version != seen)

    def close(self) -> None:
        try:
            self.connection.close()
        except sqlite3.Error:  # nothing is open in it; the file is sound
            pass


class Database:
    """A pool of connections to one file.

    :param error: what to raise when the file cannot be used.
    """

    def __init__(self, location: Location, error: type[OperationalError]) -> None:
        self.location = location
        self._error = error
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._lent = 0
        self._file: tuple[int, int] | None = None
        self._look_at = 0.0
        _databases.add(self)

    # --- lending

    def take(self) -> Link:
        """A connection for one operation; :meth:`give` it back."""
        if self._idle and monotonic() >= self._look_at:
            self._look()
        while True:
            with self._lock:
                if not _forks.pending:
                    self._lent += 1
                    if self._idle:
                        return self._idle.pop()
                    break
            _forks.over.wait(_FORK_WAIT)
        try:
            if _forks.spoiled:
                raise self._error(
                    f"{self.location.path} cannot be used in this process: it was forked while "
                    "another thread was using a database; fork before, or start a new process"
                )
            return self._retry(self._open)
        except BaseException as exc:
            with self._lock:
                self._lent -= 1
            if isinstance(exc, sqlite3.Error):
                raise self.translate(exc) from exc
            raise

    def give(self, link: Link) -> None:
        """Give a connection back."""
        with self._lock:
            self._lent -= 1
            if not link.broken and link.file == self._file:
                self._idle.append(link)
                return
        link.close()

    def close(self) -> None:
        """Close the connections that nobody uses; others open when next needed."""
        with self._lock:
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def _look(self) -> None:
        """Leave a file that was deleted or replaced, into which nobody else looks now."""
        self._look_at = monotonic() + _LOOK_SECONDS
        if self._file is not None and _identity(self.location.path) != self._file:
            import logging  # costs 5 ms, and most clients never need it

            self._file = None
            logging.getLogger("chervil").error(
                "%s was deleted or replaced while it was in use; what was stored in it and not "
                "in the file that is there now is lost to this process",
                self.location.path,
            )
            self.close()

    def __del__(self) -> None:
        self.close()

    def _open(self) -> Link:
        path = self.location.path
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            raise ImproperlyConfigured(
                f"the directory {folder} of the database {path} does not exist; create it"
            )
        connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA cache_size = -{self.location.cache_size}")
            schema.check(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.location.synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
            connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
            # Some systems' SQLite overwrites what is deleted, for secrecy.
            connection.execute("PRAGMA secure_delete = OFF")
            schema.create(connection, path)
        except BaseException:
            connection.close()
            raise
        self._file = _identity(path)
        return Link(connection, self._file)

    # --- operations

    def read(self, work: Callable[[Link], T]) -> T:
        """Run something that only reads.

        :raises OperationalError: as given to the constructor.
        """
        link = self.take()
        try:
            try:
                return work(link)
            except sqlite3.OperationalError as exc:
                if not is_busy(exc):
                    raise
            return self._retry(work, link)
        except sqlite3.Error as exc:
            raise self.translate(exc, link) from exc
        finally:
            self.give(link)

    def write(self, work: Callable[[Link], T], before: Callable[[Link], object] | None = None) -> T:
        """Run something in a transaction that holds the write lock from its start.

        :param before: run first, outside of the transaction.
        :raises OperationalError: as given to the constructor; nothing was changed.
        """
        link = self.take()
        try:
            if before is not None:
                self._retry(before, link)
            try:
                link.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if not is_busy(exc):
                    raise
                self._retry(_begin, link)
            try:
                value = work(link)
                link.execute("COMMIT")
            except BaseException:
                _rollback(link)
                raise
            return value
        except sqlite3.Error as exc:
            raise self.translate(exc, link) from exc
        finally:
            self.give(link)

    def checkpoint(self) -> None:
        """Copy what is in the write-ahead log into the file, as far as that goes without
        holding anybody up. Errors are left to whoever uses the file."""
        link = self.take()
        try:
            link.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            pass
        finally:
            self.give(link)

    def _retry(self, work: Callable[..., T], *args: Link) -> T:
        """Try until it is not busy, in short pauses, up to the deadline."""
        deadline = monotonic() + self.location.busy_timeout
        pause = _SHORTEST_PAUSE
        while True:
            try:
                return work(*args)
            except sqlite3.OperationalError as exc:
                if not is_busy(exc) or monotonic() >= deadline:
                    raise
            sleep(pause * (0.5 + monotonic() * 1e7 % 1.0))  # nobody keeps in step
            pause = min(pause * 1.25, _LONGEST_PAUSE)

    def translate(self, exc: sqlite3.Error, link: Link | None = None) -> Exception:
        """Our error for one of SQLite's; a connection that may be damaged is dropped."""
        path = self.location.path
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if link is not None and (code in _BROKEN or isinstance(exc, sqlite3.ProgrammingError)):
            link.broken = True
        if code in _BUSY:
            return self._error(
                f"{path} was locked by other writers for longer than the busy_timeout of "
                f"{self.location.busy_timeout:g} s"
            )
        if code == sqlite3.SQLITE_TOOBIG or isinstance(exc, sqlite3.DataError):
            return MessageTooLarge(f"too large for {path}: SQLite stores up to 1,000,000,000 bytes")
        text = _TEXTS.get(code)
        return self._error(f"{path}: {text} ({exc})" if text else f"{path}: {exc}")


def _identity(path: str) -> tuple[int, int] | None:
    """Device and number of a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_busy(exc: sqlite3.Error) -> bool:
    """Whether another connection holds the lock, so that it may work in a moment."""
    return (getattr(exc, "sqlite_errorcode", 0) & 0xFF) in _BUSY


def _begin(link: Link) -> None:
    link.execute("BEGIN IMMEDIATE")


def _rollback(link: Link) -> None:
    try:
        if link.connection.in_transaction:
            link.execute("ROLLBACK")
    except sqlite3.Error:
        link.broken = True  # closing it rolls back


# --- forks ------------------------------------------------------------------------

_databases: weakref.WeakSet[Database] = weakref.WeakSet()


class _Forks:
    """What threads need to know of a fork that another thread makes."""

    def __init__(self) -> None:
        #: No operation may begin.
        self.pending = False
        self.over = threading.Event()
        self.locks: list[threading.Lock] = []
        self._one_at_a_time = threading.Lock()
        #: This process inherited a connection that was in use.
        self.spoiled = False

    def before(self) -> None:
        self._one_at_a_time.acquire()
        self.over.clear()
        self.pending = True
        deadline = monotonic() + _FORK_WAIT
        for database in list(_databases):
            lock = database._lock
            lock.acquire()
            while database._lent and monotonic() < deadline:
                lock.release()
                sleep(_SHORTEST_PAUSE)
                lock.acquire()
            self.locks.append(lock)
            for link in database._idle:
                link.close()
            database._idle.clear()

    def after_in_parent(self) -> None:
        self.pending = False
        while self.locks:
            self.locks.pop().release()
        self.over.set()
        self._one_at_a_time.release()

    def after_in_child(self) -> None:
        self.over = threading.Event()  # a thread may have been inside the old one
        for database in list(_databases):
            if database._lent:
                database._lent = 0
                self.spoiled = True
        self.after_in_parent()


_forks = _Forks()
os.register_at_fork(
    before=_forks.before,
    after_in_parent=_forks.after_in_parent,
    after_in_child=_forks.after_in_child,
)
