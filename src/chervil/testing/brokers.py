"""What every broker must do, as tests: inherit them, and say where the broker is.

.. code-block:: python

    class TestMine(BrokerConformance):
        @pytest.fixture
        def broker_url(self) -> str:
            return "mine://localhost"

Each test uses queues of its own, so the storage need not be empty.
"""

from __future__ import annotations

import time

import pytest

from chervil.drivers.contracts import (
    Action,
    Broker,
    Depth,
    Queue,
    ResultStore,
    Settlement,
)
from chervil.states import SUCCESS
from chervil.testing.harness import (
    PATIENCE,
    Consume,
    claim,
    holds,
    id_of,
    ids_of,
    is_readable,
    make_message,
    next_due,
    wait_for,
)
from chervil.testing.joining import SettledJoinConformance
from chervil.testing.liveness import LivenessConformance
from chervil.wire.envelope import decode_head
from chervil.wire.message import Outcome


class BrokerConformance(LivenessConformance, SettledJoinConformance):
    """The whole suite. Subclasses define the fixture ``broker_url``."""

    # --- order

    def test_messages_come_back_as_they_were_sent(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        body = bytes(range(256)) * 3
        message = make_message(queue, body, reply_to="me", priority=3)
        broker.publish([message])
        (delivery,) = claim(consume(), 1)
        head = decode_head(delivery.head)
        assert (head.id, head.task) == (message.id, "conformance.task")
        assert (head.reply_to, head.priority) == ("me", 3)
        assert delivery.queue == queue
        assert (delivery.deliveries, delivery.revoked) == (1, False)
        if delivery.body is not None:
            assert delivery.body == body

    def test_first_in_first_out(self, broker: Broker, queue: str, consume: Consume) -> None:
        messages = [make_message(queue) for _ in range(75)]
        broker.publish(messages[:1])
        broker.publish(messages[1:48])
        broker.publish(messages[48:])
        consumer = consume()
        found = [d for size in (1, 30, 44) for d in claim(consumer, size)]
        assert ids_of(found) == [message.id for message in messages]
        assert not consumer.exchange([Settlement(d) for d in found], 10)

    def test_larger_priorities_first(self, broker: Broker, queue: str, consume: Consume) -> None:
        if not broker.features.priority:
            pytest.skip("the broker has no priorities")
        given = [0, 9, 4, 0, 9, 4]
        messages = [make_message(queue, priority=priority) for priority in given]
        broker.publish(messages)
        found = claim(consume(), 6)
        order = [messages[place].id for place in (1, 4, 2, 5, 0, 3)]
        assert ids_of(found) == order

    def test_priorities_hold_across_batches(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        if not broker.features.priority:
            pytest.skip("the broker has no priorities")
        low, high = make_message(queue, priority=1), make_message(queue, priority=8)
        later = make_message(queue, priority=1)
        broker.publish([low, later])
        broker.publish([high])
        consumer = consume()
        assert ids_of(claim(consumer, 2)) == [high.id, low.id]
        assert ids_of(claim(consumer, 1)) == [later.id]

    def test_no_queue_starves_another(self, broker: Broker, queue: str, consume: Consume) -> None:
        busy, quiet = queue + "-busy", queue + "-quiet"
        broker.publish([make_message(busy) for _ in range(50)])
        wanted = make_message(quiet)
        broker.publish([wanted])
        consumer = consume(busy, quiet)
        seen = [id_of(d) for _ in range(4) for d in claim(consumer, 5)]
        assert wanted.id in seen

    def test_consumers_get_only_their_queues(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        mine, other = make_message(queue), make_message(queue + "-other")
        broker.publish([other, mine])
        consumer = consume()
        assert ids_of(claim(consumer, 1)) == [mine.id]
        assert not consumer.exchange((), 10)

    def test_limits_hold(self, broker: Broker, queue: str, consume: Consume) -> None:
        broker.publish([make_message(queue) for _ in range(10)])
        consumer = consume()
        assert not consumer.exchange((), 0)
        assert len(consumer.exchange((), 3)) <= 3

    def test_declaring_twice(self, broker: Broker, queue: str) -> None:
        broker.declare([Queue(queue)])
        broker.declare([Queue(queue)])
        assert queue in broker.depths()
        holds(broker, queue, Depth())

    def test_publishing_nothing(self, broker: Broker) -> None:
        broker.publish([])

    # --- delay

    def test_delayed_messages_wait(self, broker: Broker, queue: str, consume: Consume) -> None:
        if not broker.features.delay:
            pytest.skip("the broker cannot delay")
        consumer = consume()
        due = time.time() + 1.0
        late, now = make_message(queue, due=due), make_message(queue)
        broker.publish([late, now])
        assert ids_of(claim(consumer, 1)) == [now.id]
        assert not consumer.exchange((), 10)
        if broker.features.sees_delayed:
            known = wait_for(lambda: next_due(consumer), "the time of the delayed one")
            assert known == pytest.approx(due, abs=0.01)
            assert broker.depths([queue])[queue].delayed == 1
        (delivery,) = claim(consumer, 1)
        assert time.time() >= due
        assert (id_of(delivery), delivery.deliveries) == (late.id, 1)
        assert not consumer.exchange([Settlement(delivery)], 10)
        if broker.features.sees_delayed:
            assert consumer.next_due() is None

    def test_what_is_due_is_not_delayed(self, broker: Broker, queue: str, consume: Consume) -> None:
        message = make_message(queue, due=time.time() - 60)
        broker.publish([message])
        assert ids_of(claim(consume(), 1)) == [message.id]

    # --- settling

    def test_acknowledged_messages_are_gone(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        broker.publish([make_message(queue) for _ in range(5)])
        consumer = consume()
        found = claim(consumer, 5)
        holds(broker, queue, Depth(claimed=5))
        # In any order, and some twice.
        settlements = [Settlement(found[place]) for place in (3, 0, 4, 1, 1, 2, 3)]
        assert not consumer.exchange(settlements, 10)
        holds(broker, queue, Depth())

    def test_settling_twice_changes_nothing(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        consumer = consume()
        broker.publish([make_message(queue)])
        (first,) = claim(consumer, 1)
        consumer.exchange([Settlement(first)], 0)
        second = make_message(queue)
        broker.publish([second])
        claim(consumer, 1)
        consumer.exchange([Settlement(first)], 0)
        consumer.exchange([Settlement(first, Action.REQUEUE)], 0)
        holds(broker, queue, Depth(claimed=1))

    def test_requeued_messages_come_first(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
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
        assert sorted(ids_of(found)[:2]) == sorted(m.id for m in messages[:2])
        counts = {id_of(delivery): delivery.deliveries for delivery in found}
        assert counts == {messages[0].id: 2, messages[1].id: 1, messages[2].id: 1}

    def test_deferred_messages_wait(self, broker: Broker, queue: str, consume: Consume) -> None:
        if not broker.features.delay:
            pytest.skip("the broker cannot delay")
        messages = [make_message(queue), make_message(queue)]
        broker.publish(messages)
        consumer = consume()
        counted, uncounted = claim(consumer, 2)
        until = time.time() + 0.3
        settlements = [
            Settlement(counted, Action.DEFER, until=until),
            Settlement(uncounted, Action.DEFER, until=until, counted=False),
        ]
        assert not consumer.exchange(settlements, 10)
        if broker.features.sees_delayed:
            assert consumer.next_due() == pytest.approx(until, abs=0.01)
        found = claim(consumer, 2)
        assert time.time() >= until
        counts = {id_of(delivery): delivery.deliveries for delivery in found}
        assert counts == {messages[0].id: 2, messages[1].id: 1}

    def test_follow_ups_are_stored_with_the_settlement(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        broker.publish([make_message(queue)])
        consumer = consume()
        (delivery,) = claim(consumer, 1)
        here, there = make_message(queue), make_message(queue + "-next")
        found = list(consumer.exchange([Settlement(delivery, publish=[here, there])], 10))
        found = found or claim(consumer, 1)
        assert ids_of(found) == [here.id]
        assert ids_of(claim(consume(queue + "-next"), 1)) == [there.id]

    def test_outcomes_are_stored_with_the_settlement(
        self, broker: Broker, queue: str, consume: Consume, store: ResultStore
    ) -> None:
        broker.publish([make_message(queue) for _ in range(3)])
        consumer = consume()
        found = claim(consumer, 3)
        outcomes = [Outcome(id_of(d), SUCCESS, b"payload of " + id_of(d).encode()) for d in found]
        settlements = [Settlement(d, outcome=o) for d, o in zip(found, outcomes, strict=True)]
        consumer.exchange(settlements, 0)
        assert store.get(ids_of(found)) == {outcome.task_id: outcome for outcome in outcomes}

    # --- dead letters

    def test_dead_letters_are_kept(self, broker: Broker, queue: str, consume: Consume) -> None:
        messages = [make_message(queue, b"body %d" % n) for n in range(3)]
        broker.publish(messages)
        consumer = consume()
        for n, delivery in enumerate(claim(consumer, 3)):
            settlement = Settlement(delivery, Action.DEAD, reason=f"no {n}", detail="why\n\ud800")
            consumer.exchange([settlement], 0)
        holds(broker, queue, Depth(dead=3))
        letters = broker.dead(queue)
        assert [decode_head(letter.head).id for letter in letters] == [m.id for m in messages]
        assert [letter.reason for letter in letters] == ["no 0", "no 1", "no 2"]
        assert letters[0].queue == queue
        assert letters[0].detail.startswith("why\n")
        assert letters[0].deliveries == 1
        assert letters[0].died_at == pytest.approx(time.time(), abs=PATIENCE)
        if letters[0].body is not None:
            assert letters[0].body == b"body 0"
        assert broker.dead(queue, limit=1) == letters[:1]
        assert broker.dead(queue, limit=10, after=letters[0].key) == letters[1:]
        assert letters[2].key in [letter.key for letter in broker.dead(limit=100_000)]
        assert broker.dead(queue + "-other") == []

    def test_dead_letters_are_replayed_and_dropped(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        broker.publish([make_message(queue) for _ in range(3)])
        consumer = consume()
        found = claim(consumer, 3)
        consumer.exchange([Settlement(d, Action.DEAD, reason="r") for d in found], 0)
        first, second, third = (letter.key for letter in broker.dead(queue))
        consumer.drain()
        assert broker.replay([first, "no key"]) == 1
        assert is_readable(consumer, PATIENCE)
        (again,) = claim(consumer, 1)
        assert (id_of(again), again.deliveries) == (id_of(found[0]), 1)
        assert broker.drop([second, first]) == 1
        assert [letter.key for letter in broker.dead(queue)] == [third]
        holds(broker, queue, Depth(claimed=1, dead=1))
