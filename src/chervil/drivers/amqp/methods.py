"""The methods of AMQP 0-9-1 that this driver sends and understands, as bytes.

Their numbers and arguments are those of the standard with RabbitMQ's extensions
(https://www.rabbitmq.com/amqp-0-9-1-reference).
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Any, Final

import msgspec

from chervil.drivers.amqp.tables import LONGEST, decode_table, encode_table
from chervil.exceptions import DecodeError, EncodeError
from chervil.wire.saferepr import saferepr

METHOD, HEADER, BODY, BEAT = 1, 2, 3, 8
END: Final = b"\xce"
FRAME: Final = Struct(">BHI")
HEARTBEAT: Final = FRAME.pack(BEAT, 0, 0) + END

_SHORT, _LONG, _LONGLONG = Struct(">H"), Struct(">I"), Struct(">Q")


class Method(msgspec.Struct, frozen=True):
    """A method, and what its arguments are: of ``form`` each letter is one.

    o: 8 bits, s: 16, l: 32, L: 64; S: short text; X: long text, as bytes; b: a bit; F: a
    table. An underscore is a reserved field of 16 bits, a hyphen a reserved short text.
    """

    name: str
    id: bytes
    form: str = ""
    #: The method that answers it, where one does.
    answer: bytes = b""


_known: dict[bytes, Method] = {}


def _method(name: str, class_id: int, number: int, form: str = "", answer: int = 0) -> Method:
    code = _SHORT.pack(class_id)
    reply = code + _SHORT.pack(answer) if answer else b""
    method = _known[code + _SHORT.pack(number)] = Method(
        name, code + _SHORT.pack(number), form, reply
    )
    return method


CONNECTION_START = _method("connection.start", 10, 10, "ooFXX")
CONNECTION_START_OK = _method("connection.start-ok", 10, 11, "FSXS")
CONNECTION_SECURE = _method("connection.secure", 10, 20, "X")
CONNECTION_TUNE = _method("connection.tune", 10, 30, "sls")
CONNECTION_TUNE_OK = _method("connection.tune-ok", 10, 31, "sls")
CONNECTION_OPEN = _method("connection.open", 10, 40, "S-b", 41)
CONNECTION_OPEN_OK = _method("connection.open-ok", 10, 41, "-")
CONNECTION_CLOSE = _method("connection.close", 10, 50, "sSss", 51)
CONNECTION_CLOSE_OK = _method("connection.close-ok", 10, 51)
CONNECTION_BLOCKED = _method("connection.blocked", 10, 60, "S")
CONNECTION_UNBLOCKED = _method("connection.unblocked", 10, 61)
CHANNEL_OPEN = _method("channel.open", 20, 10, "-", 11)
CHANNEL_OPEN_OK = _method("channel.open-ok", 20, 11, "X")
CHANNEL_CLOSE = _method("channel.close", 20, 40, "sSss", 41)
CHANNEL_CLOSE_OK = _method("channel.close-ok", 20, 41)
#: exchange, type, passive, durable, auto-delete, internal, no-wait, arguments
EXCHANGE_DECLARE = _method("exchange.declare", 40, 10, "_SSbbbbbF", 11)
EXCHANGE_DECLARE_OK = _method("exchange.declare-ok", 40, 11)
#: exchange, if-unused, no-wait
EXCHANGE_DELETE = _method("exchange.delete", 40, 20, "_Sbb", 21)
EXCHANGE_DELETE_OK = _method("exchange.delete-ok", 40, 21)
#: destination, source, routing key, no-wait, arguments
EXCHANGE_BIND = _method("exchange.bind", 40, 30, "_SSSbF", 31)
EXCHANGE_BIND_OK = _method("exchange.bind-ok", 40, 31)
#: queue, passive, durable, exclusive, auto-delete, no-wait, arguments
QUEUE_DECLARE = _method("queue.declare", 50, 10, "_SbbbbbF", 11)
#: queue, messages, consumers
QUEUE_DECLARE_OK = _method("queue.declare-ok", 50, 11, "Sll")
#: queue, exchange, routing key, no-wait, arguments
QUEUE_BIND = _method("queue.bind", 50, 20, "_SSSbF", 21)
QUEUE_BIND_OK = _method("queue.bind-ok", 50, 21)
#: queue, no-wait
QUEUE_PURGE = _method("queue.purge", 50, 30, "_Sb", 31)
QUEUE_PURGE_OK = _method("queue.purge-ok", 50, 31, "l")
#: queue, if-unused, if-empty, no-wait
QUEUE_DELETE = _method("queue.delete", 50, 40, "_Sbbb", 41)
QUEUE_DELETE_OK = _method("queue.delete-ok", 50, 41, "l")
#: bytes (0), messages, global
BASIC_QOS = _method("basic.qos", 60, 10, "lsb", 11)
BASIC_QOS_OK = _method("basic.qos-ok", 60, 11)
#: queue, consumer tag, no-local, no-ack, exclusive, no-wait, arguments
BASIC_CONSUME = _method("basic.consume", 60, 20, "_SSbbbbF", 21)
BASIC_CONSUME_OK = _method("basic.consume-ok", 60, 21, "S")
#: consumer tag, no-wait
BASIC_CANCEL = _method("basic.cancel", 60, 30, "Sb", 31)
BASIC_CANCEL_OK = _method("basic.cancel-ok", 60, 31, "S")
#: exchange, routing key, mandatory, immediate
BASIC_PUBLISH = _method("basic.publish", 60, 40, "_SSbb")
#: code, text, exchange, routing key
BASIC_RETURN = _method("basic.return", 60, 50, "sSSS")
#: consumer tag, delivery tag, redelivered, exchange, routing key
BASIC_DELIVER = _method("basic.deliver", 60, 60, "SLbSS")
#: queue, no-ack
BASIC_GET = _method("basic.get", 60, 70, "_Sb", 71)
#: delivery tag, redelivered, exchange, routing key, messages
BASIC_GET_OK = _method("basic.get-ok", 60, 71, "LbSSl")
BASIC_GET_EMPTY = _method("basic.get-empty", 60, 72, "-")
#: delivery tag, multiple
BASIC_ACK = _method("basic.ack", 60, 80, "Lb")
#: delivery tag, multiple, requeue
BASIC_NACK = _method("basic.nack", 60, 120, "Lbb")
#: no-wait
CONFIRM_SELECT = _method("confirm.select", 85, 10, "b", 11)
CONFIRM_SELECT_OK = _method("confirm.select-ok", 85, 11)


def name_of(code: bytes) -> str:
    """The name of a method that the server sent."""
    method = _known.get(code)
    return method.name if method else f"the unknown method {code.hex()}"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """A whole frame."""
    return FRAME.pack(kind, channel, len(payload)) + payload + END


def pack(channel: int, method: Method, *arguments: Any) -> bytes:
    """The frame of a method.

    :raises EncodeError: an argument is too long, or a table has a value that has no form.
    """
    return frame(METHOD, channel, method.id + pack_arguments(method, arguments))


def pack_arguments(method: Method, arguments: tuple[Any, ...]) -> bytes:
    """The arguments of a method, without frame and number."""
    parts: list[bytes] = []
    values = iter(arguments)
    bits = bit = 0
    for letter in method.form:
        if letter == "b":
            bits |= bool(next(values)) << bit
            bit += 1
            continue
        if bit:
            parts.append(bytes([bits]))
            bits = bit = 0
        parts.append(_packed(letter, values))
    if bit:
        parts.append(bytes([bits]))
    return b"".join(parts)


def _packed(letter: str, values: Any) -> bytes:
    if letter == "_":
        return b"\0\0"
    if letter == "-":
        return b"\0"
    value = next(values)
    if letter == "S":
        return short_text(value)
    if letter == "F":
        return encode_table(value)
    if letter == "X":
        return _LONG.pack(len(value)) + bytes(value)
    return _NUMBERS[letter].pack(value)


def short_text(value: str) -> bytes:
    """Text with its length in front.

    :raises EncodeError: it has more than 255 bytes.
    """
    data = value.encode("utf-8", "surrogatepass")
    if len(data) > LONGEST:
        raise EncodeError(f"{saferepr(value, 80)} has {len(data)} bytes; AMQP takes 255")
    return b"%c%b" % (len(data), data)


_NUMBERS: Final = {"o": Struct(">B"), "s": _SHORT, "l": _LONG, "L": _LONGLONG}


def unpack(code: bytes, payload: bytes, place: int = 4) -> tuple[Any, ...]:
    """The arguments of a method, reserved ones left out.

    :param place: where they start in the payload.
    :raises DecodeError: it is unknown or damaged.
    """
    method = _known.get(code)
    if method is None:
        raise DecodeError(f"the server sent {name_of(code)}")
    found: list[Any] = []
    bit = 0
    try:
        for letter in method.form:
            if letter == "b":
                found.append(bool(payload[place] >> bit & 1))
                bit += 1
                continue
            if bit:
                place, bit = place + 1, 0
            value, place = _unpacked(letter, payload, place)
            if letter not in "_-":
                found.append(value)
    except (StructError, IndexError) as exc:
        raise DecodeError(f"a damaged {method.name} from the server: {exc}") from None
    return tuple(found)


def _unpacked(letter: str, payload: bytes, place: int) -> tuple[Any, int]:
    if letter in "S-":
        start = place + 1
        place = start + payload[place]
        return payload[start:place].decode("utf-8", "replace"), place
    if letter == "F":
        return decode_table(payload, place)
    if letter == "X":
        (size,) = _LONG.unpack_from(payload, place)
        place += 4
        return payload[place : place + size], place + size
    form = _SHORT if letter == "_" else _NUMBERS[letter]
    (value,) = form.unpack_from(payload, place)
    return value, place + form.size
