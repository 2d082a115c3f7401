"""A process's ear at the result store: one subscribed connection for all its tasks."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from chervil.drivers.redis import outcomes
from chervil.drivers.redis.link import Link, Pool
from chervil.drivers.redis.location import Location
from chervil.drivers.redis.names import Names
from chervil.exceptions import BackendError
from chervil.wire.message import Outcome
from chervil.wire.outcomes import status_in

#: Channels in one command.
_AT_ONCE = 500


class RedisListener:
    """See :class:`chervil.drivers.contracts.Listener`.

    Celery's workers publish a result on the channel of its key, and so do ours: each
    watched task is a subscription. Whoever holds ``_reading`` reads the connection:
    mostly the thread in :meth:`wait`, and one in :meth:`watch` while there is none.
    """

    def __init__(
        self, location: Location, names: Names, prefix: bytes, pool: Pool, address: str
    ) -> None:
        self.address = address
        self._names = names
        self._prefix = prefix
        self._pool = pool
        self._location = location
        self._timeout = location.socket_timeout
        #: Watched ids to a mark of what was last reported.
        self._watched: dict[str, object] = {}
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        #: How many subscriptions were asked for and confirmed; tells who waits for one.
        self._asked = 0
        self._confirmed = 0
        self._progress = threading.Condition()
        #: Documents that arrived and were not reported yet; None: to be read from the store.
        self._heard: list[tuple[str, bytes | None]] = []
        self._closed = False
        self._pid = os.getpid()
        self._link = Link(location, BackendError)
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)
        self._both, self._only = select.poll(), select.poll()
        self._descriptor = self._link.socket.fileno()
        for poll in (self._both, self._only):
            poll.register(self._descriptor, select.POLLIN)
        self._both.register(self._bell, select.POLLIN)

    # --- watching

    def watch(self, ids: Collection[str], sent_here: bool) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.watch`."""
        with self._sending:
            new = [task_id for task_id in ids if task_id not in self._watched]
            self._watched.update(dict.fromkeys(new))
            link = self._link
            self._asked += len(new)
            goal = self._asked  # also of those that other threads have asked for
            self._send("SUBSCRIBE", new)
        if self._confirmed < goal:
            self._wait_for(goal, link)

    def unwatch(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.unwatch`."""
        with self._sending:
            gone = [task_id for task_id in ids if self._watched.pop(task_id, self) is not self]
            if not self._closed:
                self._send("UNSUBSCRIBE", gone)

    def _send(self, command: str, ids: Sequence[str]) -> None:
        """The lock for sending is held."""
        try:
            for start in range(0, len(ids), _AT_ONCE):
                part = ids[start : start + _AT_ONCE]
                self._link.defer(command, *[self._prefix + task_id.encode() for task_id in part])
        except BackendError:
            self.wake()  # whoever reads connects again and subscribes to all

    def _wait_for(self, goal: int, link: Link) -> None:
        """Until that many subscriptions are in force, so that nothing is missed after."""
        deadline = time.monotonic() + self._timeout
        while self._confirmed < goal and self._link is link and not self._closed:
            left = deadline - time.monotonic()
            if left <= 0:
                raise BackendError(
                    f"Redis at {self._location.name} has not confirmed a subscription within "
                    f"{self._timeout:g} s"
                )
            if self._reading.acquire(blocking=False):
                try:
                    if self._confirmed < goal:
                        self._read(left, bell=False)
                finally:
                    self._reading.release()
                    self._tell_others()
            else:
                with self._progress:
                    if self._confirmed < goal:
                        # Not for long: the reader may stop before it has read ours.
                        self._progress.wait(min(left, 0.02))

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
                    woken = self._read(max(0.0, deadline - time.monotonic()), bell=True)
                heard, self._heard = self._heard, []
            found = self._understand(heard) if heard else []
            if found or woken or time.monotonic() >= deadline:
                return found
        return []

    def _tell_others(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def _read(self, timeout: float, bell: bool) -> bool:
        """Read what arrives within that time; True when the bell rang.

        The lock for reading is held.
        """
        if not self._link.open:
            self._connect_again()
            return False
        rung = False
        for descriptor, _ in (self._both if bell else self._only).poll(timeout * 1000):
            if descriptor == self._bell.fileno():
                rung = True
                self._unring()
            else:
                self._read_link()
        return rung

    def _read_link(self) -> None:
        confirmed = 0
        try:
            for answer in self._link.arrived():
                confirmed += self._take(self._link, answer)
        except BackendError:
            if self._closed:
                return
            self._connect_again()
        if confirmed:
            self._confirmed += confirmed
            self._tell_others()

    def _take(self, link: Link, answer: Any) -> int:
        """1 when it confirms a subscription."""
        if isinstance(answer, Exception):
            raise link.refused(answer)
        kind = answer[0]
        if kind == b"message":
            task_id = answer[1][len(self._prefix) :].decode("utf-8", "replace")
            self._heard.append((task_id, answer[2]))
            return 0
        return 1 if kind == b"subscribe" else 0

    def _connect_again(self) -> None:
        """Subscribe to all on a new connection; what was missed is read from the store."""
        with self._sending:
            old = self._link
            link = Link(self._location, BackendError)
            try:
                self._link = link
                ids = list(self._watched)
                self._send("SUBSCRIBE", ids)
                left = len(ids)
                while left:
                    for answer in link.arrived():
                        left -= self._take(link, answer)
            except BaseException:
                link.close()
                raise
            old.close()
            for poll in (self._both, self._only):
                poll.unregister(self._descriptor)
                poll.register(link.socket, select.POLLIN)
            self._descriptor = link.socket.fileno()
            self._confirmed = self._asked
            self._heard += [(task_id, None) for task_id in ids]
        self._tell_others()

    def _understand(self, heard: Iterable[tuple[str, bytes | None]]) -> list[Outcome]:
        watched = self._watched
        found: list[Outcome] = []
        unclear: dict[str, None] = {}
        for task_id, payload in heard:
            if task_id not in watched:
                continue
            status = None if payload is None else status_in(payload)
            if payload is None or status is None:
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
