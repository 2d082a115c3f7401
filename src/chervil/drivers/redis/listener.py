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
from chervil.ids import new_id
from chervil.states import READY_STATES
from chervil.wire.message import Outcome
from chervil.wire.outcomes import status_in

#: Seconds that a worker of ours may take to tell before the store is asked.
_PATIENCE = 0.005
#: Tasks in one command.
_AT_ONCE = 500


class RedisListener:
    """See :class:`chervil.drivers.contracts.Listener`.

    Our workers publish the results of what was sent here on one channel, to which this
    connection is subscribed all the time. Celery's do not: they publish a result only on
    the channel of its key. So what has not been heard of soon is asked for: by a
    subscription to that channel, together with a question for what is stored already.
    Nobody waits for either: both arrive as news do (which takes version 3 of the
    protocol). Subscriptions that are not wanted any more are ended with the next question,
    or when there are many.

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
        #: Of these, the ids that were asked for and so are subscribed to.
        self._subscribed: set[str] = set()
        #: Ids that are not watched any more but still subscribed to.
        self._unwanted: dict[str, None] = {}
        #: Ids to be asked for, and from when on (monotonic seconds).
        self._later: deque[tuple[float, Sequence[str]]] = deque()
        #: Seconds until that; none while answers come from workers that are not ours.
        self._patience = _PATIENCE
        #: Ids for which it was in vain.
        self._late: set[str] = set()
        self._reading = threading.Lock()
        self._sending = threading.Lock()
        #: The ids of each question for what is stored that was not answered yet, and when
        #: it was sent (monotonic seconds).
        self._asked: deque[tuple[float, Sequence[str]]] = deque()
        #: Documents that arrived and were not reported yet; None: to be read. And whether
        #: they are for what was sent here.
        self._heard: list[tuple[str, bytes | None, bool]] = []
        self._closed = False
        self._pid = os.getpid()
        self._channel = names.own(f"reply.{address}")
        self._link = self._subscribe()
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
            if sent_here and self._patience:
                # The end of a task that was sent after we began to listen is heard.
                since = self._since
                later = [task_id for task_id in new if task_id > since]
                new = [task_id for task_id in new if task_id <= since]
                if later:
                    self._later.append((time.monotonic() + self._patience, later))
                    if self._reading.locked():
                        self.wake()  # whoever reads has not heard of that time
            if new:
                self._send(new)
        return True

    def unwatch(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.unwatch`."""
        with self._sending:
            for task_id in ids:
                self._watched.pop(task_id, None)
                self._late.discard(task_id)
                if task_id in self._subscribed:
                    self._subscribed.remove(task_id)
                    self._unwanted[task_id] = None
            if len(self._unwanted) >= _AT_ONCE and not self._closed:
                self._send(())

    def _send(self, new: Sequence[str]) -> None:
        """Subscribe and ask, and end what is not wanted. The lock for sending is held."""
        packed: list[bytes] = []
        for task_id in new:
            self._unwanted.pop(task_id, None)
        self._subscribed.update(new)
        unwanted, self._unwanted = list(self._unwanted), {}
        for start in range(0, len(unwanted), _AT_ONCE):
            packed.append(pack(("UNSUBSCRIBE", *self._keys(unwanted, start))))
        for start in range(0, len(new), _AT_ONCE):
            keys = self._keys(new, start)
            packed += (pack(("SUBSCRIBE", *keys)), pack(("MGET", *keys)))
            self._asked.append((time.monotonic(), new[start : start + _AT_ONCE]))
        try:
            self._link.send(b"".join(packed), 0)
        except BackendError:
            self.wake()  # whoever reads connects again and subscribes to all

    def _keys(self, ids: Sequence[str], start: int) -> list[bytes]:
        return [self._prefix + task_id.encode() for task_id in ids[start : start + _AT_ONCE]]

    def _subscribe(self) -> Link:
        link = Link(self._location, BackendError, protocol=3)
        link.send(pack(("SUBSCRIBE", self._channel)), 0)
        #: Ids of tasks that were sent before this are smaller, if they are of ours.
        self._since = new_id()
        return link

    def _ask(self) -> None:
        """Ask for what has not been heard of in time."""
        with self._sending:
            now = time.monotonic()
            due: list[str] = []
            while self._later and self._later[0][0] <= now:
                due += self._later.popleft()[1]
            wanted = [i for i in due if i in self._watched and i not in self._subscribed]
            if wanted:
                self._late.update(wanted)
                self._send(wanted)

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
        later, watched = self._later, self._watched
        while later and not any(task_id in watched for task_id in later[0][1]):
            later.popleft()  # it has been heard of meanwhile
        if later:
            timeout = min(timeout, max(0.0, later[0][0] - time.monotonic()))
        ready = self._poll.poll(timeout * 1000 + (0.5 if later else 0))
        if later and later[0][0] <= time.monotonic():
            self._ask()
        if not ready and self._is_deaf():
            self._connect_again()
        for descriptor, _ in ready:
            if descriptor == self._descriptor:
                self._read_link()
            else:
                rung = True
                self._unring()
        return rung

    def _is_deaf(self) -> bool:
        """Whether a question was not answered in time: the connection may be half open."""
        asked = self._asked
        return bool(asked) and time.monotonic() - asked[0][0] > self._location.socket_timeout

    def _read_link(self) -> None:
        try:
            for answer in self._link.arrived():
                self._take(answer)
        except BackendError:
            if not self._closed:
                self._connect_again()

    def _take(self, answer: Any) -> None:
        if isinstance(answer, PushNotification):
            if answer[0] != b"message":
                return
            if answer[1] == self._channel:
                self._patience = _PATIENCE
                size, _, rest = answer[2].partition(b":")
                task_id, payload = rest[: int(size)], rest[int(size) :]
                self._heard.append((task_id.decode("utf-8", "replace"), payload or None, True))
            else:
                task_id = answer[1][len(self._prefix) :]
                self._heard.append((task_id.decode("utf-8", "replace"), answer[2], False))
        elif isinstance(answer, Exception):
            raise self._link.refused(answer)
        else:
            _, ids = self._asked.popleft()
            pairs = zip(ids, answer, strict=True)
            self._heard += [(i, payload, False) for i, payload in pairs if payload is not None]

    def _connect_again(self) -> None:
        """Subscribe to all on a new connection, and ask what was missed."""
        with self._sending:
            old, self._link = self._link, self._subscribe()
            old.close()
            self._poll.unregister(self._descriptor)
            self._descriptor = self._link.socket.fileno()
            self._poll.register(self._descriptor, select.POLLIN)
            self._asked.clear()
            self._later.clear()
            self._late.clear()
            self._unwanted.clear()
            self._subscribed.clear()
            self._send(list(self._watched))

    def _understand(self, heard: Iterable[tuple[str, bytes | None, bool]]) -> list[Outcome]:
        watched, late = self._watched, self._late
        found: list[Outcome] = []
        others: list[Outcome] = []
        unclear: dict[str, None] = {}
        for task_id, payload, sent_here in heard:
            status = status_in(payload) if payload else None
            if task_id not in watched:
                if sent_here and payload and status in READY_STATES:
                    others.append(Outcome(task_id, status or "", payload))
                continue
            if sent_here:
                late.discard(task_id)
            elif task_id in late:
                self._patience = 0.0
            if payload is None or status is None:
                unclear[task_id] = None
            else:
                found.append(Outcome(task_id, status, payload))
        if unclear:
            with self._pool.link() as link:
                found += outcomes.get(link, self._names, self._prefix, list(unclear))
        return self._fresh(found) + others

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
