"""The queue to which the results of this process's tasks come, and how it is read."""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chervil import clock
from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.kept import Kept
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.location import Location
from chervil.drivers.amqp.properties import decode_properties
from chervil.drivers.amqp.reading import Content
from chervil.drivers.amqp.trouble import Refused
from chervil.exceptions import BackendError, DecodeError, OperationalError
from chervil.states import FAILURE, READY_STATES, SUCCESS
from chervil.wire.message import Outcome
from chervil.wire.outcomes import decode, join_compression, status_of

if TYPE_CHECKING:
    from chervil.drivers.amqp.listener import RpcListener

logger = logging.getLogger("chervil.result")
_CHANNEL: Final = 1
#: Tasks that are remembered as sent from here.
_SENT: Final = 100_000
#: Messages, and bytes, that are acknowledged together while more of them come.
_AT_ONCE: Final = 100
_BYTES_AT_ONCE: Final = 1 << 20
#: What RabbitMQ takes for a time in milliseconds.
_LONGEST: Final = 0xFFFFFFFF
_NOTHING: Final[tuple[Any, ...]] = (False, False, False, False, {})
#: A queue that nobody reads is declared again after this part of its life.
_PART: Final = 4


class ReplyOptions(msgspec.Struct, frozen=True):
    """How results are sent and kept."""

    serializer: str = "json"
    #: Whether they outlive a restart of the server.
    persistent: bool = False
    #: Seconds that the queue lives without its client, and a result in it; 0: for ever.
    expires: float = 86400.0
    #: Bytes of results that are kept in this process.
    kept_bytes: int = 64 << 20


class Inbox:
    """What comes for one address: the queue of that name, and what was read from it.

    The queue is declared before the first task is sent that it is for, and read from when
    somebody wants to know a result. It is neither exclusive nor does it end with its
    consumer, so that what arrives while the connection is away is there afterwards.
    Messages are acknowledged when they are in this process.

    Whoever holds ``reading`` uses the connection: a listener's thread while it waits, or
    else who looks.
    """

    def __init__(self, location: Location, address: str, options: ReplyOptions) -> None:
        self.address = address
        self.reading = threading.Lock()
        self.kept = Kept(options.kept_bytes)
        self.listeners: list[RpcListener] = []
        self._location = location
        self._options = options
        #: Tasks whose end has not arrived yet, oldest first.
        self._sent: dict[str, None] = {}
        #: There were more of them than are remembered.
        self._lost_track = False
        self._link: Link | None = None
        self._consuming = False
        self.closed = False
        #: Monotonic time until which the queue is there although nobody reads it.
        self._there_until = 0.0
        self._unacknowledged = self._unacknowledged_bytes = 0
        self._last_tag = 0

    # --- who expects what

    def expect(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.PrivateStore.expect`."""
        sent = self._sent
        for task_id in ids:
            sent[task_id] = None
        if len(sent) > _SENT:
            self._forget_sent()
        if clock.monotonic() >= self._there_until:
            self._make_sure()

    def _forget_sent(self) -> None:
        self._lost_track = True
        for task_id in list(self._sent)[: _SENT // 10]:
            self._sent.pop(task_id, None)

    def awaits(self, task_id: str) -> bool:
        """See :meth:`chervil.drivers.contracts.PrivateStore.awaits`."""
        return task_id in self._sent or task_id in self.kept or self._lost_track

    def get(self, ids: Collection[str]) -> dict[str, Outcome]:
        """What has arrived of these."""
        found = self.kept.get(ids)
        if any(i not in found or found[i].status != SUCCESS for i in ids):
            self.look()
            found = self.kept.get(ids)
        return found

    def forget(self, ids: Collection[str]) -> None:
        """Drop what has arrived of these."""
        if any(task_id not in self.kept for task_id in ids):
            self.look()
        self.kept.forget(ids)

    def _make_sure(self) -> None:
        """The queue is there, and will be for some time."""
        link = self._link
        if link is not None and link.open and self._is_read():
            return
        with self._using():
            self._declare(self._opened())

    def _is_read(self) -> bool:
        """Somebody reads it just now, so that it does not end."""
        return self._consuming and self.reading.locked()

    # --- the connection

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Hold ``reading``, which nobody has for long who has not begun to consume."""
        patience = self._location.socket_timeout + self._location.socket_connect_timeout
        if not self.reading.acquire(timeout=patience):
            raise BackendError(f"RabbitMQ at {self._location.name} does not answer")
        try:
            yield
        finally:
            self.reading.release()

    def _opened(self) -> Link:
        """The connection, with the queue declared; ``reading`` is held."""
        link = self._link
        if link is None or not link.is_usable() or link.is_closed(_CHANNEL):
            self._drop()
            if self.closed:
                raise BackendError("the result store was closed")
            link = self._link = Link(self._location, BackendError, "chervil results")
            try:
                self._declare(link)
            except BaseException:
                self._drop()
                raise
        return link

    def _declare(self, link: Link) -> None:
        life = self._options.expires
        arguments: dict[str, Any] = {}
        if life:
            milliseconds = min(max(1, int(life * 1000)), _LONGEST)
            arguments = {"x-expires": milliseconds, "x-message-ttl": milliseconds}
        try:
            link.call(
                _CHANNEL, m.QUEUE_DECLARE, self.address, False, True, False, False, False, arguments
            )
        except Refused as exc:
            raise link.refused(exc) from None
        self._stays()

    def _stays(self) -> None:
        """The queue was used just now."""
        life = self._options.expires
        self._there_until = clock.monotonic() + life / _PART if life else float("inf")

    def _consumed(self) -> Link:
        """The connection, with the queue's messages sent here; ``reading`` is held."""
        link = self._opened()
        if link.cancelled:  # the queue was deleted, by an operator or with its server
            link.cancelled.clear()
            self._consuming = False
            self._declare(link)
        if not self._consuming:
            try:
                link.consume(_CHANNEL, self.address, "results")
            except Refused as exc:
                raise link.refused(exc) from None
            self._consuming = True
        return link

    def _drop(self) -> None:
        link, self._link = self._link, None
        self._consuming = False
        self._there_until = 0.0
        self._unacknowledged = self._unacknowledged_bytes = 0
        if link is not None:
            link.close()

    # --- reading

    def begin(self) -> None:
        """Have results sent here from now on."""
        if self._is_read():
            return
        with self._using():
            self._consumed()

    def look(self) -> None:
        """Take what has arrived at the server before this was called, unless there is
        somebody who reads all the time."""
        if self.listeners:
            return
        deadline = clock.monotonic() + self._location.socket_timeout
        with self._using():
            link = self._consumed()
            ready = 1
            try:
                while ready and clock.monotonic() < deadline:
                    ready = link.call(_CHANNEL, m.QUEUE_DECLARE, self.address, True, *_NOTHING)[1]
                    # What has left the queue is sent before the answer to this.
                    link.call(_CHANNEL, m.BASIC_QOS, 0, 0, False)
            except Refused as exc:
                raise link.refused(exc) from None
            self._take(link)
            self._acknowledge(link)
            self._stays()

    def read(self, timeout: float, bell: int) -> bool:
        """Take what arrives within that time; True when the bell can be read.

        ``reading`` is held. A connection that is lost is made again, once.
        """
        link = self._link
        if link is None or not self._consuming or not link.open or link.cancelled:
            link = self._consumed()
        self._stays()
        if not link.arrived:
            poll = select.poll()
            poll.register(link.fileno(), select.POLLIN)
            poll.register(bell, select.POLLIN)
            ready = poll.poll(timeout * 1000)
            if any(descriptor == bell for descriptor, _ in ready):
                return True
            if not ready:
                self._acknowledge(link)
                return False
        try:
            self._take(link)
            if link.is_closed(_CHANNEL) is not None or link.cancelled:
                self._consumed()
            elif self._unacknowledged >= _AT_ONCE or self._unacknowledged_bytes >= _BYTES_AT_ONCE:
                self._acknowledge(link)
        except OperationalError as exc:
            logger.info("%s; trying again", exc)
            self._drop()
            self._consumed()
        return False

    def _take(self, link: Link) -> None:
        link.pump()
        for content in link.take():
            self._last_tag = content.tag()[0]
            self._unacknowledged += 1
            self._unacknowledged_bytes += len(content.body)
            outcome = self._outcome(content)
            if outcome is None or not self.kept.add(outcome):
                continue
            for listener in self.listeners:
                listener.hear(outcome)

    def _acknowledge(self, link: Link) -> None:
        if self._unacknowledged:
            self._unacknowledged = self._unacknowledged_bytes = 0
            link.send(m.pack(_CHANNEL, m.BASIC_ACK, self._last_tag, True))

    def _outcome(self, content: Content) -> Outcome | None:
        try:
            properties = decode_properties(content.header)
        except DecodeError as exc:
            logger.error("something in the queue of results cannot be read: %s", exc)
            return None
        how = (properties.get("headers") or {}).get("compression")
        payload = join_compression(how, content.body) if isinstance(how, str) else content.body
        # What has no status ends the wait, so that who reads it is told what is wrong.
        status = properties.get("type") or status_of(payload) or FAILURE
        task_id = properties.get("correlation_id") or ""
        if task_id not in self._sent:
            task_id = _named_in(payload) or task_id
        if status in READY_STATES:
            self._sent.pop(task_id, None)
        return Outcome(task_id, status, payload, self._expires(properties), self.address)

    def _expires(self, properties: dict[str, Any]) -> float:
        told = properties.get("expiration", "")
        if told.isdigit():
            return clock.now() + int(told) / 1000
        life = self._options.expires
        return clock.now() + life if life else 0.0

    # --- the end

    def close(self, patience: float = 5.0) -> None:
        """Delete the queue: nobody else can read it. What was kept is dropped."""
        self.closed = True
        for listener in list(self.listeners):
            listener.wake()
        if not self.reading.acquire(timeout=patience):
            return
        try:
            link = self._link
            if link is not None and link.is_usable():
                link.calls(link.ready(_CHANNEL), [(m.QUEUE_DELETE, self.address, *[False] * 3)])
        except (OperationalError, Refused):
            pass  # it expires
        finally:
            self._drop()
            self.reading.release()

    def leave(self) -> None:
        """In the child after a fork: it is the parent's."""
        self.closed = True
        link, self._link = self._link, None
        if link is not None:
            link.close()


def _named_in(payload: bytes) -> str:
    """The task that a document is of, for those whose correlation id is another's."""
    try:
        found = decode(payload, import_modules=False)["task_id"]
    except DecodeError:
        return ""
    return found if isinstance(found, str) else ""


def is_readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read within that time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
