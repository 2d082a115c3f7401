"""Tasks that must not run: the stream ``chervil.revoked``.

A stream keeps what was written until it is too old, and everyone can read it from its
beginning. So each consumer reads all of it when it starts, and what is added afterwards as
it comes (https://www.rabbitmq.com/docs/streams).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

import msgspec

from chervil import clock
from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.delays import Call
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.location import Location
from chervil.drivers.amqp.pool import ASKING, PUBLISHING
from chervil.drivers.amqp.properties import encode_properties, frames
from chervil.drivers.amqp.reading import Content
from chervil.drivers.amqp.trouble import Refused
from chervil.exceptions import ImproperlyConfigured
from chervil.ids import new_id

logger = logging.getLogger("chervil.worker")
STREAM: Final = "chervil.revoked"
#: Ids in one message.
_AT_ONCE: Final = 1000
#: What is too old goes in pieces of that many bytes.
_SEGMENT: Final = 1_000_000
#: Messages that the server sends before one is acknowledged.
_WINDOW: Final = 200
#: The channel of a publisher's connection on which it is read once.
_READING: Final = 3
_PROPERTIES: Final = encode_properties({"content_type": "application/json", "delivery_mode": 2})


class _Record(msgspec.Struct):
    """What a message of the stream says; one without ids only marks a place in it."""

    ids: list[str] = []
    expires: float = 0.0
    mark: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Record).decode


class Revocations:
    """Writes to the stream."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def declaration(self) -> Call:
        """The call that makes sure that the stream is there."""
        arguments = {
            "x-queue-type": "stream",
            "x-max-age": f"{self._location.revocations_kept}s",
            "x-stream-max-segment-size-bytes": _SEGMENT,
        }
        return (m.QUEUE_DECLARE, STREAM, False, True, False, False, False, arguments)

    def send(self, link: Link, ids: Iterable[str], expires: float) -> None:
        """Write ids that must not run until the Unix time ``expires``.

        :raises ImproperlyConfigured: the server has no streams, or keeps them too short.
        """
        kept = self._location.revocations_kept
        if expires > clock.now() + kept + 1:
            raise ImproperlyConfigured(
                f"revocations are kept for {kept} s (option revocations_kept of "
                f"{self._location.name}), which is less than was asked for"
            )
        wanted = list(ids)
        records = [
            _Record(wanted[start : start + _AT_ONCE], expires)
            for start in range(0, len(wanted), _AT_ONCE)
        ]
        self._declare(link)
        self._publish(link, records)

    def mark(self, link: Link) -> str:
        """Write a mark: who has read it has read all that was written before."""
        record = _Record(mark=new_id())
        self._publish(link, [record])
        return record.mark

    def _declare(self, link: Link) -> None:
        try:
            link.calls(link.ready(ASKING), [self.declaration()])
        except Refused as exc:
            raise ImproperlyConfigured(
                f"RabbitMQ at {link.server.name} has no stream {STREAM!r} for revocations: {exc}; "
                "streams are there from RabbitMQ 3.9 on"
            ) from exc

    def _publish(self, link: Link, records: Iterable[_Record]) -> None:
        frame_max = link.session.frame_max
        packed = [frames(_PROPERTIES, _encode(r), "", STREAM, frame_max) for r in records]
        if packed and link.publish(packed, link.ready(PUBLISHING, confirm=True)):
            raise link.error(f"RabbitMQ at {link.server.name} did not store the revocations")


class Revoked:
    """Reads the stream, on a channel of a consumer's connection.

    :param channel: its number; it is used for nothing else.
    """

    def __init__(self, channel: int) -> None:
        self._channel = channel
        #: id -> Unix time until which it counts.
        self._until: dict[str, float] = {}
        self._marks: set[str] = set()
        self.following = False

    def __bool__(self) -> bool:
        return bool(self._until)

    def __contains__(self, task_id: str) -> bool:
        until = self._until.get(task_id)
        return until is not None and until > clock.now()

    def follow(self, link: Link, writer: Revocations) -> None:
        """Start to read; the server says what is refused, once, in the log."""
        try:
            link.ready(self._channel)
            link.calls(self._channel, [writer.declaration(), (m.BASIC_QOS, 0, _WINDOW, False)])
            link.consume(self._channel, STREAM, "revoked", arguments={"x-stream-offset": "first"})
            self.following = True
        except Refused as exc:
            logger.warning(
                "RabbitMQ at %s has no stream %r, so that tasks cannot be revoked: %s",
                link.server.name,
                STREAM,
                exc,
            )

    def has_read(self, mark: str) -> bool:
        """Whether everything in front of that mark was read."""
        return mark in self._marks

    def take(self, link: Link, contents: Iterable[Content]) -> None:
        """Read what arrived on this channel."""
        last = 0
        now = clock.now()
        for content in contents:
            last = content.tag()[0]
            try:
                record = _decode(content.body)
            except msgspec.MsgspecError:
                logger.error("Something in the stream %r is not ours: %r", STREAM, content.body)
                continue
            if record.mark:
                self._marks.add(record.mark)
            if record.expires > now:
                self._until.update(dict.fromkeys(record.ids, record.expires))
        if last:
            link.send(m.pack(self._channel, m.BASIC_ACK, last, True))

    def forget_old(self) -> None:
        """Drop what does not count any more."""
        now = clock.now()
        for task_id in [one for one, until in list(self._until.items()) if until <= now]:
            self._until.pop(task_id, None)

    def ids(self) -> list[str]:
        """Those that count now, oldest first."""
        now = clock.now()
        return [one for one, until in self._until.items() if until > now]


def stored(link: Link, writer: Revocations, limit: int) -> list[str]:
    """Read the stream once: up to that many ids that must not run, the last ones.

    :raises OperationalError: (of the link's class) it could not be read.
    """
    reader = Revoked(_READING)
    try:
        reader.follow(link, writer)
        if not reader.following:
            return []
        mark = writer.mark(link)
        while not reader.has_read(mark):
            link.wait_for(lambda: link.arrived or link.is_closed(_READING))
            refused = link.is_closed(_READING)
            if refused is not None:
                raise refused
            reader.take(link, link.take())
    finally:
        if link.open:
            link.close_channel(_READING)
    return reader.ids()[-limit:]
