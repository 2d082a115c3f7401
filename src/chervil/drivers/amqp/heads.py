"""From a message of AMQP to the head that the node reads: JSON, as other brokers keep it.

Reading a table of twenty headers value by value costs more than all else that a delivery
does. But messages are much alike: the same headers in the same order, and what differs
are texts and a few numbers. So the layout of a message is remembered (:class:`_Layout`),
with the JSON that belongs to it; the next one of that layout is checked against it in a
few steps and filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from struct import Struct
from struct import error as StructError
from typing import Any, Final

import msgspec

from chervil.drivers.amqp.properties import (
    DELIVERIES,
    SERVER_COUNT,
    decode_properties,
    is_history,
)
from chervil.drivers.amqp.reading import Content
from chervil.wire import jsoncodec

_LONG: Final = Struct(">I").unpack_from
_NUMBERS: Final = {b"I": Struct(">i"), b"l": Struct(">q")}
#: Texts that stand in JSON as they are.
_plain: Final = re.compile(rb"[ !#-\[\]-~]*").fullmatch
_json: Final = msgspec.json.Encoder().encode
#: Layouts that are remembered.
_MOST: Final = 16
#: What learning a layout costs, and what a message that has a known one earns.
_PRICE: Final = 16
_CREDIT: Final = 256
#: Texts of which there are few, so that they are part of the layout.
_FIXED: Final = frozenset((b"lang", b"content_type"))
#: How the exchanges are called that delayed messages come from.
_DELAYED: Final = ("celery_delayed_", "chervil.delayed")
_MARK: Final = "\x02%d\x03"


def envelope(properties: Mapping[str, Any], exchange: str, routing_key: str) -> dict[str, Any]:
    """What :func:`chervil.wire.envelope.encode_head` writes, from what arrived.

    What the server and this driver noted about earlier deliveries is left out, so that it
    does not get into messages that are made from this one.
    """
    rest = {
        key: value
        for key, value in properties.items()
        if key not in ("content_type", "content_encoding", "headers", "priority")
    }
    headers = properties.get("headers") or {}
    if SERVER_COUNT in headers or DELIVERIES in headers or "x-death" in headers:
        headers = {key: value for key, value in headers.items() if not is_history(key)}
    return {
        "content-encoding": properties.get("content_encoding", "utf-8"),
        "content-type": properties.get("content_type", "application/json"),
        "headers": headers,
        "properties": {
            **rest,
            "delivery_info": {"exchange": exchange, "routing_key": routing_key},
            "priority": properties.get("priority", 0),
        },
    }


def times_delivered(headers: Mapping[str, Any]) -> int:
    """How often a message was delivered before, as far as its headers tell."""
    total = 0
    for name in (DELIVERIES, SERVER_COUNT):
        value = headers.get(name)
        if isinstance(value, int) and value > 0:
            total += value
    return total


class Heads:
    """Makes heads, and learns how to make them faster. Not for several threads at once."""

    def __init__(self) -> None:
        self._layouts: list[_Layout] = []
        self._credit = _CREDIT
        self._routes: dict[tuple[bytes, str], bytes] = {}

    def read(self, content: Content, queue: str) -> tuple[bytes, int]:
        """The head of a message from that queue, and how often its headers say that it was
        delivered before.

        :raises DecodeError: it cannot be read.
        """
        arguments = content.arguments
        raw = arguments[arguments[0] + 10 :]
        route = self._routes.get((raw, queue)) or self._learn_route(content, raw, queue)
        header = content.header
        layouts = self._layouts
        for place, layout in enumerate(layouts):
            found = layout.fill(header, route)
            if found is not None:
                if place:
                    layouts.insert(0, layouts.pop(place))
                if self._credit < _CREDIT:
                    self._credit += 1
                return found
        return self._read_anew(content, route)

    def _read_anew(self, content: Content, route: bytes) -> tuple[bytes, int]:
        properties = decode_properties(content.header)
        headers = properties.get("headers") or {}
        where = msgspec.json.decode(b"{%b}" % route)
        whole = envelope(properties, where["exchange"], where["routing_key"])
        if self._credit >= _PRICE:
            self._credit -= _PRICE
            layout = _learn(content.header, properties)
            if layout is not None:
                self._layouts.insert(0, layout)
                del self._layouts[_MOST:]
        return jsoncodec.dumps(whole), times_delivered(headers)

    def _learn_route(self, content: Content, raw: bytes, queue: str) -> bytes:
        *_, exchange, routing_key = content.fields()
        where = {"exchange": exchange, "routing_key": routing_key}
        if exchange.startswith(_DELAYED):
            where = {"exchange": "", "routing_key": queue}  # the way round does not matter
        route = _json(where)[1:-1]
        if len(self._routes) >= 1000:
            self._routes.clear()
        self._routes[raw, queue] = route
        return route


# --- layouts ------------------------------------------------------------------------------


class _Layout:
    """What messages have in common; the rest are texts and numbers, in this order.

    :param start: what comes before the length of the table.
    :param steps: of each that varies what is in front of it, and its form: None for a text
        with a length of 32 bits, a number's form, or True for a short text.
    :param end: what comes behind the last of them.
    :param template: the JSON, with the route and those that are not counts in it.
    :param counts: which of them are counts of deliveries.
    """

    __slots__ = ("_counts", "_end", "_start", "_steps", "_table", "_template")

    def __init__(
        self,
        start: bytes,
        steps: list[tuple[bytes, Any]],
        end: bytes,
        template: bytes,
        counts: list[int],
    ) -> None:
        self._start = start
        self._table = len(start) + 4
        self._steps = [(before, len(before), form) for before, form in steps]
        self._end = end
        self._template = template
        self._counts = counts

    def fill(self, header: bytes, route: bytes) -> tuple[bytes, int] | None:
        """The head of a message, and its count; None when it has another layout."""
        if not header.startswith(self._start):
            return None
        place = self._table
        values: list[bytes] = []
        try:
            for before, size, form in self._steps:
                if not header.startswith(before, place):
                    return None
                place += size
                if form is None:
                    end = place + 4
                    end += _LONG(header, place)[0]
                    values.append(header[place + 4 : end])
                    place = end
                elif form is True:
                    end = place + 1 + header[place]
                    values.append(header[place + 1 : end])
                    place = end
                else:
                    values.append(b"%d" % form.unpack_from(header, place))
                    place += form.size
        except (StructError, IndexError):
            return None
        if header[place:] != self._end:
            return None
        count = 0
        for number in self._counts:
            count += max(0, int(values.pop(number)))
        if not _plain(b"".join(values)):
            try:
                values = [v if _plain(v) else _json(v.decode())[1:-1] for v in values]
            except UnicodeDecodeError:
                return None
        return self._template % (*values, route), count


def _learn(header: bytes, properties: Mapping[str, Any]) -> _Layout | None:
    """The layout of a message; None when it is too odd to have one."""
    flags, place = header[:2], 2
    if not flags[0] & 0x20:
        return None  # no headers
    marked: dict[str, Any] = dict(properties)
    for flag in (0x80, 0x40):
        if flags[0] & flag:
            place += 1 + header[place]
    start = header[:place]
    found = _Marks(header, place + 4)
    end = place + 4 + _LONG(header, place)[0]
    marked["headers"] = found.table(end, dict(properties["headers"]))
    if found.odd:
        return None
    place += 4
    for flag, name in ((0x10, ""), (0x08, ""), (0x04, "correlation_id"), (0x02, "reply_to")):
        if not flags[0] & flag:
            continue
        if name:
            marked[name] = found.short_text(end)
            end += 1 + header[end]
        else:
            end += 1
    whole = envelope(marked, "", "")
    whole["properties"]["delivery_info"] = {_MARK % -1: 0}
    template = jsoncodec.dumps(whole).replace(b"%", b"%%")
    return _Layout(start, found.steps, header[found.done :], *_template(template, found))


def _template(encoded: bytes, found: _Marks) -> tuple[bytes, list[int]]:
    """The JSON as a template, and which values are counts, the last one first."""
    for number, (_, form) in enumerate(found.steps):
        mark = _json(_MARK % number)
        quoted = b'"%b"' if form is None or form is True else b"%b"
        encoded = encoded.replace(mark, quoted)
    encoded = encoded.replace(_json(_MARK % -1) + b":0", b"%b")
    return encoded, sorted(found.counts, reverse=True)


class _Marks:
    """Goes through a header and puts marks where values are that vary."""

    def __init__(self, header: bytes, place: int) -> None:
        self._header = header
        #: What is behind the value that was marked last.
        self.done = place
        self.steps: list[tuple[bytes, Any]] = []
        self.counts: list[int] = []
        #: Something is there that layouts do not know.
        self.odd = False

    def _mark(self, place: int, behind: int, form: Any) -> str:
        self.steps.append((self._header[self.done : place], form))
        self.done = behind
        return _MARK % (len(self.steps) - 1)

    def short_text(self, place: int) -> str:
        return self._mark(place, place + 1 + self._header[place], True)

    def table(self, end: int, values: dict[str, Any]) -> dict[str, Any]:
        """The values of the table that is there, with marks in them."""
        header, place = self._header, self.done
        while place < end:
            start = place + 1
            place = start + header[place]
            name, kind = header[start:place], header[place : place + 1]
            place += 1
            key = name.decode("utf-8", "surrogatepass")
            if kind == b"S":
                behind = place + 4 + _LONG(header, place)[0]
                if name not in _FIXED:
                    values[key] = self._mark(place, behind, None)
                place = behind
            elif kind in _NUMBERS:
                form = _NUMBERS[kind]
                if is_history(key):
                    self.counts.append(len(self.steps))
                values[key] = self._mark(place, place + form.size, form)
                place += form.size
            elif kind == b"V":
                pass
            elif kind == b"t":
                place += 1
            elif kind in b"FA":
                if is_history(key):
                    self.odd = True
                place += 4 + _LONG(header, place)[0]
            else:
                self.odd = True
                break
        return values
