"""Waking the processes that wait for something in a database file.

Everybody who waits has a datagram socket of his own in a directory beside the
file, and its name in a table; who commits sends a datagram to the ones that want
to know. Nobody polls. A lost datagram costs time and no more: what it tells of
is in the file.

A consumer besides holds an exclusive lock on a file of its name for as long as it
lives. The kernel frees it when the process dies, whatever it dies of.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
import weakref
from collections.abc import Collection, Iterable
from typing import Final

from chervil.exceptions import ImproperlyConfigured

#: Bytes in ``sun_path`` without the final NUL (unix(7); macOS has four less).
_LONGEST_PATH: Final = 103
_LONGEST_NAME: Final = 24
#: Seconds after which a file that belongs to nobody is removed.
_ORPHAN_AGE: Final = 60.0
_LARGEST_DATAGRAM: Final = 131072
#: The datagram that says no more than: look.
WAKE: Final = b"!"


class Places:
    """The directories that belong to a database.

    Locks are always beside the file: everybody who can open it finds them there.
    Sockets are there too unless that makes their path too long.
    """

    def __init__(self, database: str) -> None:
        self.locks = self.sockets = database + "-wake"
        self._database = database
        if len(os.fsencode(self.sockets)) + 1 + _LONGEST_NAME > _LONGEST_PATH:
            import hashlib  # costs more than all the rest of this module

            digest = hashlib.sha256(os.fsencode(database)).hexdigest()[:16]
            # Not tempfile.gettempdir(): TMPDIR may differ from process to process.
            self.sockets = f"/tmp/chervil-wake-{digest}"

    def make(self) -> None:
        """Create them.

        :raises ImproperlyConfigured: the one in /tmp is somebody else's.
        """
        os.makedirs(self.locks, exist_ok=True)
        if self.sockets == self.locks:
            return
        os.makedirs(self.sockets, mode=0o700, exist_ok=True)
        found = os.lstat(self.sockets)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (
            os.getuid(),
            os.stat(self._database).st_uid,
        ):
            raise ImproperlyConfigured(
                f"{self.sockets}, where the sockets for {self._database} belong, is another "
                f"user's; remove it, or give the database a path of less than 75 bytes"
            )

    def is_dead(self, name: str) -> bool:
        """Whether the process that held the lock of that name has ended."""
        try:
            lock = os.open(f"{self.locks}/{name}.lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:  # not ours to open: its lease decides
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(lock)
        return True

    def remove(self, name: str) -> None:
        """Remove the files of a process that has ended."""
        for path in (f"{self.sockets}/{name}", f"{self.locks}/{name}.lock"):
            try:
                os.unlink(path)
            except OSError:
                pass

    def sweep(self, known: Collection[str]) -> None:
        """Remove files that belong to nobody and are not new."""
        for folder in {self.sockets, self.locks}:
            try:
                found = os.listdir(folder)
            except OSError:
                continue
            for entry in found:
                name = entry.removesuffix(".lock")
                if name not in known and self._is_orphan(f"{folder}/{entry}", name):
                    self.remove(name)

    def _is_orphan(self, path: str, name: str) -> bool:
        try:
            age = time.time() - os.lstat(path).st_mtime
        except OSError:
            return False
        return age > _ORPHAN_AGE and (not name.startswith(("c-", "m-")) or self.is_dead(name))


class Ear:
    """A socket that others can knock at.

    :param kind: first letter of its name.
    :param locked: also hold a lock that shows that this process lives.
    """

    def __init__(self, places: Places, kind: str, locked: bool = False) -> None:
        places.make()
        self.name = f"{kind}-{os.urandom(6).hex()}"
        self._places = places
        self._closed = False
        self._lock = _hold(f"{places.locks}/{self.name}.lock") if locked else -1
        path = f"{places.sockets}/{self.name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._poke = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(path)
            self._socket.setblocking(False)
            # Connected now, so that it works even if the file is removed.
            self._poke.connect(path)
            self._poke.setblocking(False)
        except BaseException:
            self.close()
            raise
        self._pid = os.getpid()
        _ears.add(self)

    def fileno(self) -> int:
        """Readable when somebody knocked."""
        return self._socket.fileno()

    def drain(self) -> list[bytes]:
        """Take all datagrams that are there."""
        found: list[bytes] = []
        try:
            while True:
                found.append(self._socket.recv(_LARGEST_DATAGRAM))
        except OSError:  # empty, or closed
            return found

    def wait(self, timeout: float) -> list[bytes]:
        """Wait for a datagram up to ``timeout`` seconds; take all that are there."""
        try:
            self._socket.settimeout(max(timeout, 0.0))
            first = self._socket.recv(_LARGEST_DATAGRAM)
        except OSError:  # nothing came, or closed
            return []
        self._socket.setblocking(False)
        return [first, *self.drain()]

    def wake(self) -> None:
        """Knock at it; also from a signal handler."""
        try:
            self._poke.send(WAKE)
        except OSError:  # full: it is readable already; or closed
            pass

    def close(self) -> None:
        """Stop listening and remove the files."""
        if not self._closed:
            self._places.remove(self.name)
        self.abandon()

    def abandon(self) -> None:
        """Close what this process inherited and leave the files to their owner."""
        self._closed = True
        self._socket.close()
        self._poke.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __del__(self) -> None:
        if hasattr(self, "_pid"):
            if self._pid == os.getpid():
                self.close()
            else:
                self.abandon()


class Bell:
    """Knocks at the sockets of a database."""

    def __init__(self, places: Places) -> None:
        self._folder = places.sockets

    def ring(self, names: Iterable[str], data: bytes = WAKE) -> list[str]:
        """Send a datagram to each, without waiting; the names where nobody lives."""
        out: socket.socket = vars(self).get("socket") or self._open()
        gone: list[str] = []
        for name in names:
            try:
                out.sendto(data, f"{self._folder}/{name}")
            except BlockingIOError:  # it has enough to wake up for
                pass
            except (ConnectionRefusedError, FileNotFoundError):
                gone.append(name)
            except OSError:
                pass
        return gone

    def _open(self) -> socket.socket:
        mine = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        mine.setblocking(False)
        kept: socket.socket = vars(self).setdefault("socket", mine)  # atomic
        if kept is not mine:
            mine.close()
        return kept

    def close(self) -> None:
        """Close the socket; the next ring opens another."""
        out: socket.socket | None = vars(self).pop("socket", None)
        if out is not None:
            out.close()

    def __del__(self) -> None:
        self.close()


def _hold(path: str) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


_ears: weakref.WeakSet[Ear] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # A child that kept the lock would make a dead parent look alive.
    for ear in list(_ears):
        ear.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
