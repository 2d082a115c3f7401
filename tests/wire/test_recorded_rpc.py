"""Recorded results of ``rpc://``: read as they came, and written again the same."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.location import Location
from chervil.drivers.amqp.properties import decode_properties, encode_properties
from chervil.drivers.amqp.reading import Content, Reader
from chervil.drivers.amqp.replies import Inbox, ReplyOptions
from chervil.drivers.amqp.results import RpcResults
from chervil.wire import outcomes
from chervil.wire.message import Outcome
from tests.wire.recorded import FIXTURES, load, unwrap

NAMES = sorted(path.stem for path in FIXTURES.glob("rpc-*.json"))


def recorded() -> list[Any]:
    return [
        pytest.param(message, id=f"{name}-{number}")
        for name in NAMES
        for number, message in enumerate(load(name)["messages"])
    ]


def arrived(properties: dict[str, Any], body: bytes) -> Content:
    deliver = b"\x011" + bytes(9)
    return Content(1, m.BASIC_DELIVER.id, deliver, encode_properties(properties), body)


def content_of(message: dict[str, Any]) -> Content:
    properties = {**message["properties"], "headers": message["headers"]}
    return arrived(properties, unwrap(message["body"]))


def inbox() -> Inbox:
    return Inbox(Location(), "an-address", ReplyOptions())


def read(content: Content, box: Inbox | None = None) -> Outcome:
    found = (box or inbox())._outcome(content)
    assert found is not None
    return found


def sent(store: RpcResults, outcome: Outcome) -> tuple[tuple[Any, ...], dict[str, Any], bytes]:
    """The method, the properties and the body that are sent."""
    link: Any = SimpleNamespace(session=SimpleNamespace(frame_max=131072))
    packed = store._packed(outcome, link, 1000.0)
    assert packed is not None
    size = int.from_bytes(packed[3:7], "big")
    method = m.unpack(packed[7:11], packed[7 : 7 + size])
    # As the server would deliver it: the rest is the same.
    deliver = m.pack(1, m.BASIC_DELIVER, "1", 1, False, "", "x")
    reader = Reader()
    reader.feed(deliver + packed[7 + size + 1 :])
    (content,) = reader.arrived
    return method, decode_properties(content.header), content.body


def test_there_are_some() -> None:
    assert len(recorded()) >= 6


@pytest.mark.parametrize("message", recorded())
def test_recorded_results_are_read(message: dict[str, Any]) -> None:
    outcome = read(content_of(message))
    document = json.loads(unwrap(message["body"]))
    assert outcome.task_id == document["task_id"]
    assert outcome.status == document["status"]
    assert outcomes.decode(outcome.payload)["status"] == document["status"]


@pytest.mark.parametrize("message", recorded())
def test_they_are_written_the_same(message: dict[str, Any]) -> None:
    outcome = read(content_of(message))
    outcome.expires, outcome.reply_to = 0.0, message["routing_key"]
    method, properties, body = sent(RpcResults("rpc://"), outcome)
    assert method == ("", message["routing_key"], False, False)
    headers = properties.pop("headers")
    assert (properties, headers) == (message["properties"], message["headers"])
    assert body == unwrap(message["body"])


def test_options_show() -> None:
    outcome = Outcome("id", "SUCCESS", b'{"status":"SUCCESS"}', 1002.5, "x")
    store = RpcResults("rpc://", {"result_persistent": True, "result_serializer": "pickle"})
    _, properties, _ = sent(store, outcome)
    assert properties["delivery_mode"] == 2
    assert properties["expiration"] == "2500"
    assert properties["content_type"] == "application/x-python-serialize"
    assert properties["content_encoding"] == "binary"


@pytest.mark.parametrize("compression", ["zlib", "bzip2"])
def test_compression_is_kombus_on_the_way(compression: str) -> None:
    payload = outcomes.encode(
        task_id="id", status="SUCCESS", result="x" * 1000, compression=compression
    )
    _, properties, body = sent(RpcResults("rpc://"), Outcome("id", "SUCCESS", payload, 0.0, "x"))
    assert properties["headers"]["compression"].startswith("application/")
    assert not body.startswith(b"\0")
    arrived = Content(
        1, m.BASIC_DELIVER.id, b"\x011" + bytes(9), encode_properties(properties), body
    )
    outcome = read(arrived)
    assert (outcome.payload, outcome.status) == (payload, "SUCCESS")


@pytest.mark.parametrize("serializer", ["pickle", "msgpack", "yaml"])
def test_the_status_of_other_serializers_is_known(serializer: str) -> None:
    payload = outcomes.encode(task_id="id", status="CUSTOM", result={"a": 1}, serializer=serializer)
    store = RpcResults("rpc://", {"result_serializer": serializer})
    _, properties, body = sent(store, Outcome("id", "CUSTOM", payload, 0.0, "x"))
    for how in (properties, {**properties, "type": None}):  # Celery sends no type
        outcome = read(arrived(how, body))
        assert (outcome.task_id, outcome.status, outcome.payload) == ("id", "CUSTOM", payload)


def test_a_correlation_id_of_ones_own_names_no_task() -> None:
    """Celery's workers send the one that the call had; who waits knows the task's id."""
    payload = outcomes.encode(task_id="the-task", status="SUCCESS", result=1)
    assert read(arrived({"correlation_id": "something"}, payload)).task_id == "the-task"


def test_what_is_no_result_ends_the_wait_with_an_error() -> None:
    properties = {"correlation_id": "id", "content_type": "text/plain"}
    outcome = read(arrived(properties, b"hello"))
    assert (outcome.task_id, outcome.status) == ("id", "FAILURE")
