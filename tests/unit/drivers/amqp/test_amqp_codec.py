"""Tables, methods, properties and frames, beside Celery's client (py-amqp)."""

from __future__ import annotations

import datetime as dt
import struct
from decimal import Decimal
from typing import Any

import amqp.serialization
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.heads import Heads
from chervil.drivers.amqp.properties import (
    DELIVERIES,
    decode_properties,
    encode_properties,
    frames,
)
from chervil.drivers.amqp.reading import Content, Reader
from chervil.drivers.amqp.tables import decode_table, encode_table
from chervil.exceptions import DecodeError, EncodeError
from chervil.wire import jsoncodec

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = TEXT.filter(lambda name: len(name.encode()) < 256)
SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2100, 1, 1)).map(
        lambda time: time.replace(microsecond=0, tzinfo=dt.UTC)
    )
    | st.decimals(-1000, 1000, places=3)
)
VALUES = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
)
TABLES = st.dictionaries(NAMES, VALUES, max_size=8)


@given(TABLES)
def test_tables_come_back(table: dict[str, Any]) -> None:
    data = encode_table(table)
    assert decode_table(b"??" + data + b"!", 2) == (table, 2 + len(data))


@given(TABLES)
def test_tables_are_written_as_celerys_client_does(table: dict[str, Any]) -> None:
    assert encode_table(table) == amqp.serialization.dumps("F", [table])


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"b\xff", -1),
        (b"B\xff", 255),
        (b"s\xff\xfe", -2),
        (b"u\xff\xfe", 65534),
        (b"I\xff\xff\xff\xfe", -2),
        (b"i\xff\xff\xff\xfe", 4294967294),
        (b"l" + struct.pack(">q", -3), -3),
        (b"L" + struct.pack(">q", 3), 3),
        (b"f" + struct.pack(">f", 0.5), 0.5),
        (b"x\0\0\0\x02\xff\0", b"\xff\0"),
        (b"S\0\0\0\x01\xff", b"\xff"),  # not UTF-8
        (b"D\x02" + struct.pack(">i", 314), Decimal("3.14")),
    ],
)
def test_types_that_others_write(raw: bytes, value: Any) -> None:
    table = b"\x01k" + raw
    found, _ = decode_table(struct.pack(">I", len(table)) + table)
    assert found == {"k": value}


@given(st.binary(max_size=60))
def test_damaged_tables_are_an_error(data: bytes) -> None:
    try:
        decode_table(data)
    except DecodeError:
        pass


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**64, Decimal("1E+9")])
def test_what_has_no_form_in_a_table(value: Any) -> None:
    with pytest.raises(EncodeError):
        encode_table({"k": value})


def test_names_that_are_too_long() -> None:
    with pytest.raises(EncodeError, match="255"):
        encode_table({"k" * 256: 1})
    with pytest.raises(EncodeError, match="255"):
        m.short_text("ü" * 128)


def test_methods_come_back() -> None:
    packed = m.pack(3, m.QUEUE_DECLARE, "q", True, False, True, False, True, {"x-a": 1})
    kind, channel, size = m.FRAME.unpack_from(packed)
    assert (kind, channel, size) == (m.METHOD, 3, len(packed) - 8)
    payload = packed[7:-1]
    assert m.unpack(payload[:4], payload) == ("q", True, False, True, False, True, {"x-a": 1})


def test_methods_are_written_as_celerys_client_does() -> None:
    theirs = amqp.serialization.dumps(
        "BssbbbbF", [0, "q", "tag", False, True, False, False, {"x-priority": 3}]
    )
    ours = m.pack_arguments(
        m.BASIC_CONSUME, ("q", "tag", False, True, False, False, {"x-priority": 3})
    )
    assert ours == theirs


def test_properties_come_back() -> None:
    properties = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"a": 1},
        "delivery_mode": 1,
        "priority": 9,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "120000",
        "message_id": "m",
        "timestamp": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "type": "t",
        "user_id": "u",
        "app_id": "a",
        "cluster_id": "x",
    }
    assert decode_properties(encode_properties(properties)) == properties
    assert decode_properties(encode_properties({**properties, "origin": "x"})) == properties
    with pytest.raises(DecodeError):
        decode_properties(encode_properties(properties)[:-3])
    with pytest.raises(EncodeError, match="delivery_mode"):
        encode_properties({"delivery_mode": 300})


# --- frames


def delivered(body: bytes, number: int, frame_max: int = 4096) -> bytes:
    """The frames by which a server delivers a message."""
    properties = encode_properties({"correlation_id": str(number)})
    arguments = m.pack_arguments(m.BASIC_DELIVER, ("tag", number, False, "", "q"))
    published = frames(properties, body, "", "q", frame_max, 7)
    first = m.FRAME.unpack_from(published)[2] + 8
    return m.frame(m.METHOD, 7, m.BASIC_DELIVER.id + arguments) + published[first:]


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 9000), min_size=1, max_size=5),
    st.lists(st.integers(1, 5000), min_size=1, max_size=12),
)
def test_messages_are_read_however_they_are_cut(sizes: list[int], cuts: list[int]) -> None:
    bodies = [bytes([n]) * size for n, size in enumerate(sizes)]
    ack = m.pack(7, m.BASIC_ACK, 5, True)
    data = ack + b"".join(delivered(body, n) for n, body in enumerate(bodies)) + m.HEARTBEAT + ack
    reader = Reader()
    place, number = 0, 0
    while place < len(data):
        step = cuts[number % len(cuts)]
        reader.feed(data[place : place + step])
        place, number = place + step, number + 1
    assert [content.body for content in reader.arrived] == bodies
    assert [content.tag() for content in reader.arrived] == [(n, False) for n in range(len(bodies))]
    assert {content.consumer for content in reader.arrived} == {"tag"}
    assert reader.heard == [(7, m.BASIC_ACK.id, (5, True))] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        m.frame(m.HEADER, 1, b"\0\x3c\0\0" + bytes(8) + b"\0\0"),
        m.frame(m.BODY, 1, b"x"),
        m.frame(m.METHOD, 1, b"\xff\xff\xff\xff"),
        m.frame(m.METHOD, 1, m.BASIC_ACK.id),
    ],
)
def test_what_is_not_amqp(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Reader().feed(data + bytes(100))


def test_headers_that_do_not_fit_into_a_frame() -> None:
    properties = encode_properties({"headers": {"argsrepr": "x" * 5000}})
    with pytest.raises(EncodeError, match="frame_max"):
        frames(properties, b"", "", "q", 4096)


# --- heads


def content_of(properties: dict[str, Any], route: tuple[str, str] = ("", "q")) -> Content:
    arguments = m.pack_arguments(m.BASIC_DELIVER, ("tag", 1, False, *route))
    return Content(1, m.BASIC_DELIVER.id, arguments, encode_properties(properties), b"")


PROPERTIES = st.fixed_dictionaries(
    {"headers": TABLES | st.dictionaries(NAMES, st.none() | TEXT | st.integers(0, 9), max_size=4)},
    optional={
        "content_type": TEXT,
        "delivery_mode": st.integers(1, 2),
        "priority": st.integers(0, 9),
        "correlation_id": TEXT,
        "reply_to": TEXT,
        "expiration": TEXT,
    },
)


@given(st.lists(PROPERTIES, min_size=1, max_size=4))
def test_layouts_change_nothing(several: list[dict[str, Any]]) -> None:
    heads = Heads()
    for properties in several * 2:
        content = content_of(properties)
        once, again = heads.read(content, "q"), Heads().read(content, "q")
        assert jsoncodec.loads(once[0]) == jsoncodec.loads(again[0])
        assert once[1] == again[1]


def test_one_layout_serves_many_messages() -> None:
    heads = Heads()
    for number in range(50):
        headers = {
            "task": f"t{number}",
            "id": f"i{number}",
            "args": f'({number}, "ä%s")',
            "retries": number,
            DELIVERIES: number % 3,
            "none": None,
        }
        head, before = heads.read(content_of({"headers": headers, "priority": 0}), "q")
        del headers[DELIVERIES]
        assert jsoncodec.loads(head)["headers"] == headers
        assert before == number % 3
    assert len(heads._layouts) == 1


def test_layouts_that_never_fit_are_not_learned_for_ever() -> None:
    heads = Heads()
    for number in range(200):
        heads.read(content_of({"headers": {f"name{number}": 1}}), "q")
    assert len(heads._layouts) <= 16
    assert heads._credit < 16
