"""Messages in RabbitMQ, as Celery's client for it (py-amqp) writes and reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import amqp
import amqp.serialization
import pytest

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.delays import LEVELS, Delays, topology
from chervil.drivers.amqp.heads import Heads
from chervil.drivers.amqp.location import Location
from chervil.drivers.amqp.properties import decode_properties, of_message
from chervil.drivers.amqp.reading import Content
from chervil.wire.envelope import decode
from chervil.wire.message import Message
from tests.wire.recorded import load, unwrap

FIXTURES = [
    "amqp-001-simple",
    "amqp-002-countdown-expires-priority",
    "amqp-003-pickle-zlib",
    "amqp-004-transient",
    "amqp-005-stamped",
    "amqp-020-max-priority",
]


def recorded() -> Iterator[Any]:
    for name in FIXTURES:
        for number, message in enumerate(load(name)["messages"]):
            yield pytest.param(message, id=f"{name}-{number}")


def as_celery(message: dict[str, Any]) -> bytes:
    """The properties as py-amqp writes them."""
    found = amqp.Message("", application_headers=message["headers"], **message["properties"])
    data = found._serialize_properties()
    assert isinstance(data, bytes)
    return data


def arrived(header: bytes, body: bytes, exchange: str = "", key: str = "celery") -> Content:
    arguments = m.pack_arguments(m.BASIC_DELIVER, ("tag", 1, False, exchange, key))
    return Content(1, m.BASIC_DELIVER.id, arguments, header, body)


@pytest.mark.parametrize("message", list(recorded()))
def test_the_bytes_are_celerys(message: dict[str, Any]) -> None:
    properties = dict(message["properties"])
    ours = Message(
        headers=message["headers"],
        body=unwrap(message["body"]),
        content_type=properties.pop("content_type"),
        content_encoding=properties.pop("content_encoding"),
        queue="celery",
        priority=properties.pop("priority"),
        reply_to=properties.pop("reply_to"),
        properties=properties,
    )
    assert of_message(ours) == as_celery(message)


@pytest.mark.parametrize("message", list(recorded()))
@pytest.mark.parametrize("times", [1, 2], ids=["anew", "by-layout"])
def test_what_celery_sends_is_read(message: dict[str, Any], times: int) -> None:
    content = arrived(as_celery(message), unwrap(message["body"]))
    heads = Heads()
    for _ in range(times):
        head, delivered = heads.read(content, "celery")
    found = decode(head, content.body, "celery")
    assert delivered == 0
    assert found.headers == message["headers"]
    assert found.priority == message["properties"]["priority"]
    assert found.content_type == message["properties"]["content_type"]
    assert found.content_encoding == message["properties"]["content_encoding"]
    assert found.reply_to == message["properties"]["reply_to"]
    assert found.properties["correlation_id"] == message["headers"]["id"]
    assert found.routing_key == "celery"


def test_what_was_delayed_is_as_if_it_had_not_been() -> None:
    (message,) = load("amqp-024-native-delayed-delivered")["messages"]
    del message["headers"]["x-death"][0]["time"]
    content = arrived(as_celery(message), b"", message["exchange"], message["routing_key"])
    head, delivered = Heads().read(content, "celery")
    found = decode(head, b"", "celery")
    assert (found.exchange, found.routing_key, delivered) == ("", "celery", 0)
    assert not [name for name in found.headers if name.startswith("x-")]
    sent = decode_properties(of_message(found))
    assert sent["headers"] == found.headers


def test_a_message_with_a_history_is_sent_without_it() -> None:
    (message,) = load("amqp-024-native-delayed-delivered")["messages"]
    del message["headers"]["x-death"][0]["time"]
    again = Message(message["headers"], b"", "application/json", "utf-8", "celery")
    headers = decode_properties(of_message(again))["headers"]
    assert not [name for name in headers if name.startswith("x-")]


def test_the_delayed_topology_is_kombus() -> None:
    kombu = load("amqp-022-native-delayed-topology")["topology"]
    calls = topology(Location())
    queues = {call[1]: call[7] for call in calls if call[0] is m.QUEUE_DECLARE}
    assert queues == {
        queue["name"]: queue["arguments"]
        for queue in kombu["queues"]
        if queue["name"].startswith("celery_delayed")
    }
    assert len(queues) == LEVELS
    exchanges = {call[1] for call in calls if call[0] is m.EXCHANGE_DECLARE}
    assert exchanges == {
        exchange["name"]
        for exchange in kombu["exchanges"]
        if exchange["name"].startswith("celery_delayed")
        and (exchange["type"], exchange["durable"]) == ("topic", True)
    }
    ours = {("queue", call[2], call[1], call[3]) for call in calls if call[0] is m.QUEUE_BIND}
    ours |= {("exchange", c[2], c[1], c[3]) for c in calls if c[0] is m.EXCHANGE_BIND}
    assert ours == {
        (one["destination_type"], one["source"], one["destination"], one["routing_key"])
        for one in kombu["bindings"]
        if one["source"].startswith("celery_delayed") and one["source"] != "celery_delayed_delivery"
    }


def test_delays_are_told_as_kombu_does() -> None:
    delays = Delays(Location())
    exchange, key = delays.address("celery", 10.0)
    assert exchange == "celery_delayed_27"
    digits, _, word = key.rpartition(".")
    assert digits == "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.1.0"
    assert word == "chervil~celery"
