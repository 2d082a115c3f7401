"""The header of a message: its properties, one of which is the table of headers.

Properties are told by flags, in a fixed order (AMQP 0-9-1, section 4.2.6.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.tables import decode_table, encode_table
from chervil.exceptions import DecodeError, EncodeError
from chervil.wire.message import Message
from chervil.wire.saferepr import saferepr

_FLAGS: Final = Struct(">H")
_LONGLONG: Final = Struct(">Q")
_START: Final = Struct(">HHQ")
#: Class ``basic``, weight 0.
_CLASS: Final = 60
#: Flag, name and kind: S short text, F table, o 8 bits, T time.
_FIELDS: Final = (
    (0x8000, "content_type", "S"),
    (0x4000, "content_encoding", "S"),
    (0x2000, "headers", "F"),
    (0x1000, "delivery_mode", "o"),
    (0x0800, "priority", "o"),
    (0x0400, "correlation_id", "S"),
    (0x0200, "reply_to", "S"),
    (0x0100, "expiration", "S"),
    (0x0080, "message_id", "S"),
    (0x0040, "timestamp", "T"),
    (0x0020, "type", "S"),
    (0x0010, "user_id", "S"),
    (0x0008, "app_id", "S"),
    (0x0004, "cluster_id", "S"),
)

#: How often a message was delivered before it was stored anew; ours.
DELIVERIES: Final = "chervil-deliveries"
#: The same for what a quorum queue counts; the server's.
SERVER_COUNT: Final = "x-delivery-count"
#: Headers of the server about what became of a message so far. One that is sent anew with
#: them could be taken for one that goes round in circles, and be dropped
#: (https://www.rabbitmq.com/docs/dlx#automatic-dead-letter-cycles).
_HISTORY: Final = (
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-acquired-count",
    SERVER_COUNT,
)


def is_history(name: str) -> bool:
    """Whether a header tells what became of a message before."""
    return name.startswith(_HISTORY) or name == DELIVERIES


def encode_properties(properties: Mapping[str, Any]) -> bytes:
    """Flags and values; names that AMQP does not have are left out, as kombu does.

    :raises EncodeError: a value is not of the property's type, or too long.
    """
    flags = 0
    parts: list[bytes] = []
    for flag, name, kind in _FIELDS:
        value = properties.get(name)
        if value is None:
            continue
        flags |= flag
        try:
            if kind == "S":
                parts.append(m.short_text(value if type(value) is str else str(value)))
            elif kind == "F":
                parts.append(encode_table(value))
            elif kind == "o":
                parts.append(bytes((int(value),)))
            else:
                parts.append(_LONGLONG.pack(_seconds(value)))
        except (TypeError, ValueError, StructError) as exc:
            raise EncodeError(
                f"the property {name} cannot be {saferepr(value, 80)}: {exc}"
            ) from None
    return _FLAGS.pack(flags) + b"".join(parts)


def _seconds(value: Any) -> int:
    return int(value.timestamp()) if isinstance(value, datetime) else int(value)


def decode_properties(header: bytes) -> dict[str, Any]:
    """The properties by name; the table is ``headers``.

    :raises DecodeError: they are damaged.
    """
    found: dict[str, Any] = {}
    try:
        (flags,) = _FLAGS.unpack_from(header)
        place = 2
        for flag, name, kind in _FIELDS:
            if not flags & flag:
                continue
            if kind == "S":
                start = place + 1
                place = start + header[place]
                found[name] = header[start:place].decode("utf-8", "surrogatepass")
            elif kind == "F":
                found[name], place = decode_table(header, place)
            elif kind == "o":
                found[name] = header[place]
                place += 1
            else:
                found[name] = datetime.fromtimestamp(_LONGLONG.unpack_from(header, place)[0], UTC)
                place += 8
    except (StructError, IndexError, ValueError, OverflowError, OSError) as exc:
        raise DecodeError(f"the properties of a message are damaged: {exc}") from None
    return found


# --- messages to be sent -------------------------------------------------------------------


def of_message(message: Message, delayed: bool = False) -> bytes:
    """The properties of a message that a client sends, as Celery sets them.

    :param delayed: it waits in queues where an expiration would end the wait instead.
    :raises EncodeError: a header has no form in AMQP.
    """
    headers = message.headers
    if not _NO_HISTORY.isdisjoint(headers):
        headers = {key: value for key, value in headers.items() if not is_history(key)}
    properties = {
        "correlation_id": headers.get("id"),
        "reply_to": message.reply_to,
        "delivery_mode": 2,
        **message.properties,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "headers": headers,
        "priority": min(max(message.priority, 0), 255),
    }
    if delayed:
        properties.pop("expiration", None)
    return encode_properties(properties)


#: Those that no message has a history without.
_NO_HISTORY: Final = frozenset({"x-death", SERVER_COUNT, DELIVERIES, "x-acquired-count"})


def frames(
    properties: bytes,
    body: bytes,
    exchange: str,
    routing_key: str,
    frame_max: int,
    channel: int = 1,
    mandatory: bool = True,
) -> bytes:
    """Everything that publishes a message.

    :param properties: as :func:`encode_properties` makes them.
    :param frame_max: of the connection, in bytes.
    :raises EncodeError: exchange or routing key are too long, or the properties are.
    """
    if len(properties) + 20 > frame_max:
        raise EncodeError(
            f"the headers of a message have {len(properties)} bytes; RabbitMQ takes {frame_max} "
            "(its frame_max)"
        )
    method = b"%b\0\0%b%b%c" % (
        m.BASIC_PUBLISH.id,
        m.short_text(exchange),
        m.short_text(routing_key),
        mandatory,
    )
    head = m.FRAME.pack(m.METHOD, channel, len(method)) + method + m.END
    head += m.FRAME.pack(m.HEADER, channel, len(properties) + 12)
    head += _START.pack(_CLASS, 0, len(body)) + properties + m.END
    size = len(body)
    if size + 8 <= frame_max:
        if not size:
            return head
        return b"%b%b%b\xce" % (head, m.FRAME.pack(m.BODY, channel, size), body)
    most = frame_max - 8
    parts = [body[start : start + most] for start in range(0, size, most)]
    return head + b"".join([m.frame(m.BODY, channel, part) for part in parts])
