"""Tables of AMQP 0-9-1: headers, and arguments of queues, exchanges and bindings.

Values are written in the types that Celery's client writes, and all types that RabbitMQ
knows are read (https://www.rabbitmq.com/amqp-0-9-1-errata#section_3).
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from chervil.exceptions import DecodeError, EncodeError
from chervil.wire.saferepr import saferepr

_LONG: Final = Struct(">I")
_TYPE_AND_LONG: Final = Struct(">cI")
_TYPE_AND_INT: Final = Struct(">ci")
_TYPE_AND_INT64: Final = Struct(">cq")
_TYPE_AND_DOUBLE: Final = Struct(">cd")
_TYPE_AND_TIME: Final = Struct(">cQ")
_TYPE_AND_DECIMAL: Final = Struct(">cBi")
#: Bytes that a name in a table, and any short text, has at most.
LONGEST: Final = 255
#: Names with their lengths.
_names: dict[str, bytes] = {}
_MOST_NAMES: Final = 1000


def encode_table(values: Mapping[str, Any]) -> bytes:
    """A table with its length in front.

    :raises EncodeError: a value has no form in a table.
    """
    parts: list[bytes] = []
    names, form = _names, _TYPE_AND_LONG
    for key, value in values.items():
        parts.append(names.get(key) or _name(key))
        if value is None:
            parts.append(b"V")
        elif type(value) is str:
            data = value.encode("utf-8", "surrogatepass")
            parts.append(form.pack(b"S", len(data)))
            parts.append(data)
        else:
            parts.append(encode_value(value))
    whole = b"".join(parts)
    return _LONG.pack(len(whole)) + whole


def _name(key: str) -> bytes:
    name = key.encode("utf-8", "surrogatepass")
    if len(name) > LONGEST:
        raise EncodeError(f"the name of a header has {len(name)} bytes, {LONGEST} are the most")
    if len(_names) >= _MOST_NAMES:
        _names.clear()
    encoded = _names[key] = b"%c%b" % (len(name), name)
    return encoded


def encode_value(value: Any) -> bytes:
    """A value with its type in front.

    :raises EncodeError: it has no form in a table.
    """
    if value is None:
        return b"V"
    encode = _ENCODERS.get(type(value)) or _encoder_for(value)
    try:
        return encode(value)
    except (StructError, OverflowError) as exc:
        raise EncodeError(f"{saferepr(value, 120)} does not fit into a header: {exc}") from None


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return _TYPE_AND_LONG.pack(b"S", len(data)) + data


def _bytes(value: bytes) -> bytes:
    return _TYPE_AND_LONG.pack(b"S", len(value)) + value


def _truth(value: bool) -> bytes:
    return b"t\x01" if value else b"t\x00"


def _whole(value: int) -> bytes:
    if -2147483647 <= value <= 2147483647:
        return _TYPE_AND_INT.pack(b"I", value)
    return _TYPE_AND_INT64.pack(b"L", value)


def _float(value: float) -> bytes:
    return _TYPE_AND_DOUBLE.pack(b"d", value)


def _decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent > 0:
        raise EncodeError(f"the decimal {value} has no form in a header")
    number = int("".join(map(str, digits)))
    return _TYPE_AND_DECIMAL.pack(b"D", -exponent, -number if sign else number)


def _time(value: datetime) -> bytes:
    return _TYPE_AND_TIME.pack(b"T", calendar.timegm(value.utctimetuple()))


def _map(value: Mapping[str, Any]) -> bytes:
    return b"F" + encode_table(value)


def _list(value: list[Any] | tuple[Any, ...]) -> bytes:
    whole = b"".join(map(encode_value, value))
    return _TYPE_AND_LONG.pack(b"A", len(whole)) + whole


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    str: _text,
    bytes: _bytes,
    bool: _truth,
    int: _whole,
    float: _float,
    Decimal: _decimal,
    datetime: _time,
    dict: _map,
    list: _list,
    tuple: _list,
}


def _encoder_for(value: Any) -> Callable[[Any], bytes]:
    for known, encode in _ENCODERS.items():
        if isinstance(value, known):
            return encode
    if isinstance(value, Mapping):
        return _map
    raise EncodeError(
        f"{saferepr(value, 120)} of type {type(value).__name__} has no form in a header; text, "
        "numbers, truth values, None, times, lists and maps have"
    )


# --- reading -----------------------------------------------------------------------------------


def decode_table(data: bytes, start: int = 0) -> tuple[dict[str, Any], int]:
    """A table and the place behind it.

    :raises DecodeError: it is damaged.
    """
    try:
        return _read_table(data, start)
    except (StructError, IndexError, ValueError, RecursionError) as exc:
        raise DecodeError(f"a damaged table in a message: {exc}") from None


def _read_table(data: bytes, place: int) -> tuple[dict[str, Any], int]:
    (size,) = _LONG.unpack_from(data, place)
    place += 4
    end = place + size
    if end > len(data):
        raise ValueError("it ends too early")
    found: dict[str, Any] = {}
    while place < end:
        start = place + 1
        place = start + data[place]
        key = data[start:place].decode("utf-8", "surrogatepass")
        found[key], place = _read_value(data, place)
    return found, end


def _read_value(data: bytes, place: int) -> tuple[Any, int]:
    kind = data[place]
    place += 1
    if kind == 0x53 or kind == 0x78:  # S, x
        (size,) = _LONG.unpack_from(data, place)
        place += 4
        raw = data[place : place + size]
        if len(raw) != size:
            raise ValueError("it ends too early")
        return _as_text(raw, kind), place + size
    if kind == 0x56:  # V
        return None, place
    if kind == 0x46:  # F
        return _read_table(data, place)
    if kind == 0x41:  # A
        return _read_list(data, place)
    if kind == 0x44:  # D
        scale, number = data[place], _INT.unpack_from(data, place + 1)[0]
        return Decimal(number).scaleb(-scale), place + 5
    if kind == 0x54:  # T
        return datetime.fromtimestamp(_INT64.unpack_from(data, place)[0], UTC), place + 8
    form = _FORMS.get(kind)
    if form is None:
        raise ValueError(f"a value of the unknown type {bytes([kind])!r}")
    (value,) = form.unpack_from(data, place)
    return value, place + form.size


def _as_text(raw: bytes, kind: int) -> str | bytes:
    if kind == 0x78:
        return raw
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return raw


def _read_list(data: bytes, place: int) -> tuple[list[Any], int]:
    (size,) = _LONG.unpack_from(data, place)
    place += 4
    end = place + size
    if end > len(data):
        raise ValueError("it ends too early")
    found = []
    while place < end:
        value, place = _read_value(data, place)
        found.append(value)
    return found, end


_INT: Final = Struct(">i")
_INT64: Final = Struct(">q")
#: What has a fixed size; the letters are RabbitMQ's, not the standard's.
_FORMS: Final = {
    ord("t"): Struct(">?"),
    ord("b"): Struct(">b"),
    ord("B"): Struct(">B"),
    ord("s"): Struct(">h"),
    ord("u"): Struct(">H"),
    ord("I"): _INT,
    ord("i"): _LONG,
    ord("l"): _INT64,
    ord("L"): _INT64,
    ord("f"): Struct(">f"),
    ord("d"): Struct(">d"),
}
