"""Heads and envelopes."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chervil.exceptions import DecodeError, EncodeError
from chervil.wire import envelope
from chervil.wire.message import Message

texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=8)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = texts.filter(lambda key: key not in ("reply_to", "priority", "delivery_info", "replyTo"))
messages = st.builds(
    Message,
    headers=st.fixed_dictionaries({"task": texts, "id": texts}).flatmap(
        lambda base: st.dictionaries(names, jsons | st.dates(), max_size=3).map(
            lambda more: {**more, **base}
        )
    ),
    body=st.binary(max_size=30),
    content_type=texts,
    content_encoding=texts,
    queue=texts.filter(bool),
    priority=st.integers(0, 255),
    reply_to=texts,
    exchange=texts,
    routing_key=texts.filter(bool),
    properties=st.fixed_dictionaries(
        {"correlation_id": texts, "delivery_mode": st.sampled_from([1, 2])},
        optional={"app_id": texts, "expiration": st.just("5")},
    ),
)


@settings(max_examples=200)
@given(messages)
def test_round_trip(message: Message) -> None:
    head = envelope.encode_head(message)
    assert envelope.decode(head, message.body, message.queue) == message
    full = envelope.encode_full(message)
    assert envelope.decode(full, queue=message.queue) == message
    if message.headers["id"] or not message.headers["task"]:
        for data in (head, full):
            view = envelope.decode_head(data)
            assert (view.task, view.id) == (message.headers["task"], message.headers["id"])
            assert (view.reply_to, view.priority) == (message.reply_to, message.priority)


def make(**headers: Any) -> Message:
    return Message({"task": "t", "id": "i", **headers}, b"[]", "application/json", "utf-8", "q")


def test_defaults_that_are_written() -> None:
    assert json.loads(envelope.encode_head(make())) == {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "t", "id": "i"},
        "properties": {
            "correlation_id": "i",
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "q"},
            "priority": 0,
        },
    }


class Level(enum.IntEnum):
    HIGH = 9


@settings(max_examples=200)
@given(messages)
def test_what_a_glance_accepts_can_be_read(message: Message) -> None:
    head = envelope.encode_head(message)
    seen = envelope.glance(head)
    if seen is None:
        return
    whole = envelope.decode(head, b"", "q")
    assert (seen.task, seen.id) == (whole.headers["task"], whole.id)
    assert (seen.content_type, seen.content_encoding) == (
        whole.content_type,
        whole.content_encoding,
    )


def test_a_glance_is_enough_for_what_this_package_sends() -> None:
    seen = envelope.glance(envelope.encode_head(make(parent_id="p", ignore_result=True)))
    assert seen is not None
    assert (seen.headers.parent_id, seen.headers.ignore_result) == ("p", True)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"headers": {"task": "t", "id": ""}}',
        b'{"headers": {"task": "t", "id": "i", "odd": "\xff"}}',
        b'{"headers": {"task": "t", "id": "i", "odd": {"__type__": "date", "__value__": "x"}}}',
        b'{"headers": {"task": "t", "id": "i", "odd": NaN}}',
        b'{"headers": {"task": "t", "id": "i", "eta": 5}}',
        b'{"headers": {"task": "t", "id": "i"}, "properties": []}',
        b'{"headers": {"task": "t", "id": "i"}, "properties": {"delivery_info": null}}',
        b'{"headers": {"task": "t", "id": "i"}, "properties": {"priority": "high"}}',
        b'{"headers": {"task": "t", "id": "i"}, "content-type": 5}',
        b"[" * 100_000,
    ],
)
def test_a_glance_leaves_the_odd_to_others(data: bytes) -> None:
    assert envelope.glance(data) is None


def test_headers_that_need_markers() -> None:
    message = make(when=dt.date(2030, 1, 2), level=Level.HIGH, odd="\ud800", n=float("inf"))
    head = envelope.encode_head(message)
    assert envelope.decode(head).headers == {
        **message.headers,
        "level": 9,
        "when": dt.date(2030, 1, 2),
    }
    assert envelope.decode_head(head).task == "t"
    with pytest.raises(EncodeError, match=r"of type builtins\.set"):
        envelope.encode_head(make(x={1}))


def view(headers: Any = None, **rest: Any) -> envelope.Head:
    whole = {"headers": {"task": "t", "id": "i"} if headers is None else headers, **rest}
    return envelope.decode_head(json.dumps(whole).encode())


def test_minimum() -> None:
    head = view()
    assert (head.task, head.id, head.retries, head.eta, head.expires) == ("t", "i", 0, None, None)
    assert head.timelimit == (None, None)
    assert (head.reply_to, head.priority, head.compression) == ("", 0, None)
    assert (head.content_type, head.content_encoding) == ("application/json", "utf-8")
    assert envelope.decode_head(b"{}").task == ""


def test_what_readers_have_to_put_up_with() -> None:
    head = view(
        {
            "task": "t",
            "id": "i",
            "retries": 2.0,
            "timelimit": [30, None],
            "group_index": 1.0,
            "redelivered": None,
            "stamps": None,
            "odd": float("nan"),
        },
        properties={"priority": 3.0, "replyTo": "r", "delivery_info": None, "delivery_tag": 5},
        body=None,
    )
    assert (head.retries, head.timelimit, head.headers.group_index) == (2, (30.0, None), 1)
    assert (head.priority, head.reply_to, head.headers.stamps) == (3, "r", {})
    head = view({"task": "t", "id": "i", "timelimit": None, "retries": None}, properties=None)
    assert (head.retries, head.timelimit) == (0, (None, None))
    assert view({"task": "t", "id": "i", "\ud800": 1}, properties={"\ud800": 1}).task == "t"
    assert view({"task": "\ud800", "id": "any text \0 ż"}).id == "any text \0 ż"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not the head of a message"),
        (b"[]", "Expected `object`"),
        (b'{"headers": []}', "headers"),
        (b'{"headers": {"task": 5, "id": "i"}}', "Expected `str`"),
        (b'{"headers": {"task": "t", "id": 5}}', "Expected `str`"),
        (b'{"headers": {"task": "t"}}', "'t' without an id"),
        (b'{"headers": {"task": "t", "id": ""}}', "without an id"),
        (b'{"headers": {"task": "t", "id": "i", "retries": "many"}}', "retries"),
        (b'{"headers": {"task": "t", "id": "i", "eta": 5}}', "eta"),
        (b'{"headers": {"task": "t", "id": "i", "timelimit": [1]}}', "timelimit"),
        (b'{"headers": {"task": "t", "id": "i", "timelimit": ["a", 1]}}', "timelimit"),
        (b'{"headers": {"task": "t", "id": "i", "stamps": []}}', "stamps"),
        (b'{"headers": {}, "properties": {"priority": "high"}}', "priority"),
        (b'{"headers": {}, "content-type": 5}', "content-type"),
        (b"[" * 100_000, "recursion"),
        (b"\xff", "decode byte 0xff"),
    ],
)
def test_heads_that_make_no_sense(data: bytes, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        envelope.decode_head(data)


@pytest.mark.parametrize(
    ("whole", "text"),
    [
        ([], "is a map, this is"),
        ({"headers": 5}, "headers of a message are a map, these are 5"),
        ({"properties": []}, "properties"),
        ({"properties": {"delivery_info": "x"}}, "delivery_info"),
        ({"properties": {"priority": "high"}}, "priority is a whole number, this is 'high'"),
        ({"properties": {"reply_to": 5}}, "reply_to of a message is text, this is 5"),
        ({"content-type": 5}, "content-type"),
        ({"body": 5}, "body of a message is text"),
        ({"body": "a", "properties": {"body_encoding": "base64"}}, "not base64"),
        ({"body": "ż", "properties": {"body_encoding": "base64"}}, "not base64"),
    ],
)
def test_envelopes_that_make_no_sense(whole: Any, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        envelope.decode(json.dumps(whole).encode())


KEYS = ["headers", "properties", "task", "id", "eta", "retries", "timelimit", "stamps", "body"]
KEYS += ["priority", "body_encoding", "delivery_info", "reply_to", "replyTo", "content-type"]
KEYS += ["__type__", "__value__"]
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=400)
@given(st.binary(max_size=30) | junk.map(lambda value: json.dumps(value).encode()))
def test_nothing_but_decode_errors(data: bytes) -> None:
    for read in (envelope.decode_head, envelope.decode):
        with contextlib.suppress(DecodeError):
            read(data)
