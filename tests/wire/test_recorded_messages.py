"""Every recorded task message: read it, write the same call ourselves, compare."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import math
import uuid
from typing import Any

import msgspec
import pytest

from chervil.exceptions import ContentDisallowed, DecodeError
from chervil.wire import celery_v1, celery_v2, envelope, serializers, times
from tests.wire.recorded import Sample, amqp_messages, ids, load, messages, same, unwrap

ALL = serializers.accept_types(["json", "pickle", "yaml", "msgpack"])
JSON_ONLY = serializers.accept_types(["json"])

MESSAGES = messages()
#: Neither signed bodies nor what a Celery worker could not read either.
UNREADABLE = ("serializer-auth", "probe-001-hand-made-messages")
READABLE = [each for each in MESSAGES if each.name not in UNREADABLE]


def every(samples: list[Sample]) -> Any:
    return pytest.mark.parametrize("sample", samples, ids=ids(samples))


def body_bytes(whole: dict[str, Any]) -> bytes:
    if whole["properties"].get("body_encoding") == "base64":
        return base64.b64decode(whole["body"])
    return whole["body"].encode()


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 150


@every(MESSAGES)
def test_head(sample: Sample) -> None:
    whole = json.loads(sample.raw)
    headers, properties = whole["headers"], whole.get("properties", {})
    if not isinstance(headers.get("eta", ""), (str, type(None))):
        with pytest.raises(DecodeError, match="eta"):
            envelope.decode_head(sample.raw)
        return
    head = envelope.decode_head(sample.raw)
    assert head.task == headers.get("task", "")
    assert head.id == headers.get("id", "")
    assert head.retries == headers.get("retries", 0)
    assert list(head.timelimit) == headers.get("timelimit", [None, None])
    assert head.eta == headers.get("eta")
    assert head.expires == headers.get("expires")
    assert head.compression == headers.get("compression")
    assert head.headers.shadow == headers.get("shadow")
    assert head.headers.ignore_result == headers.get("ignore_result")
    assert head.headers.root_id == headers.get("root_id")
    assert head.headers.parent_id == headers.get("parent_id")
    assert head.headers.group == headers.get("group")
    assert head.headers.group_index == headers.get("group_index")
    assert head.headers.stamps == headers.get("stamps", {})
    assert head.priority == properties.get("priority", 0)
    assert head.reply_to == properties.get("reply_to", properties.get("replyTo", ""))
    assert head.content_type == whole["content-type"]
    assert head.content_encoding == whole["content-encoding"]
    info = properties.get("delivery_info", {"exchange": "", "routing_key": ""})
    assert head.properties.delivery_info.exchange == info["exchange"]
    assert head.properties.delivery_info.routing_key == info["routing_key"]


@every(MESSAGES)
def test_head_without_body_reads_like_the_whole_envelope(sample: Sample) -> None:
    message = envelope.decode(sample.raw)
    try:
        expected = envelope.decode_head(sample.raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            envelope.decode_head(envelope.encode_head(message))
        return
    found = envelope.decode_head(envelope.encode_head(message))
    found.properties.replyTo = expected.properties.replyTo
    found.properties.correlation_id = expected.properties.correlation_id
    found.properties.reply_to = found.properties.reply_to and expected.properties.reply_to
    expected.properties.reply_to = expected.properties.reply_to or found.properties.reply_to
    assert found == expected


@every([each for each in READABLE if each.name != "redis-015-visibility-restore"])  # hand-made
def test_envelope_is_written_as_it_was_recorded(sample: Sample) -> None:
    recorded = json.loads(sample.raw)
    written = json.loads(envelope.encode_full(envelope.decode(sample.raw)))
    assert body_bytes(written) == body_bytes(recorded)
    uuid.UUID(written["properties"]["delivery_tag"])
    for each in (recorded, written):
        del each["body"], each["properties"]["delivery_tag"], each["properties"]["body_encoding"]
    # kombu's mark on what it put back, which is not for clients to write.
    recorded["properties"]["delivery_info"].pop("redelivered", None)
    if sample.name.startswith("foreign"):
        properties = recorded["properties"]
        properties["correlation_id"] = properties.pop("correlationId")
        properties["reply_to"] = properties.pop("replyTo")
        properties["priority"] = 0
    assert written == recorded


@every(READABLE)
def test_body_is_written_as_it_was_recorded(sample: Sample) -> None:
    """What our own encoder makes of the same call means the same to Celery."""
    message = celery_v1.upgrade(envelope.decode(sample.raw), ALL)
    how = message.headers.get("compression")
    args, kwargs, embed = celery_v2.decode_body(
        message.body, message.content_type, message.content_encoding, how, ALL
    )
    assert type(args) is list
    assert all(type(key) is str for key in kwargs)
    body = celery_v2.encode_body(args, kwargs, embed, message.content_type, how)
    assert body.content_type == message.content_type
    assert body.content_encoding == message.content_encoding
    assert body.compression == how
    again = celery_v2.decode_body(
        body.data, body.content_type, body.content_encoding, body.compression, ALL
    )
    assert repr(again) == repr((args, kwargs, embed or dict.fromkeys(celery_v2._NO_MORE)))
    if body.content_type == "application/json" and how is None:
        recorded = json.loads(message.body)
        if not recorded[2]:
            recorded[2] = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
        assert same(json.loads(body.data), recorded)


@every([each for each in READABLE if not each.name.startswith("proto1")])
def test_body_against_the_plain_json_module(sample: Sample) -> None:
    """Without markers, the plain ``json`` module is the judge of what was meant."""
    message = envelope.decode(sample.raw)
    how = message.headers.get("compression")
    if how or message.content_type != "application/json" or b"__type__" in message.body:
        return
    found = celery_v2.decode_body(message.body, message.content_type, "utf-8", None, JSON_ONLY)
    assert same(list(found), json.loads(message.body))


@every(READABLE)
def test_times(sample: Sample) -> None:
    head = envelope.decode_head(sample.raw)
    for text in (head.eta, head.expires):
        if text is None:
            continue
        moment = dt.datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        assert times.parse_time(text) == aware.timestamp()
        assert times.format_time(moment) == text
        assert dt.datetime.fromisoformat(times.format_time(aware.timestamp())) == aware


@pytest.mark.parametrize("name", ["json", "pickle", "yaml", "msgpack"])
def test_serializers_byte_for_byte(name: str) -> None:
    message = envelope.decode(unwrap(load(f"serializer-{name}")["entries"][0]["raw"]))
    args, kwargs = (1, "two", [3.5, None, True]), {"k": "v"}
    found = celery_v2.decode_body(
        message.body, message.content_type, message.content_encoding, None, ALL
    )
    assert found[:2] == (list(args), kwargs)
    body = celery_v2.encode_body(args, kwargs, None, name)
    assert (body.content_type, body.content_encoding) == (
        message.content_type,
        message.content_encoding,
    )
    if name == "json":
        assert json.loads(body.data) == json.loads(message.body)
    elif name == "pickle":
        import pickle

        assert pickle.loads(body.data) == pickle.loads(message.body)
        assert body.data[:2] == message.body[:2] == b"\x80\x04"
    else:
        assert body.data == message.body


@pytest.mark.parametrize("name", ["zlib", "gzip", "bzip2", "lzma", "brotli", "zstd", "zlib-pickle"])
def test_compression_headers(name: str) -> None:
    message = envelope.decode(unwrap(load(f"compression-{name}")["entries"][0]["raw"]))
    recorded = message.headers["compression"]
    found = celery_v2.decode_body(
        message.body, message.content_type, message.content_encoding, recorded, ALL
    )
    serializer = "pickle" if name == "zlib-pickle" else "json"
    body = celery_v2.encode_body(*found, serializer, name.partition("-")[0])
    assert body.compression == recorded
    magic = 3 if name == "brotli" else 2
    assert body.data[:1] == message.body[:1] or body.data[:magic] == message.body[:magic]


def test_typed_json() -> None:
    message = envelope.decode(unwrap(load("task-030-typed-json-args")["entries"][0]["raw"]))
    args, _, _ = celery_v2.decode_body(message.body, "application/json", "utf-8", None, JSON_ONLY)
    assert args == [
        dt.datetime(2026, 1, 2, 3, 4, 5, 678901, dt.UTC),
        dt.datetime(2026, 1, 2, 3, 4, 5),
        dt.date(2026, 1, 2),
        dt.time(3, 4, 5, 6),
        uuid.UUID("12345678123456781234567812345678"),
        decimal.Decimal("1.10"),
        b"abc",
        b"\xff\x00",
        {"n": [b"x", 1e20, None, True]},
    ]
    assert str(args[5]) == "1.10"
    assert same(json.loads(celery_v2.encode_body(args, {}, None).data), json.loads(message.body))


def test_not_a_number() -> None:
    message = envelope.decode(unwrap(load("task-032-nan-inf")["entries"][0]["raw"]))
    args, _, _ = celery_v2.decode_body(message.body, "application/json", "utf-8", None, JSON_ONLY)
    assert math.isnan(args[0])
    assert args[1] == math.inf


def test_text_in_all_scripts() -> None:
    message = envelope.decode(unwrap(load("task-031-unicode")["entries"][0]["raw"]))
    found = celery_v2.decode_body(message.body, "application/json", "utf-8", None, JSON_ONLY)
    assert found[:2] == (["żółć ☃ 😀"], {"k": "é"})


def test_long_arguments_are_described_as_briefly() -> None:
    message = envelope.decode(unwrap(load("task-029-long-repr")["entries"][0]["raw"]))
    args, _, _ = celery_v2.decode_body(message.body, "application/json", "utf-8", None, JSON_ONLY)
    text = celery_v2.saferepr(tuple(args))
    assert text.startswith("('xxx")
    assert text.endswith("...',)")
    assert len(text) <= len(message.headers["argsrepr"]) + 8


@pytest.mark.parametrize("name", ["proto1-001-simple", "proto1-002-eta-expires-link"])
def test_protocol_1(name: str) -> None:
    message = envelope.decode(unwrap(load(name)["entries"][0]["raw"]))
    body = json.loads(message.body)
    assert envelope.decode_head(envelope.encode_head(message)).task == ""
    new = celery_v1.upgrade(message, JSON_ONLY)
    head = envelope.decode_head(envelope.encode_head(new))
    assert (head.task, head.id) == ("wire.add", body["id"])
    assert head.eta == body["eta"]
    assert head.expires == body["expires"]
    assert list(head.timelimit) == body["timelimit"]
    assert head.headers.group == body["group"]
    assert head.headers.root_id == body["id"]
    assert head.reply_to == message.reply_to
    args, kwargs, embed = celery_v2.decode_body(new.body, new.content_type)
    assert (args, kwargs) == (body["args"], body["kwargs"])
    assert embed == {
        "callbacks": body["callbacks"],
        "errbacks": body["errbacks"],
        "chain": None,
        "chord": body["chord"],
    }
    assert celery_v1.upgrade(new) is new


def test_protocol_1_is_only_read_if_accepted() -> None:
    message = envelope.decode(unwrap(load("proto1-001-simple")["entries"][0]["raw"]))
    with pytest.raises(ContentDisallowed, match=r"application/json.*yaml"):
        celery_v1.upgrade(message, serializers.accept_types(["yaml"]))


def test_signed_body_is_not_taken_for_something_else() -> None:
    message = envelope.decode(unwrap(load("serializer-auth")["raw"]))
    assert message.headers["task"] == "wire.add"
    with pytest.raises(ContentDisallowed, match="application/data"):
        celery_v2.decode_body(message.body, message.content_type, "utf-8", None, JSON_ONLY)


def test_celery_node() -> None:
    raw = unwrap(load("foreign-001-celery-node-producer")["entries"][0]["raw"])
    head = envelope.decode_head(raw)
    assert (head.task, head.reply_to, head.retries, head.timelimit) == (
        "wire.add",
        "",
        0,
        (None, None),
    )
    message = envelope.decode(raw)
    assert message.queue == "celery"
    assert message.properties["correlation_id"] == message.id == head.id
    assert celery_v2.decode_body(message.body, message.content_type) == ([2, 3], {}, {})


PROBES = {
    each["case"]: each["raw"].encode() for each in load("probe-001-hand-made-messages")["cases"]
}

#: What becomes of them here; every other one runs as ``[1, 2], {}``.
REFUSED = {
    "eta as unix number": "eta",
    "eta garbage string": "'soon' is not a time",
    "unknown content type": "application/x-foo",
    "body not valid json": "not valid JSON",
    "headers without task (proto 1 body expected)": "headers name no task",
    "no properties": "not valid JSON",
    "list element is not json": "not valid JSON",
    "unknown __type__ marker in args": "'foo', which is not known",
}


def read_like_a_worker(raw: bytes) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    message = celery_v1.upgrade(envelope.decode(raw), ALL)
    head = envelope.decode_head(envelope.encode_head(message))
    if head.eta is not None:
        times.parse_time(head.eta)
    everything = ALL | {"application/x-foo"}
    return celery_v2.decode_body(
        message.body, head.content_type, head.content_encoding, head.compression, everything
    )


@pytest.mark.parametrize("case", PROBES)
def test_hand_made_messages(case: str) -> None:
    if case in REFUSED:
        with pytest.raises(DecodeError, match=REFUSED[case]):
            read_like_a_worker(PROBES[case])
        return
    args, kwargs, embed = read_like_a_worker(PROBES[case])
    if "__type__ with an extra key" in case:
        assert args == [{"__type__": "datetime", "__value__": "2026-01-01T00:00:00", "z": 1}]
    else:
        assert (args, kwargs) == ([1, 2], {})
    if "callback" in case:
        assert embed["callbacks"][0]["task"] == "wire.mul"


AMQP = amqp_messages()


@pytest.mark.parametrize(("name", "recorded"), AMQP, ids=[name for name, _ in AMQP])
def test_amqp_messages(name: str, recorded: dict[str, Any]) -> None:
    """On AMQP the parts travel apart, but are the same."""
    properties = dict(recorded["properties"])
    head = {
        "headers": recorded["headers"],
        "content-type": properties.pop("content_type"),
        "content-encoding": properties.pop("content_encoding"),
        "properties": {
            **properties,
            "delivery_info": {
                "exchange": recorded["exchange"],
                "routing_key": recorded["routing_key"],
            },
        },
    }
    message = envelope.decode(msgspec.json.encode(head), unwrap(recorded["body"]))
    assert json.loads(envelope.encode_head(message)) == head
    args, kwargs, _ = celery_v2.decode_body(
        message.body,
        message.content_type,
        message.content_encoding,
        message.headers.get("compression"),
        ALL,
    )
    if message.headers["task"] == "wire.add":
        assert len(args) + len(kwargs) >= 2


def test_there_are_amqp_messages() -> None:
    assert len(AMQP) >= 14


SIGNATURES = load("signature-001-dicts")["signatures"]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_survive_in_every_place(name: str) -> None:
    signature = json.loads(SIGNATURES[name]["raw"])
    embed = {
        "callbacks": [signature],
        "errbacks": [signature],
        "chain": [signature, signature],
        "chord": signature,
    }
    for serializer in ("json", "yaml", "msgpack", "pickle"):
        body = celery_v2.encode_body((1,), {}, embed, serializer)
        found = celery_v2.decode_body(body.data, body.content_type, body.content_encoding)
        assert found == ([1], {}, embed)
