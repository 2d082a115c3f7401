"""How often the server is asked, and that less asking misses nothing."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from chervil.drivers.contracts import Delivery, Queue, Settlement
from chervil.drivers.redis.link import Refused
from chervil.drivers.redis.results import RedisResults
from chervil.drivers.registry import open_results
from chervil.exceptions import PublishError
from chervil.ids import new_id, new_ids
from chervil.testing.harness import claim, id_of, ids_of, is_readable, make_message, wait_for
from chervil.wire.message import Outcome
from tests.unit.drivers.redis.servers import Opened, Serve, Server

pytestmark = pytest.mark.requires_server("redis")

QUEUE = [Queue("q")]
SUCCESS = b'{"status":"SUCCESS","result":1}'


def counted(server: Server) -> Counter[str]:
    """Commands since the last call, those of scripts included."""
    answer = server.call("INFO", "commandstats")
    assert isinstance(answer, bytes)
    server.call("CONFIG", "RESETSTAT")
    found: Counter[str] = Counter()
    for line in answer.decode().splitlines():
        if line.startswith("cmdstat_"):
            name, _, fields = line.removeprefix("cmdstat_").partition(":")
            if name not in ("info", "hello", "config|resetstat"):
                found[name] = int(fields.split(",")[0].removeprefix("calls="))
    return found


def done(deliveries: list[Delivery], reply_to: str = "me") -> list[Settlement]:
    """They ended with a result."""
    return [
        Settlement(d, outcome=Outcome(id_of(d), "SUCCESS", SUCCESS, time.time() + 60, reply_to))
        for d in deliveries
    ]


def test_a_task_alone_costs_twelve_commands(serve: Serve, opened: Opened) -> None:
    server = serve()
    broker, store = opened(server.url), open_results(server.url)
    assert broker.shares(store)
    consumer = broker.consumer(QUEUE, "n")
    for _ in range(2):  # the scripts are known to the server the second time
        counted(server)
        broker.publish([make_message("q")])
        wait_for(consumer.drain, "the news")
        consumer.exchange(done(list(consumer.exchange((), 10))), 0)
        found = counted(server)
    assert found.pop("lpush") == 1
    assert found.total() <= 12
    consumer.close()
    store.close()


def test_in_batches_a_task_costs_less_than_five(serve: Serve, opened: Opened) -> None:
    server = serve()
    broker, store = opened(server.url), open_results(server.url)
    assert broker.shares(store)
    broker.publish([make_message("q") for _ in range(1000)])
    consumer = broker.consumer(QUEUE, "n")
    counted(server)
    deliveries = claim(consumer, 50)
    for _ in range(20):
        deliveries = list(consumer.exchange(done(deliveries), 50))
    assert not deliveries
    assert counted(server).total() <= 5 * 1000
    consumer.close()
    store.close()


def test_an_idle_consumer_asks_nothing(serve: Serve, opened: Opened) -> None:
    server = serve()
    consumer = opened(server.url).consumer(QUEUE, "n")
    consumer.exchange((), 1)
    counted(server)
    for _ in range(20):
        assert not consumer.drain()
    assert not counted(server)
    consumer.close()


def test_what_follows_a_task_wakes_its_own_consumer(serve: Serve, opened: Opened) -> None:
    consumer = opened(serve().url).consumer(QUEUE, "n")
    broker = opened(consumer._broker.location.name)
    broker.publish([make_message("q")])
    wait_for(consumer.drain, "the news")
    (first,) = claim(consumer, 1)
    assert not consumer.exchange((), 1)
    follow = make_message("q")
    consumer.exchange([Settlement(first, publish=[follow])], 0)
    assert is_readable(consumer, 5)
    assert consumer.drain()
    assert ids_of(claim(consumer, 1)) == [follow.id]
    consumer.close()


def test_news_of_delayed_and_revoked_tasks_are_taken_in(serve: Serve, opened: Opened) -> None:
    broker = opened(serve().url)
    consumer = broker.consumer(QUEUE, "n")
    consumer.exchange((), 1)
    soon = make_message("q", due=time.time() + 0.2)
    broker.publish([soon])
    broker.revoke([soon.id], time.time() + 60)
    assert is_readable(consumer, 5)
    consumer.drain()
    consumer.exchange((), 1)
    assert consumer.next_due() == pytest.approx(soon.due)
    found = wait_for(lambda: consumer.exchange((), 1), "it is due")
    assert [d.revoked for d in found] == [True]
    consumer.close()


def test_of_several_parts_those_that_were_not_stored_are_named(
    serve: Serve, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = opened(serve().url)
    broker.publish([make_message("q")])
    messages = [make_message("q") for _ in range(2500)]
    confirm, answers = broker._confirm, iter([None, Refused("OOM command not allowed")])

    def refuse_the_second(*args: object) -> None:
        confirm(*args)  # type: ignore[arg-type]
        if (answer := next(answers)) is not None:
            args[2].discard(1)  # type: ignore[attr-defined]
            raise answer

    monkeypatch.setattr(broker, "_confirm", refuse_the_second)
    with pytest.raises(PublishError, match="1500 of 2500") as caught:
        broker.publish(messages)
    assert caught.value.failed == tuple(m.id for m in messages[1000:])


# --- listening


def test_results_of_workers_that_do_not_know_us_are_heard(serve: Serve) -> None:
    """Celery's publish a result on the channel of its key only."""
    server = serve()
    store = open_results(server.url)
    assert isinstance(store, RedisResults)
    listener, ids = store.listener("me"), new_ids(3)
    assert listener.watch(ids, sent_here=True)
    listener.wait(0.05)  # longer than it is patient
    for task_id in ids:
        key = store.prefix + task_id.encode()
        server.call("SET", key, SUCCESS)
        server.call("PUBLISH", key, SUCCESS)
    heard: set[str] = set()
    wait_for(lambda: heard.update(o.task_id for o in listener.wait(1)) or len(heard) == 3, "news")
    listener.close()
    store.close()


@pytest.mark.parametrize("reply_to", ["me", ""])
def test_what_was_stored_before_is_reported(serve: Serve, reply_to: str) -> None:
    store = open_results(serve().url)
    before, between = new_ids(2)
    store.put([Outcome(before, "SUCCESS", SUCCESS, reply_to=reply_to)])
    listener = store.listener("me")
    between = new_id()
    store.put([Outcome(between, "SUCCESS", SUCCESS, reply_to=reply_to)])
    heard = {o.task_id for o in listener.wait(0)}  # perhaps of the second, which is forgotten
    assert heard <= {between}
    assert listener.watch([before, between], sent_here=True)
    wait_for(
        lambda: heard.update(o.task_id for o in listener.wait(1)) or heard == {before, between},
        "both are told",
    )
    listener.close()
    store.close()


def test_large_results_of_what_was_sent_here_are_read(serve: Serve) -> None:
    store = open_results(serve().url)
    listener, task_id = store.listener("me"), new_id()
    listener.watch([task_id], sent_here=True)
    payload = b'{"status":"SUCCESS","result":"%b"}' % (b"x" * 200_000)
    store.put([Outcome(task_id, "SUCCESS", payload, reply_to="me")])
    (found,) = wait_for(lambda: listener.wait(5), "news")
    assert found.payload == payload
    listener.close()
    store.close()


def test_no_subscription_for_what_is_answered_in_time(serve: Serve) -> None:
    server = serve()
    store = open_results(server.url)
    listener = store.listener("me")
    listener.wait(0)
    counted(server)
    for _ in range(10):
        task_id = new_id()
        store.put([Outcome(task_id, "SUCCESS", SUCCESS, reply_to="me")])
        assert [o.task_id for o in wait_for(lambda: listener.wait(5), "news")] == [task_id]
        listener.watch([task_id], sent_here=True)
        listener.unwatch([task_id])
    assert counted(server)["subscribe"] == 0
    listener.close()
    store.close()
