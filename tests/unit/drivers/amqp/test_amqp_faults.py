"""Cut connections, servers that hang or refuse: nothing is lost, errors are clear."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.broker import AmqpBroker
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.location import parse
from chervil.drivers.contracts import Action, Binding, Queue, Settlement
from chervil.drivers.registry import open_broker
from chervil.exceptions import BrokerUnavailable, LeaseLost, OperationalError, PublishError
from chervil.ids import new_id
from chervil.testing.harness import claim, id_of, ids_of, is_readable, make_message, wait_for
from tests.unit.drivers.amqp.proxy import Proxy

pytestmark = pytest.mark.requires_server("rabbitmq")


@pytest.fixture
def url(server_url: Callable[[str], str]) -> str:
    return server_url("rabbitmq")


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    proxy = Proxy(url)
    yield proxy
    proxy.close()


@pytest.fixture
def direct(url: str) -> Iterator[Link]:
    link = Link(parse(url, {}), BrokerUnavailable)
    yield link
    link.close()


@pytest.fixture
def queue(direct: Link) -> Iterator[str]:
    name = f"faults-{new_id()}"
    yield name
    for suffix in ("", "-2"):
        direct.call(direct.ready(1), m.QUEUE_DELETE, name + suffix, False, False, False)


@pytest.fixture
def opened() -> Iterator[Callable[..., AmqpBroker]]:
    brokers: list[AmqpBroker] = []

    def make(url: str, **options: Any) -> AmqpBroker:
        broker = open_broker(url, options)
        assert isinstance(broker, AmqpBroker)
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.close()


def ready(broker: AmqpBroker, queue: str) -> int:
    return broker.depths([queue])[queue].ready


# --- who is not let in


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("guest:guest", "guest:wrong"), "user name or password"),
        (lambda url: url.rstrip("/") + "/nowhere", "no virtual host"),
        (lambda url: url.replace("127.0.0.1:", "127.0.0.1:1"), "cannot reach"),
    ],
)
def test_who_is_not_let_in(url: str, opened: Any, change: Callable[[str], str], words: str) -> None:
    if words == "cannot reach":
        url = "amqp://127.0.0.1:1//"
    with pytest.raises(BrokerUnavailable, match=words) as caught:
        opened(change(url) if words != "cannot reach" else url).publish([make_message("q")])
    assert "wrong" not in str(caught.value)


def test_something_that_is_not_rabbitmq(server_url: Callable[[str], str], opened: Any) -> None:
    import socket
    import threading

    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        client, _ = listening.accept()
        client.recv(100)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        client.close()

    thread = threading.Thread(target=answer)
    thread.start()
    port = listening.getsockname()[1]
    with pytest.raises(BrokerUnavailable, match="does not speak AMQP"):
        opened(f"amqp://127.0.0.1:{port}//").publish([make_message("q")])
    thread.join()
    listening.close()


# --- connections that break


def test_publishing_goes_on_over_a_new_connection(proxy: Proxy, opened: Any, queue: str) -> None:
    broker = opened(proxy.url)
    messages = [make_message(queue) for _ in range(3)]
    for message in messages:
        broker.publish([message])
        proxy.cut()
    consumer = broker.consumer([Queue(queue)], "node")
    assert ids_of(claim(consumer, 3)) == [message.id for message in messages]
    consumer.close()


def test_a_server_that_is_away_is_an_error_in_time(proxy: Proxy, opened: Any, queue: str) -> None:
    broker = opened(proxy.url)
    broker.publish([make_message(queue)])
    proxy.go_away()
    with pytest.raises(BrokerUnavailable, match="cannot reach"):
        broker.publish([make_message(queue)])
    proxy.come_back()
    broker.publish([make_message(queue)])
    assert ready(broker, queue) == 2


def test_a_server_that_hangs_is_an_error_in_time(proxy: Proxy, opened: Any, queue: str) -> None:
    broker = opened(proxy.url, socket_timeout=0.3)
    broker.publish([make_message(queue)])
    proxy.frozen = True
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="socket_timeout"):
        broker.publish([make_message(queue)])
    assert time.monotonic() - began < 10
    proxy.frozen = False
    broker.publish([make_message(queue)])


def test_a_confirmation_that_is_lost(proxy: Proxy, opened: Any, queue: str) -> None:
    """It is stored, but nobody knows; whoever sends it again doubles it."""
    broker = opened(proxy.url)
    broker.publish([make_message(queue)])
    message = make_message(queue)
    proxy.swallow = message.id.encode()
    with pytest.raises(BrokerUnavailable):
        broker.publish([message])
    assert ready(broker, queue) == 2


def test_claims_are_void_with_their_connection(proxy: Proxy, opened: Any, queue: str) -> None:
    broker = opened(proxy.url)
    messages = [make_message(queue) for _ in range(3)]
    broker.publish(messages)
    old = broker.consumer([Queue(queue)], "node")
    found = claim(old, 3)
    proxy.cut()
    assert is_readable(old, 10)
    assert old.drain()
    with pytest.raises(LeaseLost):
        old.exchange([Settlement(found[0])], 3)
    with pytest.raises(LeaseLost):
        old.renew()
    new = broker.consumer([Queue(queue)], "node")
    again = claim(new, 3)
    assert ids_of(again) == ids_of(found)
    # What was claimed before cannot be settled over the new connection.
    new.exchange([Settlement(delivery) for delivery in found], 0)
    old.close()
    new.close()
    third = broker.consumer([Queue(queue)], "node")
    assert len(claim(third, 3)) == 3
    third.close()


def test_a_silent_server_is_noticed_by_who_renews(proxy: Proxy, opened: Any, queue: str) -> None:
    broker = opened(proxy.url)
    consumer = broker.consumer([Queue(queue)], "node", lease=2.0)
    proxy.frozen = True

    def lost() -> bool:
        try:
            consumer.renew()
        except LeaseLost:
            return True
        return False

    wait_for(lost, "the silence is noticed", 15)
    proxy.frozen = False
    consumer.close()


def test_failover(proxy: Proxy, url: str, opened: Any, queue: str) -> None:
    broker = opened(f"{proxy.url};{url}")
    broker.publish([make_message(queue)])
    proxy.go_away()
    broker.publish([make_message(queue)])
    assert ready(broker, queue) == 2
    proxy.come_back()
    proxy.frozen = True  # the second one is still preferred
    broker.close()
    broker.publish([make_message(queue)])
    assert ready(broker, queue) == 3


def test_all_servers_away(opened: Any) -> None:
    broker = opened("amqp://127.0.0.1:1//;amqp://127.0.0.1:2//")
    with pytest.raises(BrokerUnavailable, match=r"127.0.0.1:1.*127.0.0.1:2"):
        broker.publish([make_message("q")])


# --- what is there, and what is not


def test_a_queue_that_was_deleted_is_declared_again(
    opened: Any, url: str, queue: str, direct: Link
) -> None:
    broker = opened(url)
    broker.publish([make_message(queue)])
    direct.call(1, m.QUEUE_DELETE, queue, False, False, False)
    broker.publish([make_message(queue)])
    broker.publish([make_message(queue), make_message(queue)])
    assert ready(broker, queue) == 3


def test_a_queue_that_may_not_be_declared(opened: Any, url: str, queue: str) -> None:
    broker = opened(url)
    broker.definition = lambda name: Queue(name, declare=False)
    messages = [make_message(queue), make_message(queue)]
    with pytest.raises(PublishError, match=queue) as caught:
        broker.publish(messages)
    assert caught.value.failed == tuple(message.id for message in messages)


def test_an_exchange_that_is_missing(opened: Any, url: str, queue: str) -> None:
    broker = opened(url)
    message = make_message(queue, exchange="no-such-exchange", routing_key="k")
    with pytest.raises(PublishError, match="no-such-exchange") as caught:
        broker.publish([message])
    assert caught.value.failed == (message.id,)
    broker.publish([make_message(queue)])


def test_a_queue_with_other_properties(opened: Any, url: str, queue: str, direct: Link) -> None:
    arguments = {"x-max-priority": 5}
    direct.call(1, m.QUEUE_DECLARE, queue, False, True, False, False, False, arguments)
    with pytest.raises(BrokerUnavailable, match=rf"x-max-priority.*{queue}") as caught:
        opened(url).publish([make_message(queue)])
    assert "task_queues" in str(caught.value)
    with pytest.raises(BrokerUnavailable, match="x-max-priority"):
        opened(url).consumer([Queue(queue)], "node")
    consumer = opened(url).consumer([Queue(queue, max_priority=5)], "node")
    consumer.close()


def test_a_queue_that_is_full(opened: Any, url: str, queue: str) -> None:
    broker = opened(url)
    full = {"x-max-length": 2, "x-overflow": "reject-publish"}
    broker.declare([Queue(queue, queue_arguments=full)])
    messages = [make_message(queue) for _ in range(4)]
    with pytest.raises(PublishError, match="full") as caught:
        broker.publish(messages)
    assert caught.value.failed == tuple(message.id for message in messages[2:])
    assert ready(broker, queue) == 2


def test_a_queue_that_is_deleted_under_its_consumer(
    opened: Any, url: str, queue: str, direct: Link
) -> None:
    broker = opened(url)
    consumer = broker.consumer([Queue(queue)], "node")
    consumer.exchange((), 1)
    direct.call(1, m.QUEUE_DELETE, queue, False, False, False)
    assert is_readable(consumer, 10)
    consumer.drain()
    with pytest.raises(LeaseLost, match=queue):
        consumer.exchange((), 1)
    consumer.close()


def test_topic_exchanges(opened: Any, url: str, queue: str) -> None:
    broker = opened(url)
    exchange = f"x-{queue}"
    queues = [
        Queue(queue, bindings=[Binding(exchange, "topic", "a.#")]),
        Queue(queue + "-2", bindings=[Binding(exchange, "topic", "*.b"), Binding("", "direct")]),
    ]
    broker.declare(queues)
    address = {"exchange": exchange, "routing_key": "a.b"}
    task_id = new_id()
    copies = [make_message(q.name, task_id=task_id, **address) for q in queues]
    broker.publish(copies)
    broker.publish([make_message(queue, exchange=exchange, routing_key="a.c")])
    assert [ready(broker, q.name) for q in queues] == [2, 1]
    # Delayed copies are for one queue each; and what goes back goes to its own queue only.
    consumer = broker.consumer([queues[1]], "node")
    (found,) = claim(consumer, 1)
    again = make_message(queue + "-2", task_id=task_id, **address)
    consumer.exchange([Settlement(found, publish=[again])], 0)
    assert ids_of(claim(consumer, 1)) == [task_id]
    consumer.close()
    assert ready(broker, queue) == 2
    with pytest.raises(PublishError, match="other-key"):
        broker.publish([make_message(queue, exchange=exchange, routing_key="other-key")])
    link = broker.pool.take()
    link.call(link.ready(2), m.EXCHANGE_DELETE, exchange, False, False)
    broker.pool.give(link)


@pytest.mark.parametrize("kind", ["auto_delete", "exclusive"])
def test_a_message_for_all(opened: Any, url: str, queue: str, kind: str) -> None:
    """As ``Broadcast``: each consumer has a queue of its own, which goes with it."""
    broker = opened(url)
    exchange = f"x-{queue}"
    options: dict[str, Any] = {kind: True}
    queues = [
        Queue(queue + suffix, bindings=[Binding(exchange, "fanout", auto_delete=True)], **options)
        for suffix in ("", "-2")
    ]
    broker.declare(queues)
    consumers = [broker.consumer([one], "node") for one in queues]
    for consumer in consumers:
        consumer.room = 1
        consumer.exchange((), 1)
    sent = make_message(exchange, exchange=exchange, routing_key="")
    broker.definition = lambda name: Queue(name, declare=False)
    broker.publish([sent])
    found = [claim(consumer, 1)[0] for consumer in consumers]
    assert ids_of(found) == [sent.id] * 2
    consumers[0].room = 0  # a node without room still has its queue
    consumers[0].exchange((), 0)
    broker.publish([make_message(exchange, exchange=exchange)])
    consumers[0].room = 2
    claim(consumers[0], 1)
    for consumer in consumers:
        consumer.close()
    wait_for(lambda: ready(broker, queue) == 0, "it is gone")


# --- settling


def test_follow_ups_that_cannot_be_stored_leave_the_claim(
    opened: Any, url: str, queue: str
) -> None:
    broker = opened(url)
    broker.publish([make_message(queue), make_message(queue)])
    consumer = broker.consumer([Queue(queue)], "node")
    first, second = claim(consumer, 2)
    bad = make_message(queue, exchange="no-such-exchange", routing_key="k")
    good = make_message(queue)
    settlements = [Settlement(first, publish=[bad]), Settlement(second, publish=[good])]
    with pytest.raises(OperationalError, match="no-such-exchange"):
        consumer.exchange(settlements, 0)
    consumer.exchange([Settlement(first), settlements[1]], 0)
    found = claim(consumer, 1)
    assert ids_of(found) == [good.id]
    consumer.room = 0
    consumer.exchange([Settlement(found[0])], 0)
    consumer.close()
    assert ready(broker, queue) == 0


def test_acknowledgements_in_any_order(opened: Any, url: str, queue: str) -> None:
    broker = opened(url)
    broker.publish([make_message(queue) for _ in range(40)])
    consumer = broker.consumer([Queue(queue)], "node")
    found = claim(consumer, 40)
    left = {id_of(delivery) for delivery in found}
    for places in ([39, 3, 4], [0, 1, 2], [5, 6, 20, 21], list(range(7, 20))):
        consumer.exchange([Settlement(found[place]) for place in places], 0)
        left -= {id_of(found[place]) for place in places}
    consumer.close()
    again = broker.consumer([Queue(queue)], "node")
    assert set(ids_of(claim(again, len(left)))) == left
    again.close()


# --- alarms and time limits of the server


def test_a_server_that_is_short_of_memory(
    opened: Any, url: str, queue: str, rabbitmqctl: Callable[..., None]
) -> None:
    broker = opened(url, socket_timeout=1.0)
    broker.publish([make_message(queue), make_message(queue)])
    consumer = broker.consumer([Queue(queue)], "node")
    found = claim(consumer, 2)
    rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
    try:
        with pytest.raises(BrokerUnavailable, match="short of memory"):
            broker.publish([make_message(queue)])
        # Who only acknowledges is not held up.
        consumer.exchange([Settlement(found[0])], 0)
        with pytest.raises(OperationalError):
            consumer.exchange([Settlement(found[1], Action.DEAD, reason="r")], 0)
    finally:
        rabbitmqctl("set_vm_memory_high_watermark", "absolute", "2GB")
    broker.publish([make_message(queue)])
    consumer.exchange([Settlement(found[1])], 0)
    consumer.close()
    wait_for(lambda: ready(broker, queue) >= 1, "it was stored")


def test_claims_that_the_server_takes_back(
    opened: Any, url: str, queue: str, rabbitmqctl: Callable[..., None]
) -> None:
    """``consumer_timeout`` of the server, which closes the channel."""
    rabbitmqctl("eval", "application:set_env(rabbit, consumer_timeout, 1000).")
    rabbitmqctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
    try:
        broker = opened(url)
        broker.publish([make_message(queue)])
        consumer = broker.consumer([Queue(queue)], "node")
        claim(consumer, 1)

        def lost() -> str:
            try:
                consumer.drain()
                consumer.exchange((), 1)
            except LeaseLost as exc:
                return str(exc)
            return ""

        text = wait_for(lost, "the server takes it back", 30)
        assert "consumer_timeout" in text
        consumer.close()
        again = broker.consumer([Queue(queue)], "node")
        (found,) = claim(again, 1)
        assert found.deliveries == 2
        again.close()
    finally:
        rabbitmqctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
        rabbitmqctl("eval", "application:set_env(rabbit, channel_tick_interval, 60000).")
