"""Notes inside this process."""

from __future__ import annotations

import re
import socket
from collections import deque
from collections.abc import Sequence

from chervil.drivers.memory.space import Space
from chervil.wire.notes import Note

#: Notes that wait in a mailbox; older ones are lost.
ROOM = 1000


class MemoryMailbox:
    """See :class:`chervil.drivers.contracts.Mailbox`."""

    def __init__(self, space: Space, exchange: str, key: str, answers: bool) -> None:
        self.exchange = exchange
        #: It gets answers, not what is told to all.
        self.answers = answers
        self._space = space
        self._key = matcher(key) if "#" in key or "*" in key else key
        self._notes: deque[Note] = deque(maxlen=ROOM)
        self._ear, self._poke = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.setblocking(False)
        self._poke.setblocking(False)
        with space.lock:
            space.mailboxes.append(self)

    def wants(self, key: str) -> bool:
        """Whether a note with that key is for it."""
        if isinstance(self._key, str):
            return self._key == key
        return self._key.fullmatch(key) is not None

    def put(self, note: Note) -> None:
        """With the space's lock."""
        self._notes.append(note)
        try:
            self._poke.send(b"!")
        except OSError:  # full: it is readable already; or closed
            pass

    def fileno(self) -> int:
        """See :meth:`chervil.drivers.contracts.Mailbox.fileno`."""
        return self._ear.fileno()

    def receive(self) -> Sequence[Note]:
        """See :meth:`chervil.drivers.contracts.Mailbox.receive`."""
        try:
            while self._ear.recv(16):
                pass
        except OSError:
            pass
        with self._space.lock:
            found = list(self._notes)
            self._notes.clear()
        return found

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Mailbox.close`."""
        with self._space.lock:
            if self in self._space.mailboxes:
                self._space.mailboxes.remove(self)
        self._ear.close()
        self._poke.close()


class MemoryFanout:
    """See :class:`chervil.drivers.contracts.Fanout`."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def subscribe(self, exchange: str, name: str, key: str = "") -> MemoryMailbox:
        """See :meth:`chervil.drivers.contracts.Fanout.subscribe`."""
        return MemoryMailbox(self._space, exchange, key, answers=False)

    def answers(self, exchange: str, key: str) -> MemoryMailbox:
        """See :meth:`chervil.drivers.contracts.Fanout.answers`."""
        return MemoryMailbox(self._space, exchange, key, answers=True)

    def broadcast(self, exchange: str, note: Note, key: str = "") -> int:
        """See :meth:`chervil.drivers.contracts.Fanout.broadcast`."""
        return self._put(exchange, key, note, answers=False)

    def reply(self, exchange: str, key: str, note: Note) -> None:
        """See :meth:`chervil.drivers.contracts.Fanout.reply`."""
        self._put(exchange, key, note, answers=True)

    def _put(self, exchange: str, key: str, note: Note, answers: bool) -> int:
        told = 0
        with self._space.lock:
            for mailbox in self._space.mailboxes:
                if (
                    mailbox.exchange == exchange
                    and mailbox.answers is answers
                    and mailbox.wants(key)
                ):
                    mailbox.put(note)
                    told += 1
        return told


def matcher(pattern: str) -> re.Pattern[str]:
    """What a topic pattern matches: ``*`` one word, ``#`` any number of them."""
    text = re.escape(pattern).replace(r"\#", ".*").replace(r"\*", r"[^.]*")
    return re.compile(text)
