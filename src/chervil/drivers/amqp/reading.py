"""From the bytes that a server sends to methods and messages.

A message comes as three kinds of frames: a method, a header with its properties, and its
body in as many frames as it takes. Where the three are there at once, as nearly always,
they are taken at once; this is the busiest loop of a worker on RabbitMQ.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

import msgspec

from chervil.drivers.amqp.methods import BEAT, BODY, HEADER, METHOD, unpack
from chervil.exceptions import DecodeError

_FRAME: Final = Struct(">BHI").unpack_from
_SIZE: Final = Struct(">Q").unpack_from
_TAG: Final = Struct(">Q?").unpack_from
_DELIVER: Final = b"\x00\x3c\x00\x3c"
_GET_OK: Final = b"\x00\x3c\x00\x47"
_RETURN: Final = b"\x00\x3c\x00\x32"
_WITH_CONTENT: Final = frozenset((_DELIVER, _GET_OK, _RETURN))
_KINDS: Final = frozenset((METHOD, HEADER, BODY, BEAT))
#: Channel, method, arguments.
Heard = tuple[int, bytes, tuple[Any, ...]]


class Content(msgspec.Struct, gc=False):
    """A message as it arrived."""

    channel: int
    #: The method that brought it.
    method: bytes
    #: What follows its number: for ``basic.deliver`` from the consumer tag on.
    arguments: bytes
    #: Flags and values of the properties, see :mod:`chervil.drivers.amqp.properties`.
    header: bytes
    body: bytes

    @property
    def consumer(self) -> str:
        """The tag of the consumer it was delivered to."""
        return self.arguments[1 : 1 + self.arguments[0]].decode("utf-8", "replace")

    def fields(self) -> tuple[Any, ...]:
        """The arguments of the method; see :mod:`chervil.drivers.amqp.methods`."""
        return unpack(self.method, self.arguments, 0)

    def tag(self) -> tuple[int, bool]:
        """Of a delivery: its tag, and whether it was delivered before."""
        found: tuple[int, bool] = _TAG(self.arguments, 1 + self.arguments[0])
        return found


class _Partial:
    """A message of which frames are still to come."""

    __slots__ = ("arguments", "chunks", "header", "left", "method")

    def __init__(self, method: bytes, arguments: bytes) -> None:
        self.method = method
        self.arguments = arguments
        self.header: bytes | None = None
        self.chunks: list[bytes] = []
        self.left = 0


class Reader:
    """Takes bytes, and sorts what is in them into :attr:`heard` and :attr:`arrived`."""

    def __init__(self) -> None:
        self._rest = b""
        self._partial: dict[int, _Partial] = {}
        #: Methods without content.
        self.heard: list[Heard] = []
        #: Messages.
        self.arrived: list[Content] = []

    def feed(self, data: bytes) -> None:
        """Take what was read.

        :raises DecodeError: it is not AMQP.
        """
        if self._rest:
            data = self._rest + data
        place, end = 0, len(data)
        while end - place > 7:
            kind, channel, size = _FRAME(data, place)
            start = place + 7
            stop = start + size
            if stop >= end:
                if kind not in _KINDS:
                    raise DecodeError(f"no AMQP frame: {data[place : place + 40]!r}")
                break
            if data[stop] != 0xCE:
                raise DecodeError(f"no AMQP frame: {data[place : place + 40]!r}")
            place = stop + 1
            if kind == METHOD:
                code = data[start : start + 4]
                if code not in _WITH_CONTENT:
                    self.heard.append((channel, code, unpack(code, data[start:stop])))
                    continue
                whole = self._whole(data, place, end, channel, code, start, stop)
                if whole:
                    place = whole
                else:
                    self._partial[channel] = _Partial(code, data[start + 4 : stop])
            elif kind == HEADER:
                self._on_header(channel, data[start:stop])
            elif kind == BODY:
                self._on_body(channel, data[start:stop])
        self._rest = data[place:]

    def _whole(
        self, data: bytes, place: int, end: int, channel: int, code: bytes, start: int, stop: int
    ) -> int:
        """Take a message whose header and only body frame are there; the place behind it."""
        if end - place < 20:
            return 0
        kind, other, size = _FRAME(data, place)
        header = place + 7
        after = header + size + 1
        if kind != HEADER or other != channel or end - after < 7:
            return 0
        (total,) = _SIZE(data, header + 4)
        if not total:
            body = b""
            last: int = after
        else:
            kind, other, size = _FRAME(data, after)
            last = after + size + 8
            if size != total or last > end or kind != BODY or other != channel:
                return 0
            if data[last - 1] != 0xCE:
                raise DecodeError(f"no AMQP frame: {data[after : after + 40]!r}")
            body = data[after + 7 : last - 1]
        self.arrived.append(
            Content(channel, code, data[start + 4 : stop], data[header + 12 : after - 1], body)
        )
        return last

    def _on_header(self, channel: int, payload: bytes) -> None:
        partial = self._partial.get(channel)
        if partial is None or partial.header is not None:
            raise DecodeError(f"a header that belongs to no message, on channel {channel}")
        (partial.left,) = _SIZE(payload, 4)
        partial.header = payload[12:]
        if not partial.left:
            self._finish(channel, partial)

    def _on_body(self, channel: int, payload: bytes) -> None:
        partial = self._partial.get(channel)
        if partial is None or partial.header is None or len(payload) > partial.left:
            raise DecodeError(f"a body that belongs to no message, on channel {channel}")
        partial.chunks.append(payload)
        partial.left -= len(payload)
        if not partial.left:
            self._finish(channel, partial)

    def _finish(self, channel: int, partial: _Partial) -> None:
        del self._partial[channel]
        assert partial.header is not None
        self.arrived.append(
            Content(
                channel,
                partial.method,
                partial.arguments,
                partial.header,
                b"".join(partial.chunks),
            )
        )

    def forget(self, channel: int) -> None:
        """A channel was closed: what is incomplete there never will be whole."""
        self._partial.pop(channel, None)
