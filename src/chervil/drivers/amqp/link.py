"""One connection to RabbitMQ.

A thin layer over a socket: every microsecond here is paid for each message. Of a client
library only the protocol would be needed, and that is little (see ``methods``, ``tables``
and ``reading``): a node wants one descriptor to wait on, reads that do not block, and
acknowledgements for a whole batch in one write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from chervil import clock
from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.connecting import Session, open_session
from chervil.drivers.amqp.location import Location, Server
from chervil.drivers.amqp.reading import Content, Reader
from chervil.drivers.amqp.transport import Transport
from chervil.drivers.amqp.trouble import Refused
from chervil.exceptions import DecodeError, OperationalError

#: Messages, and bytes, that are sent before their confirmations are awaited.
_AT_ONCE: Final = 1000
_BYTES_AT_ONCE: Final = 4 << 20
#: Seconds that the server may take to say goodbye.
_GOODBYE: Final = 1.0

#: Of several servers, the one that was there last.
_last_good: dict[Location, Server] = {}


class Failures(msgspec.Struct):
    """The messages of one :meth:`Link.publish` that are not stored."""

    #: Their places among those that were given: a queue was full, or failed.
    refused: list[int] = []
    #: Those that lead to no queue, as they came back; only of what was ``mandatory``.
    returned: list[Content] = []

    def __bool__(self) -> bool:
        return bool(self.refused or self.returned)


class Link(Transport):
    """A connection. Not for several threads at once, except for :meth:`beat`,
    :meth:`is_silent` and :meth:`sever`.

    Channels are numbers; 1 is open from the start. What a server refuses closes the
    channel (:class:`~chervil.drivers.amqp.trouble.Refused`), which :meth:`ready` opens
    again; the other channels and the connection stay.

    :param error: what is raised when no server can be reached or none answers in time; the
        link is closed then.
    :param label: what the server's lists of connections call it.
    :param heartbeat: seconds of silence after which both sides take the other for dead; 0:
        never. Who asks for one calls :meth:`beat` at least as often.
    :param confirm: have the server confirm what is published on channel 1.
    :raises OperationalError: (of that class) no server can be reached.
    """

    def __init__(
        self,
        location: Location,
        error: type[OperationalError],
        label: str = "chervil",
        heartbeat: int = 0,
        confirm: bool = False,
    ) -> None:
        super().__init__(location, error)
        #: Messages that arrived and that nobody has taken yet; see :meth:`take`.
        self.arrived: list[Content] = []
        #: Tags of consumers that the server ended, mostly because their queue is gone.
        self.cancelled: list[str] = []
        self._answers: list[tuple[int, bytes, tuple[Any, ...]]] = []
        self._channels: set[int] = set()
        self._refused: dict[int, Refused] = {}
        #: Of messages that are not confirmed: tag -> place in the batch.
        self._unconfirmed: dict[int, int] = {}
        self._failures = Failures()
        self._published = 0
        #: What was agreed on when it was opened.
        self.session: Session
        self._begin(label, heartbeat)
        try:
            self.open_channel(1, confirm)
        except BaseException:
            self._drop()
            raise

    def _begin(self, label: str, heartbeat: int) -> None:
        """With the server that was there last, or else the first one that is there."""
        location = self.location
        last = _last_good.get(location)
        servers = sorted(location.servers, key=lambda server: server is not last)
        errors: list[OperationalError] = []
        for server in servers:
            try:
                self._begin_at(server, label, heartbeat)
            except OperationalError as exc:
                errors.append(exc)
            else:
                if len(servers) > 1:
                    _last_good[location] = server
                return
        if len(errors) == 1:
            raise errors[0]
        raise self.error("; ".join(map(str, errors))) from errors[0]

    def _begin_at(self, server: Server, label: str, heartbeat: int) -> None:
        self._open(server)
        self.reader = Reader()
        try:
            self.session = open_session(self, label, heartbeat)
        except BaseException:
            self._drop()
            raise

    # --- calls

    def open_channel(self, channel: int, confirm: bool = False) -> None:
        """Open a channel, also one that the server closed.

        :param confirm: have the server confirm what is published there.
        """
        self._refused.pop(channel, None)
        calls: list[tuple[Any, ...]] = [(m.CHANNEL_OPEN,)]
        if confirm:
            calls.append((m.CONFIRM_SELECT, False))
            self._published = 0
        self.calls(channel, calls)
        self._channels.add(channel)

    def close_channel(self, channel: int) -> None:
        """Close a channel; what is not acknowledged there goes back to its queues."""
        if channel in self._channels and channel not in self._refused:
            self.call(channel, m.CHANNEL_CLOSE, 200, "", 0, 0)
        self._channels.discard(channel)
        self._refused.pop(channel, None)
        self.arrived = [content for content in self.arrived if content.channel != channel]

    def ready(self, channel: int, confirm: bool = False) -> int:
        """The channel, which is open now."""
        if channel not in self._channels or channel in self._refused:
            self.open_channel(channel, confirm)
        return channel

    def is_closed(self, channel: int) -> Refused | None:
        """Why the server closed a channel; None when it is open."""
        return self._refused.get(channel)

    def call(self, channel: int, method: m.Method, *arguments: Any) -> tuple[Any, ...]:
        """A method and the arguments of its answer.

        :raises Refused: the server closed the channel over it.
        """
        return self.calls(channel, [(method, *arguments)])[0]

    def calls(self, channel: int, calls: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Several methods in one write, and the arguments of their answers.

        :param calls: each a method and its arguments.
        :raises Refused: the server closed the channel over one of them; those before it were
            carried out, those after it were not.
        """
        self.send(b"".join(m.pack(channel, *call) for call in calls))
        return [self._answer(channel, call[0].answer) for call in calls]

    def consume(
        self,
        channel: int,
        queue: str,
        tag: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Have the messages of a queue sent here; see :meth:`take`.

        :raises Refused: there is no such queue, or it is somebody's own.
        """
        self.call(
            channel, m.BASIC_CONSUME, queue, tag, False, no_ack, exclusive, False, arguments or {}
        )

    def get_some(self, channel: int, queue: str, count: int) -> list[Content]:
        """Up to that many messages of a queue; fewer when it has no more.

        :raises Refused: there is no such queue.
        """
        self.send(m.pack(channel, m.BASIC_GET, queue, False) * count)
        deadline = clock.monotonic() + self.location.socket_timeout
        found, empty = list[Content](), 0
        while len(found) + empty < count:
            others: list[Content] = []
            for content in self.take():
                mine = content.channel == channel and content.method == m.BASIC_GET_OK.id
                (found if mine else others).append(content)
            self.arrived = others
            while self._answered(channel, m.BASIC_GET_EMPTY.id) is not None:
                empty += 1
            if len(found) + empty < count:
                self._read_until(deadline)
        return found

    def _answer(self, channel: int, code: bytes) -> tuple[Any, ...]:
        deadline = clock.monotonic() + self.location.socket_timeout
        while (found := self._answered(channel, code)) is None:
            self._read_until(deadline)
        return found

    def _answered(self, channel: int, code: bytes) -> tuple[Any, ...] | None:
        answers = self._answers
        for place, (where, what, arguments) in enumerate(answers):
            if where == channel and what == code:
                del answers[place]
                return arguments
        refused = self._refused.get(channel)
        if refused is not None:
            raise refused
        return None

    def hear(self, *codes: bytes) -> tuple[bytes, tuple[Any, ...]]:
        """The next of these methods of the connection itself (channel 0)."""
        deadline = clock.monotonic() + self.location.socket_connect_timeout
        while True:
            for code in codes:
                found = self._answered(0, code)
                if found is not None:
                    return code, found
            self._read_until(deadline)

    # --- messages

    def publish(self, messages: Sequence[bytes], channel: int = 1) -> Failures:
        """Send messages and wait until the server has confirmed each of them.

        :param messages: the frames of each for that channel, which is open with ``confirm``.
        :returns: those that were not taken.
        :raises OperationalError: the connection broke or the server took too long: nothing
            is known of those that are not confirmed.
        :raises Refused: the server closed the channel, as for an exchange that is missing.
        """
        self._failures = Failures([], [])
        self._unconfirmed.clear()
        if len(messages) == 1:
            self._send_batch(messages, 0, channel)
            return self._failures
        first = size = 0
        for place, message in enumerate(messages):
            size += len(message)
            if place - first == _AT_ONCE or (size > _BYTES_AT_ONCE and place > first):
                self._send_batch(messages[first:place], first, channel)
                first, size = place, len(message)
        self._send_batch(messages[first:], first, channel)
        return self._failures

    def _send_batch(self, messages: Sequence[bytes], first: int, channel: int) -> None:
        start = self._published + 1
        self._published += len(messages)
        unconfirmed = self._unconfirmed
        for place in range(len(messages)):
            unconfirmed[start + place] = first + place
        self.send(messages[0] if len(messages) == 1 else b"".join(messages))
        deadline = clock.monotonic() + self.location.socket_timeout
        while unconfirmed:
            refused = self._refused.get(channel)
            if refused is not None:
                raise refused
            self._read_until(deadline)

    def unconfirmed(self) -> set[int]:
        """Places of the messages of the last :meth:`publish` of which nothing is known."""
        return set(self._unconfirmed.values())

    def take(self) -> list[Content]:
        """What has arrived since the last call."""
        arrived, self.arrived = self.arrived, []
        return arrived

    def wait_for(self, condition: Callable[[], Any]) -> None:
        """Read until something is true.

        :raises OperationalError: it did not become true in time.
        """
        deadline = clock.monotonic() + self.location.socket_timeout
        while not condition():
            self._read_until(deadline)

    # --- what arrives

    def _feed(self, data: bytes) -> None:
        if not data:
            raise self.lost(None)
        self.heard_at = clock.monotonic()
        reader = self.reader
        try:
            reader.feed(data)
        except DecodeError as exc:
            self._drop()
            raise self.error(f"{self.server.name} does not speak AMQP 0-9-1: {exc}") from None
        if reader.arrived:
            self._on_messages(reader.arrived)
            reader.arrived = []
        if reader.heard:
            heard, reader.heard = reader.heard, []
            for one in heard:
                self._on_method(*one)

    def _on_messages(self, arrived: list[Content]) -> None:
        if not self._unconfirmed:
            self.arrived += arrived
            return
        for content in arrived:
            if content.method == m.BASIC_RETURN.id:
                self._failures.returned.append(content)
            else:
                self.arrived.append(content)

    def _on_method(self, channel: int, code: bytes, arguments: tuple[Any, ...]) -> None:
        if code == m.BASIC_ACK.id or code == m.BASIC_NACK.id:
            self._on_confirmation(code == m.BASIC_NACK.id, arguments[0], arguments[1])
        elif code == m.CHANNEL_CLOSE.id:
            self._refused[channel] = _refusal(arguments)
            self.reader.forget(channel)
            self.send(m.pack(channel, m.CHANNEL_CLOSE_OK))
        elif code == m.CONNECTION_CLOSE.id:
            refusal = _refusal(arguments)
            try:
                self.send(m.pack(0, m.CONNECTION_CLOSE_OK))
            except OperationalError:
                pass  # it is closed anyhow
            self._drop()
            raise self.refused(refusal)
        elif code == m.CONNECTION_BLOCKED.id:
            self.blocked = arguments[0] or "no reason given"
        elif code == m.CONNECTION_UNBLOCKED.id:
            self.blocked = ""
        elif code == m.BASIC_CANCEL.id:
            self.cancelled.append(arguments[0])
        else:
            self._answers.append((channel, code, arguments))

    def _on_confirmation(self, refused: bool, tag: int, multiple: bool) -> None:
        unconfirmed = self._unconfirmed
        if multiple:
            places = [unconfirmed.pop(one) for one in list(unconfirmed) if one <= tag]
        else:
            place = unconfirmed.pop(tag, None)
            places = [] if place is None else [place]
        if refused:
            self._failures.refused += places

    # --- trouble

    def refused(self, refusal: Refused) -> OperationalError:
        """The error for what the server refused."""
        return self.error(f"RabbitMQ at {self.server.name} {refusal}")

    def is_usable(self) -> bool:
        """Whether it can be used for a new command, as far as is known here."""
        if self.is_inherited() or not self.open:
            return False
        if not self.readable():
            return True
        try:
            self.pump()  # the end, or news such as ``connection.blocked``
        except OperationalError:
            return False
        return True

    def close(self) -> None:
        """Say goodbye and close it; doing it again changes nothing."""
        if not self.open:
            return
        if not self.is_inherited():  # else it is the parent's
            self._say_goodbye()
        self._drop()

    def _say_goodbye(self) -> None:
        """The server gives back what is not acknowledged before it answers."""
        try:
            self.send(m.pack(0, m.CONNECTION_CLOSE, 200, "", 0, 0))
            deadline = clock.monotonic() + _GOODBYE
            while (left := deadline - clock.monotonic()) > 0 and self._wait(left):
                self.pump()
                self.arrived.clear()
                if any(code == m.CONNECTION_CLOSE_OK.id for _, code, _ in self._answers):
                    return
        except OperationalError:
            pass  # it was no longer there


def _refusal(arguments: tuple[Any, ...]) -> Refused:
    code, text, class_id, method_id = arguments
    return Refused(code, text, class_id.to_bytes(2, "big") + method_id.to_bytes(2, "big"))
