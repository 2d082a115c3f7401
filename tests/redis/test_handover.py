"""What workers of Celery are left with: delayed messages, and what was delivered before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from chervil.drivers.contracts import Action, Queue, Settlement
from chervil.drivers.redis import broker as module
from chervil.drivers.redis.broker import RedisBroker
from chervil.ids import new_id
from chervil.testing.harness import claim, ids_of, make_message
from chervil.wire.message import Message

pytestmark = pytest.mark.requires_server("redis")
#: As kombu binds the queue of a worker's remote control (``kombu/pidbox.py``).
PIDBOX = "_kombu.binding.celery.pidbox"
CELERY = "\x06\x16\x06\x16celery@there.celery.pidbox"


@pytest.fixture
def client(server_url: Callable[[str], str]) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server_url("redis")) as client:
        yield client


@pytest.fixture
def prefix(client: redis.Redis) -> Iterator[str]:
    prefix = f"test-{new_id()}:"
    yield prefix
    keys = client.keys(prefix + "*")
    if keys:
        client.unlink(*keys)


@pytest.fixture
def broker(server_url: Callable[[str], str], prefix: str) -> Iterator[RedisBroker]:
    broker = RedisBroker(server_url("redis"), {"global_keyprefix": prefix})
    yield broker
    broker.close()


def delayed(queue: str = "q", eta: bool = True, **fields: Any) -> Message:
    message = make_message(queue, due=time.time() + 600, **fields)
    if eta:
        message.headers["eta"] = "2100-01-01T00:00:00+00:00"
    return message


def counts(broker: RedisBroker, queue: str = "q") -> tuple[int, int]:
    depth = broker.depths([queue])[queue]
    return depth.ready, depth.delayed


def test_the_last_one_hands_over(broker: RedisBroker, client: redis.Redis, prefix: str) -> None:
    client.sadd(prefix + PIDBOX, CELERY)
    first = broker.consumer([Queue("q"), Queue("r")], "first@here")
    second = broker.consumer([Queue("q")], "second@here")
    messages = [delayed(), delayed(priority=9), delayed("r"), delayed(eta=False)]
    broker.publish(messages)
    first.close()
    assert counts(broker) == (0, 3), "it is served"
    assert counts(broker, "r") == (1, 0)
    second.close()
    assert counts(broker) == (2, 1), "who knows no eta would run it at once"
    assert client.llen(prefix + "q\x06\x169") == 1
    (stored,) = client.lrange(prefix + "q", 0, -1)
    whole = json.loads(stored)
    assert whole["headers"]["id"] == messages[0].id
    assert whole["headers"]["eta"] == "2100-01-01T00:00:00+00:00"
    assert set(whole) == {"body", "content-encoding", "content-type", "headers", "properties"}
    # Who comes back finds them, and gives them back for later.
    third = broker.consumer([Queue("q")], "third@here")
    found = claim(third, 2)
    assert ids_of(found) == [messages[0].id, messages[1].id]
    later = time.time() + 600
    third.exchange([Settlement(d, Action.DEFER, until=later, counted=False) for d in found], 0)
    assert counts(broker) == (0, 3)
    client.srem(prefix + PIDBOX, CELERY)
    third.close()


def test_nothing_moves_where_nobody_of_celerys_is(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    """A restart of the only worker need not go through a million delayed messages."""
    consumer = broker.consumer([Queue("q")], "first@here")
    broker.publish([delayed() for _ in range(3)])
    consumer.close()
    assert counts(broker) == (0, 3)
    # Nor where that is a node of ours.
    client.sadd(prefix + PIDBOX, CELERY.replace("celery@there", "second@here"))
    other = broker.consumer([Queue("elsewhere")], "second@here")
    consumer = broker.consumer([Queue("q")], "first@here")
    consumer.close()
    assert counts(broker) == (0, 3)
    other.close()


def test_many_are_handed_over_in_parts(
    broker: RedisBroker, client: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    client.sadd(prefix + PIDBOX, CELERY)
    consumer = broker.consumer([Queue("q")], "first@here")
    broker.publish([delayed(eta=number % 3 > 0) for number in range(60)])
    consumer.close()
    assert counts(broker) == (40, 20)
    order = [json.loads(text)["headers"]["id"] for text in client.lrange(prefix + "q", 0, -1)]
    assert len(set(order)) == 40


def test_a_node_that_died_does_not_keep_them(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    client.sadd(prefix + PIDBOX, CELERY)
    dead = broker.consumer([Queue("q")], "dead@here", lease=0.05)
    last = broker.consumer([Queue("q")], "last@here")
    broker.publish([delayed()])
    while client.exists(f"{prefix}_chervil.lease.{dead._id}"):
        time.sleep(0.01)
    last.close()
    assert counts(broker) == (1, 0)
    dead.close()


# --- what was delivered before


def info_of(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw)["properties"]["delivery_info"]
    return found


def test_what_comes_back_says_so(broker: RedisBroker, client: redis.Redis, prefix: str) -> None:
    message = make_message("q")
    message.headers["argsrepr"] = '"delivery_info": {'  # a text, and in quotes there
    message.headers["other"] = {"delivery_info": {}}
    broker.publish([message])
    consumer = broker.consumer([Queue("q")], "n")

    def back(action: Action = Action.REQUEUE, **fields: Any) -> bytes:
        (delivery,) = claim(consumer, 1)
        consumer.exchange([Settlement(delivery, action, **fields)], 0)
        (raw,) = client.lrange(prefix + "q", 0, -1)
        return bytes(raw)

    plain = {"exchange": "", "routing_key": "q"}
    assert info_of(back(counted=False)) == plain, "it was not begun"
    assert info_of(back()) == {**plain, "redelivered": True}
    raw = back()
    assert raw.count(b"redelivered") == 1
    whole = json.loads(raw)
    assert whole["headers"]["argsrepr"] == message.headers["argsrepr"]
    assert whole["headers"]["other"] == {"delivery_info": {}}
    # kombu writes spaces.
    client.delete(prefix + "q")
    client.lpush(prefix + "q", json.dumps(whole | {"properties": {"delivery_info": {}}}))
    assert info_of(back()) == {"redelivered": True}
    consumer.close()


def test_what_a_dead_node_held_says_so(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    broker.publish([make_message("q")])
    dead = broker.consumer([Queue("q")], "dead@here", lease=0.05)
    claim(dead, 1)
    while not broker.recover("nobody"):
        time.sleep(0.01)
    (raw,) = client.lrange(prefix + "q", 0, -1)
    assert info_of(raw)["redelivered"] is True
    dead.close()
