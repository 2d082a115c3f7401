"""What Celery wrote to Redis, read through the driver; and what it will find there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from chervil.drivers.contracts import Action, Queue, Settlement
from chervil.drivers.redis.broker import RedisBroker
from chervil.drivers.redis.results import RedisResults
from chervil.ids import new_id
from chervil.testing.harness import claim, is_readable, make_message
from chervil.wire import outcomes
from chervil.wire.envelope import decode
from chervil.wire.message import Outcome
from tests.wire import recorded

pytestmark = pytest.mark.requires_server("redis")
MESSAGES, RESULTS = recorded.messages(), recorded.results()


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


@pytest.fixture
def store(server_url: Callable[[str], str], prefix: str) -> Iterator[RedisResults]:
    store = RedisResults(server_url("redis"), {"global_keyprefix": prefix})
    yield store
    store.close()


# --- what Celery wrote


def test_recorded_messages_come_through_untouched(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    consumer = broker.consumer([Queue("celery")], "n")
    assert not consumer.exchange((), 1)
    for sample in MESSAGES:
        client.lpush(prefix + "celery", sample.raw)
    assert is_readable(consumer, 5), "kombu's LPUSH wakes"
    assert consumer.drain()
    found = claim(consumer, len(MESSAGES))
    assert [d.head for d in found] == [sample.raw for sample in MESSAGES]
    assert {(d.body, d.deliveries, d.queue) for d in found} == {(None, 1, "celery")}
    # They go back as they were, but for a mark in front that kombu ignores, and for what
    # kombu itself writes into what comes back.
    consumer.exchange([Settlement(d, Action.REQUEUE) for d in found], 0)
    for sample, stored in zip(
        MESSAGES, reversed(client.lrange(prefix + "celery", 0, -1)), strict=True
    ):
        whole, original = json.loads(stored), json.loads(sample.raw)
        assert whole.pop("chervil")[0] == 1
        info = whole.get("properties", {}).get("delivery_info", {"redelivered": True})
        assert info.pop("redelivered") is True
        original.get("properties", {}).get("delivery_info", {}).pop("redelivered", None)
        assert recorded.same(whole, original)
    again = claim(consumer, len(MESSAGES))
    assert {d.deliveries for d in again} == {2}
    heads = [d.head.replace(b'"redelivered":true,', b"") for d in again]
    given = [s.raw.replace(b'"redelivered": false', b'"redelivered": true') for s in MESSAGES]
    assert heads == given
    consumer.exchange([Settlement(d) for d in again], 0)
    consumer.close()


def test_counts_survive_a_celery_worker(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    """It writes back what it read, with spaces, and at times something more."""
    broker.publish([make_message("celery")])
    consumer = broker.consumer([Queue("celery")], "n")
    (delivery,) = claim(consumer, 1)
    consumer.exchange([Settlement(delivery, Action.REQUEUE)], 0)
    whole = json.loads(client.rpop(prefix + "celery"))
    whole["headers"]["redelivered"] = True
    client.rpush(prefix + "celery", json.dumps(whole))
    (delivery,) = claim(consumer, 1)
    assert delivery.deliveries == 2
    assert decode(delivery.head, delivery.body).headers["redelivered"] is True
    consumer.close()


def test_lists_of_priorities_are_served_as_kombu_does(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    for step in ("\x06\x169", "\x06\x166", "\x06\x163", ""):
        for queue in ("a", "b"):
            client.lpush(f"{prefix}{queue}{step}", f"{queue}{step}")
    consumer = broker.consumer([Queue("a"), Queue("b")], "n")
    found = [d.head.decode() for d in claim(consumer, 8)]
    assert [text[1:] for text in found] == ["", "", *(f"\x06\x16{n}" for n in (3, 3, 6, 6, 9, 9))]
    consumer.close()


@pytest.mark.parametrize("sample", RESULTS, ids=recorded.ids(RESULTS))
def test_recorded_results_are_found(
    sample: recorded.Sample, store: RedisResults, client: redis.Redis, prefix: str
) -> None:
    client.set(f"{prefix}celery-task-meta-x", sample.raw)
    (outcome,) = store.get(["x"]).values()
    assert (outcome.status, outcome.payload) == (json.loads(sample.raw)["status"], sample.raw)
    store.put([Outcome("x", "CUSTOM", b'{"status": "CUSTOM"}')])
    assert store.get(["x"])["x"].status == ("SUCCESS" if outcome.status == "SUCCESS" else "CUSTOM")


@pytest.mark.parametrize("kind", ["msgpackres", "pickleres", "yamlres", "compres"])
def test_statuses_of_other_serializers_are_found(
    kind: str, store: RedisResults, client: redis.Redis, prefix: str
) -> None:
    for name, status in (("", "SUCCESS"), ("-failure", "FAILURE")):
        (path,) = recorded.FIXTURES.glob(f"result-05?-{kind}{name}.json")
        data = [d for d in recorded._byte_strings(recorded.load(path.stem)) if status.encode() in d]
        data = data or [
            d for d in recorded._byte_strings(recorded.load(path.stem)) if d[:1] == b"\0"
        ]
        raw = max(data, key=lambda d: (d[:1] in b"\0\x80\x86\x87\x88", len(d)))
        client.set(f"{prefix}celery-task-meta-x", raw)
        assert store.get(["x"])["x"].status == status


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_statuses_of_compressed_results_are_found(
    serializer: str, store: RedisResults, client: redis.Redis, prefix: str
) -> None:
    payload = outcomes.encode(
        task_id="x", status="SUCCESS", result=[1], serializer=serializer, compression="lzma"
    )
    client.set(f"{prefix}celery-task-meta-x", payload)
    assert store.get(["x"])["x"].status == "SUCCESS"


# --- what Celery finds


def test_messages_are_where_kombu_looks(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    messages = [make_message("celery", priority=priority) for priority in (0, 2, 5, 12)]
    broker.publish(messages)
    for suffix, count in (("", 2), ("\x06\x163", 1), ("\x06\x169", 1)):
        assert client.llen(f"{prefix}celery{suffix}") == count
    whole = json.loads(client.lindex(f"{prefix}celery\x06\x169", 0))
    assert set(whole) == {"body", "content-encoding", "content-type", "headers", "properties"}
    properties = whole["properties"]
    assert properties["priority"] == 12
    assert properties["body_encoding"] == "base64"
    assert properties["delivery_tag"]
    assert properties["delivery_info"] == {"exchange": "", "routing_key": "celery"}


def test_delayed_messages_wait_where_they_will_be_fetched(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    """With a Celery worker alone on the queue, in its list: it waits for the eta itself."""

    def send(queue: str) -> None:
        message = make_message(queue, due=time.time() + 60)
        message.headers["eta"] = "2100-01-01T00:00:00+00:00"
        broker.publish([message])

    send("theirs")
    assert client.llen(prefix + "theirs") == 1
    consumer = broker.consumer([Queue("ours")], "n")
    send("ours")
    assert client.llen(prefix + "ours") == 0
    assert broker.depths(["ours"])["ours"].delayed == 1
    consumer.close()
    send("ours")
    assert client.llen(prefix + "ours") == 1
    late = make_message("theirs", due=time.time() + 60)  # it does not say so itself
    broker.publish([late])
    assert broker.depths(["theirs"])["theirs"].delayed == 1


def test_results_are_where_celery_looks(
    store: RedisResults, client: redis.Redis, prefix: str
) -> None:
    key = f"{prefix}celery-task-meta-x"
    payload = b'{"status":"SUCCESS","result":5}'
    with client.pubsub() as pubsub:
        pubsub.subscribe(key)
        assert pubsub.get_message(timeout=5)
        store.put([Outcome("x", "SUCCESS", payload, expires=time.time() + 100)])
        news = pubsub.get_message(timeout=5)
    assert news is not None
    assert news["data"] == client.get(key) == payload
    assert 90 < client.ttl(key) <= 100
    assert client.keys(prefix + "*status*") == []


def test_bindings_let_celery_producers_find_the_queue(
    broker: RedisBroker, client: redis.Redis, prefix: str
) -> None:
    broker.declare([Queue("tq", "ex", "topic", "a.#")])
    for table in ("binding", "binding_permanent"):
        members = client.smembers(f"{prefix}_kombu.{table}.ex")
        assert members == {b"a.#\x06\x16^a\\..*?$\x06\x16tq"}
