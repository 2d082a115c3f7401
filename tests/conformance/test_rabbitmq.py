"""RabbitMQ through the suite of brokers, with classic and with quorum queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.location import parse
from chervil.drivers.contracts import Action, Broker, Consumer, Queue, Settlement
from chervil.exceptions import BrokerUnavailable
from chervil.testing.brokers import BrokerConformance
from chervil.testing.harness import PATIENCE, Consume, claim, id_of, ids_of, make_message

pytestmark = pytest.mark.requires_server("rabbitmq")


class TestClassic(BrokerConformance):
    short_lease = 1.0
    crash_lease = 2.0

    def take_back(self, consumer: Consumer, count: int, patience: float = PATIENCE) -> None:
        """The server does it, when it hears no heartbeats for two of their periods."""
        consumer.room = 5
        consumer.drain()

    @pytest.fixture
    def broker_url(self, server_url: Callable[[str], str]) -> str:
        return server_url("rabbitmq")

    @pytest.fixture(autouse=True)
    def tidy(self, broker_url: str, queue: str) -> Iterator[None]:
        yield
        link = Link(parse(broker_url, {}), BrokerUnavailable)
        for suffix in ("", "-other", "-next", "-busy", "-quiet", "-unknown"):
            link.call(1, m.QUEUE_DELETE, queue + suffix, False, False, False)
        link.call(1, m.QUEUE_DELETE, "chervil.dead", False, False, False)
        link.close()

    @pytest.fixture
    def ranked(self, broker: Broker, queue: str) -> Iterator[Consumer]:
        """A consumer of a queue that has priorities."""
        consumer = broker.consumer([Queue(queue, max_priority=9)], "node", 60.0)
        yield consumer
        consumer.close()

    def test_larger_priorities_first(  # type: ignore[override]
        self, broker: Broker, queue: str, ranked: Consumer
    ) -> None:
        given = [0, 9, 4, 0, 9, 4]
        messages = [make_message(queue, priority=priority) for priority in given]
        broker.publish(messages)
        order = [messages[place].id for place in (1, 4, 2, 5, 0, 3)]
        assert ids_of(claim(ranked, 6)) == order

    def test_priorities_hold_across_batches(  # type: ignore[override]
        self, broker: Broker, queue: str, ranked: Consumer
    ) -> None:
        low, high = make_message(queue, priority=1), make_message(queue, priority=8)
        later = make_message(queue, priority=1)
        broker.publish([low, later])
        broker.publish([high])
        assert ids_of(claim(ranked, 2)) == [high.id, low.id]
        assert ids_of(claim(ranked, 1)) == [later.id]

    def test_requeued_messages_come_first(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        """Not here: what is counted is stored anew, at the end. What is not counted goes back
        to its place, though the server may send others first; and a classic queue only knows
        that it was delivered before."""
        messages = [make_message(queue) for _ in range(3)]
        broker.publish(messages)
        consumer = consume()
        first, second = claim(consumer, 2)
        settlements = [
            Settlement(first, Action.REQUEUE),
            Settlement(second, Action.REQUEUE, counted=False),
        ]
        consumer.exchange(settlements, 0)
        found = claim(consumer, 3)
        counts = {id_of(delivery): delivery.deliveries for delivery in found}
        assert counts == {messages[0].id: 2, messages[1].id: 2, messages[2].id: 1}

    def test_closing_gives_back_uncounted(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        """Not here: the server counts it as one delivery more, and only once."""
        messages = [make_message(queue) for _ in range(3)]
        broker.publish(messages)
        for _ in range(2):
            consumer = consume()
            claim(consumer, 3)
            consumer.close()
            consumer.close()
        found = claim(consume(), 3)
        assert ids_of(found) == [message.id for message in messages]
        assert [delivery.deliveries for delivery in found] == [2, 2, 2]


class TestQuorum(TestClassic):
    @pytest.fixture
    def broker_url(self, server_url: Callable[[str], str]) -> str:
        return server_url("rabbitmq") + "?queue_type=quorum"

    def test_requeued_messages_come_first(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        """Not here: both are stored anew, and so counted exactly."""
        messages = [make_message(queue) for _ in range(3)]
        broker.publish(messages)
        consumer = consume()
        consumer.room = 3
        first, second, last = claim(consumer, 3)
        assert id_of(last) == messages[2].id
        settlements = [
            Settlement(first, Action.REQUEUE),
            Settlement(second, Action.REQUEUE, counted=False),
        ]
        consumer.exchange(settlements, 0)
        found = claim(consumer, 2)
        counts = {id_of(delivery): delivery.deliveries for delivery in found}
        assert counts == {messages[0].id: 2, messages[1].id: 1}

    def test_closing_gives_back_uncounted(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        """Not here: the server counts it."""
        broker.publish([make_message(queue)])
        for times in (1, 2, 3):
            consumer = consume()
            (delivery,) = claim(consumer, 1)
            assert delivery.deliveries == times
            consumer.close()
