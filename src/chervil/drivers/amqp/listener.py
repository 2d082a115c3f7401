"""A process's ear at its queue of results."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection, Sequence

from chervil.drivers.amqp.replies import Inbox, is_readable
from chervil.wire.message import Outcome


class RpcListener:
    """See :class:`chervil.drivers.contracts.Listener`."""

    def __init__(self, inbox: Inbox) -> None:
        self.address = inbox.address
        self._inbox = inbox
        self._watched: set[str] = set()
        self._heard: list[Outcome] = []
        self._closed = False
        self._waiting = threading.Lock()
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)
        inbox.listeners.append(self)
        try:
            inbox.begin()
        except BaseException:
            self.close()
            raise

    def hear(self, outcome: Outcome) -> None:
        """With the inbox's ``reading``: there is news."""
        if outcome.task_id in self._watched:
            self._heard.append(outcome)

    def watch(self, ids: Collection[str], sent_here: bool) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.watch`."""
        self._watched.update(ids)

    def unwatch(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.unwatch`."""
        self._watched.difference_update(ids)

    def wait(self, timeout: float) -> Sequence[Outcome]:
        """See :meth:`chervil.drivers.contracts.Listener.wait`."""
        deadline = time.monotonic() + timeout
        with self._waiting:
            while not self._closed:
                woken = self._read(max(0.0, deadline - time.monotonic()))
                if woken:
                    self._unring()
                found = self._news() if self._heard else []
                if found or woken or time.monotonic() >= deadline:
                    return found
        return []

    def _read(self, left: float) -> bool:
        """Until there may be news; True when the bell rang."""
        inbox, bell = self._inbox, self._bell.fileno()
        if inbox.closed:
            return is_readable(bell, left)
        if not inbox.reading.acquire(timeout=left):
            return False
        try:
            return not self._heard and inbox.read(left, bell)
        finally:
            inbox.reading.release()

    def _news(self) -> list[Outcome]:
        heard, self._heard = self._heard, []
        found = [outcome for outcome in heard if outcome.task_id in self._watched]
        if found:
            self._inbox.kept.were_read(found)
        return found

    def wake(self) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.wake`."""
        try:
            self._clapper.send(b"!")
        except OSError:  # it has rung often enough, or is closed
            pass

    def _unring(self) -> None:
        try:
            self._bell.recv(4096)
        except OSError:
            pass

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.close`."""
        if self._closed:
            return
        self._closed = True
        self.wake()
        if self in self._inbox.listeners:
            self._inbox.listeners.remove(self)
        with self._waiting:  # a wait in another thread has ended
            self._bell.close()
            self._clapper.close()
