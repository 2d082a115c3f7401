"""A process's ear at the result store: one subscribed connection for all its tasks."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from hiredis import PushNotification

from chervil.drivers.redis import outcomes
from chervil.drivers.redis.link import Link, Pool, pack
from chervil.drivers.redis.location import Location
from chervil.drivers.redis.names import Names
from chervil.exceptions import BackendError
from chervil.wire.message import Outcome

#: Tasks in one command.
_AT_ONCE = 500


class RedisListener:
    """See :class:`chervil.drivers.contracts.Listener`.

    Celery's workers publish a result on the channel of its key, and so do ours: each
    watched task is a subscription. It is asked for together with what is stored already,
    and whoever watches does not wait for either: both arrive as news do (which takes
    version 3 of the protocol). Subscriptions that are not wanted any more are ended with
    the next command, or when there are many.

    Whoever holds ``_reading`` reads the connection.
    """

    def __init__(
        self, location: Location, names: Names, prefix: bytes, pool: Pool, address: str
    ) -> None:
        self.address = address
        self._names = names
        self._prefix = prefix
        self._pool = pool
        self._location = location
        #: Watched ids to a mark of what was last reported.
        self._watched: dict[str, object] = {}
        #: Ids that are not watched any more but still subscribed to.
        self._unwanted: dict[str, None] = {}
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        #: The ids of each question for what is stored that was not answered yet.
        self._asked: deque[Sequence[str]] = deque()
        #: Documents that arrived and were not reported yet.
        self._heard: list[tuple[str, bytes]] = []
        self._closed = False
        self._pid = os.getpid()
        self._link = Link(location, BackendError, protocol=3)
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)
        self._poll = select.poll()
        self._descriptor = self._link.socket.fileno()
        self._poll.register(self._descriptor, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)

    # --- watching

    def watch(self, ids: Collection[str], sent_here: bool) -> bool:
        """See :meth:`chervil.drivers.contracts.Listener.watch`."""
        with self._sending:
            new = [task_id for task_id in ids if task_id not in self._watched]
            self._watched.update(dict.fromkeys(new))
            for task_id in new:
                self._unwanted.pop(task_id, None)
            self._send(new)
        return True

    def unwatch(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.unwatch`."""
        with self._sending:
            gone = [task_id for task_id in ids if self._watched.pop(task_id, self) is not self]
            self._unwanted.update(dict.fromkeys(gone))
            if len(self._unwanted) >= _AT_ONCE and not self._closed:
                self._send(())

    def _send(self, new: Sequence[str]) -> None:
        """Subscribe and ask, and end what is not wanted. The lock for sending is held."""
        packed: list[bytes] = []
        unwanted, self._unwanted = list(self._unwanted), {}
        for start in range(0, len(unwanted), _AT_ONCE):
            packed.append(pack(("UNSUBSCRIBE", *self._keys(unwanted, start))))
        for start in range(0, len(new), _AT_ONCE):
            keys = self._keys(new, start)
            packed += (pack(("SUBSCRIBE", *keys)), pack(("MGET", *keys)))
            self._asked.append(new[start : start + _AT_ONCE])
        try:
            self._link.send(b"".join(packed), 0)
        except BackendError:
            self.wake()  # whoever reads connects again and subscribes to all

    def _keys(self, ids: Sequence[str], start: int) -> list[bytes]:
        return [self._prefix + task_id.encode() for task_id in ids[start : start + _AT_ONCE]]

    # --- reading

    def wait(self, timeout: float) -> Sequence[Outcome]:
        """See :meth:`chervil.drivers.contracts.Listener.wait`."""
        deadline = time.monotonic() + timeout
        while not self._closed:
            woken = False
            with self._reading:
                if self._closed:
                    break
                if not self._heard:
                    woken = self._read(max(0.0, deadline - time.monotonic()))
                heard, self._heard = self._heard, []
            found = self._understand(heard) if heard else []
            if found or woken or time.monotonic() >= deadline:
                return found
        return []

    def _read(self, timeout: float) -> bool:
        """Read what arrives within that time; True when the bell rang.

        The lock for reading is held.
        """
        if not self._link.open:
            self._connect_again()
            return False
        rung = False
        for descriptor, _ in self._poll.poll(timeout * 1000):
            if descriptor == self._descriptor:
                self._read_link()
            else:
                rung = True
                self._unring()
        return rung

    def _read_link(self) -> None:
        try:
            for answer in self._link.arrived():
                self._take(answer)
        except BackendError:
            if not self._closed:
                self._connect_again()

    def _take(self, answer: Any) -> None:
        if isinstance(answer, PushNotification):
            if answer[0] == b"message":
                task_id = answer[1][len(self._prefix) :].decode("utf-8", "replace")
                self._heard.append((task_id, answer[2]))
        elif isinstance(answer, Exception):
            raise self._link.refused(answer)
        else:
            ids = self._asked.popleft()
            self._heard += [pair for pair in zip(ids, answer, strict=True) if pair[1] is not None]

    def _connect_again(self) -> None:
        """Subscribe to all on a new connection, and ask what was missed."""
        with self._sending:
            old, self._link = self._link, Link(self._location, BackendError, protocol=3)
            old.close()
            self._poll.unregister(self._descriptor)
            self._descriptor = self._link.socket.fileno()
            self._poll.register(self._descriptor, select.POLLIN)
            self._asked.clear()
            self._unwanted.clear()
            self._send(list(self._watched))

    def _understand(self, heard: Iterable[tuple[str, bytes]]) -> list[Outcome]:
        watched = self._watched
        found: list[Outcome] = []
        unclear: dict[str, None] = {}
        for task_id, payload in heard:
            if task_id not in watched:
                continue
            status = outcomes.status_in(payload)
            if status is None:
                unclear[task_id] = None
            else:
                found.append(Outcome(task_id, status, payload))
        if unclear:
            with self._pool.link() as link:
                found += outcomes.get(link, self._names, self._prefix, list(unclear))
        return self._fresh(found)

    def _fresh(self, found: Iterable[Outcome]) -> list[Outcome]:
        """Leave out what was reported before."""
        fresh: list[Outcome] = []
        watched = self._watched
        for outcome in found:
            mark = (outcome.status, hash(outcome.payload))
            if outcome.task_id in watched and watched[outcome.task_id] != mark:
                watched[outcome.task_id] = mark
                fresh.append(outcome)
        return fresh

    # --- waking and closing

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
        if self._pid == os.getpid():
            self.wake()
            with self._reading:  # a wait in another thread has ended
                pass
        self._link.close()
        self._bell.close()
        self._clapper.close()
