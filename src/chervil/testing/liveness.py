"""The part of the brokers' suite about waking, leases, processes and threads."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from chervil.drivers.contracts import Action, Broker, Delivery, Depth, Queue, Settlement
from chervil.exceptions import LeaseLost
from chervil.testing.harness import (
    PATIENCE,
    BrokerHarness,
    Consume,
    claim,
    holds,
    id_of,
    ids_of,
    in_fork,
    is_readable,
    make_message,
    next_due,
    other_process,
    wait_for,
)


class LivenessConformance(BrokerHarness):
    """Part of :class:`chervil.testing.brokers.BrokerConformance`."""

    # --- purge, depth, revocation

    def test_purging_leaves_claims_alone(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        other = make_message(queue + "-other")
        broker.publish([*(make_message(queue) for _ in range(7)), other])
        consumer = consume()
        (mine,) = claim(consumer, 1)
        waiting = 6
        if broker.features.delay and broker.features.sees_delayed:
            broker.publish([make_message(queue, due=time.time() + 3600)])
            waiting += 1
        assert broker.purge(queue) == waiting
        assert broker.purge(queue) == 0
        assert broker.purge(queue + "-unknown") == 0
        holds(broker, queue, Depth(claimed=1))
        consumer.exchange([Settlement(mine)], 0)
        assert ids_of(claim(consume(queue + "-other"), 1)) == [other.id]

    def test_depths_count_everything(self, broker: Broker, queue: str, consume: Consume) -> None:
        broker.publish([make_message(queue) for _ in range(5)])
        first, second = claim(consumer := consume(), 2)
        consumer.room = 0
        consumer.exchange([Settlement(first, Action.DEAD, reason="x")], 0)
        features = broker.features
        delayed = 1 if features.delay and features.sees_delayed else 0
        broker.publish([make_message(queue, due=time.time() + 3600)] * delayed)
        found = broker.depths([queue, queue + "-unknown"])
        holds(broker, queue + "-unknown", Depth())
        depth = found[queue]
        holds(broker, queue, Depth(ready=3, delayed=delayed, claimed=1, dead=1))
        assert broker.depths()[queue].ready == 3
        if depth.oldest is not None:
            assert 0 <= depth.oldest <= PATIENCE
            before = depth.oldest
            wait_for(lambda: _age(broker, queue) > before, "the oldest ages")
        consumer.exchange([Settlement(second)], 0)
        holds(broker, queue, Depth(ready=3, delayed=delayed, dead=1))

    def test_revoked_tasks_are_marked(self, broker: Broker, queue: str, consume: Consume) -> None:
        messages = [make_message(queue) for _ in range(4)]
        broker.revoke([messages[0].id], time.time() + 3600)
        broker.publish(messages)
        broker.revoke([messages[2].id], time.time() + 3600)
        broker.revoke([messages[3].id], time.time() - 1)
        found = claim(consume(), 4)
        assert [delivery.revoked for delivery in found] == [True, False, True, False]

    # --- waking

    def test_publishing_wakes(self, broker: Broker, queue: str, consume: Consume) -> None:
        consumer = consume()
        assert not consumer.exchange((), 1)
        consumer.drain()
        assert not is_readable(consumer)
        threading.Thread(target=broker.publish, args=([make_message(queue)],)).start()
        assert is_readable(consumer, PATIENCE)
        assert consumer.drain()
        assert not is_readable(consumer)
        claim(consumer, 1)

    def test_other_processes_wake(
        self, broker: Broker, broker_url: str, queue: str, consume: Consume
    ) -> None:
        if not broker.features.shared:
            pytest.skip("the broker is in this process only")
        consumer = consume()
        assert not consumer.exchange((), 1)
        consumer.drain()
        code = (
            "broker = open_broker(url)\nsys.stdin.readline()\n"
            "broker.publish([make_message(queue)])\nbroker.close()\nprint('sent', flush=True)"
        )
        with other_process(code, url=broker_url, queue=queue) as process:
            assert process.stdin is not None
            assert not is_readable(consumer)
            process.stdin.write("\n")
            process.stdin.flush()
            assert is_readable(consumer, PATIENCE)
            assert consumer.drain()
            claim(consumer, 1)

    def test_what_goes_elsewhere_does_not_wake(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        consumer = consume()
        consumer.drain()
        broker.publish([make_message(queue + "-other")])
        assert not is_readable(consumer)

    def test_something_due_earlier_wakes(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        if not broker.features.delay or not broker.features.sees_delayed:
            pytest.skip("the broker cannot delay, or does not tell what is delayed")
        consumer = consume()
        far, near = time.time() + 3600, time.time() + 1800
        broker.publish([make_message(queue, due=far)])
        known = wait_for(lambda: next_due(consumer), "the time of the first")
        assert known == pytest.approx(far, abs=0.01)
        broker.publish([make_message(queue, due=near)])
        assert is_readable(consumer, PATIENCE)
        wait_for(lambda: next_due(consumer) == pytest.approx(near, abs=0.01), "that of the second")

    def test_what_is_given_back_wakes_others(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        broker.publish([make_message(queue), make_message(queue)])
        first, second = consume(), consume()
        one, _ = claim(first, 2)
        second.drain()
        first.room = 0
        first.exchange([Settlement(one, Action.REQUEUE)], 0)
        assert is_readable(second, PATIENCE)
        claim(second, 1)
        second.room = 1
        second.drain()
        first.close()
        assert is_readable(second, PATIENCE)
        claim(second, 1)

    def test_wake(self, consume: Consume) -> None:
        consumer = consume()
        consumer.drain()
        for _ in range(5000):  # more than any buffer holds
            consumer.wake()
        assert is_readable(consumer)
        assert consumer.drain()
        assert not is_readable(consumer)
        threading.Thread(target=consumer.wake).start()
        assert is_readable(consumer, PATIENCE)

    # --- leases

    def test_a_lost_lease_changes_nothing_any_more(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        messages = [make_message(queue) for _ in range(2)]
        broker.publish(messages)
        slow, quick = consume(lease=self.short_lease), consume()
        old = claim(slow, 2)
        self.take_back(quick, 2)
        assert is_readable(quick, PATIENCE)
        new = claim(quick, 2)
        assert ids_of(new) == ids_of(old)
        assert [delivery.deliveries for delivery in new] == [2, 2]
        with pytest.raises(LeaseLost):
            slow.exchange([Settlement(old[0]), Settlement(old[1], Action.DEAD)], 10)
        with pytest.raises(LeaseLost):
            slow.exchange((), 10)
        with pytest.raises(LeaseLost):
            slow.renew()
        # Nor through another consumer of the same node.
        third = consume()
        third.exchange([Settlement(delivery) for delivery in old], 0)
        slow.close()
        holds(broker, queue, Depth(claimed=2))
        quick.exchange([Settlement(delivery) for delivery in new], 0)
        holds(broker, queue, Depth())

    def test_a_renewed_lease_stays(self, broker: Broker, queue: str, consume: Consume) -> None:
        broker.publish([make_message(queue)])
        holder, other = consume(lease=self.short_lease), consume()
        (delivery,) = claim(holder, 1)
        end = time.monotonic() + 3 * self.short_lease
        while time.monotonic() < end:
            holder.renew()
            assert other.recover() == 0
            time.sleep(self.short_lease / 10)
        holder.exchange([Settlement(delivery)], 0)
        holds(broker, queue, Depth())

    def test_closing_gives_back_uncounted(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        messages = [make_message(queue) for _ in range(3)]
        broker.publish(messages)
        first = consume()
        done, *_ = claim(first, 3)
        first.exchange([Settlement(done)], 0)
        first.close()
        first.close()
        found = claim(consume(), 2)
        assert sorted(ids_of(found)) == sorted(message.id for message in messages[1:])
        assert [delivery.deliveries for delivery in found] == [1, 1]

    def test_the_claims_of_a_killed_process_come_back(
        self, broker: Broker, broker_url: str, queue: str, consume: Consume
    ) -> None:
        if not broker.features.shared:
            pytest.skip("the broker is in this process only")
        messages = [make_message(queue) for _ in range(5)]
        broker.publish(messages)
        code = (
            "consumer = open_broker(url).consumer([Queue(queue)], 'victim', lease)\n"
            "left = 3\n"
            "while left: left -= len(consumer.exchange((), left))\n"
            "print('claimed', flush=True)\nsys.stdin.readline()"
        )
        other = consume()
        values = {"url": broker_url, "queue": queue, "lease": self.crash_lease}
        with other_process(code, **values) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "claimed\n"
            assert other.recover() == 0
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.take_back(other, 3, self.crash_patience)
        found = claim(other, 5)
        counts = {id_of(delivery): delivery.deliveries for delivery in found}
        assert counts == {m.id: 2 if n < 3 else 1 for n, m in enumerate(messages)}

    # --- processes and threads

    def test_a_forked_child_can_use_the_broker(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        sent, from_child = make_message(queue), make_message(queue)
        broker.publish([sent])
        consumer = consume()

        def child() -> None:
            before = broker.depths([queue])[queue].ready
            broker.publish([from_child])
            assert broker.depths([queue])[queue].ready == before + 1

        for _ in range(3):
            assert in_fork(child) == 0
        assert broker.depths([queue])[queue].ready == (4 if broker.features.shared else 1)
        found = claim(consumer, broker.depths([queue])[queue].ready)
        assert set(ids_of(found)) <= {sent.id, from_child.id}
        # The child's end did not end the lease of its parent.
        consumer.exchange([Settlement(delivery) for delivery in found], 0)
        holds(broker, queue, Depth())

    def test_forking_while_other_threads_publish(self, broker: Broker, queue: str) -> None:
        stop = threading.Event()
        failed: list[BaseException] = []
        sent = [0, 0]

        def publish(place: int) -> None:
            try:
                while not stop.is_set():
                    broker.publish([make_message(queue)])
                    sent[place] += 1
            except BaseException as exc:
                failed.append(exc)

        threads = [threading.Thread(target=publish, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                assert in_fork(lambda: broker.publish([make_message(queue)])) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failed
        from_children = 10 if broker.features.shared else 0
        assert broker.depths([queue])[queue].ready == sum(sent) + from_children

    def test_each_message_once_under_load(
        self, queue: str, open_more: Callable[[], Broker]
    ) -> None:
        publishers, consumers, each = 4, 3, 300
        total = publishers * each
        seen: Counter[str] = Counter()
        failed: list[BaseException] = []
        lock = threading.Lock()

        def publish(broker: Broker) -> None:
            left = each
            while left:
                size = min(left, 1 + left % 7)
                broker.publish([make_message(queue) for _ in range(size)])
                left -= size

        def consume(broker: Broker) -> None:
            consumer = broker.consumer([Queue(queue)], threading.current_thread().name, 60.0)
            found: list[Delivery] = []
            deadline = time.monotonic() + 6 * PATIENCE
            while seen.total() < total and time.monotonic() < deadline:
                found = list(consumer.exchange([Settlement(d) for d in found], 13))
                with lock:
                    seen.update(ids_of(found))
                if not found:
                    is_readable(consumer, 0.05)
                    consumer.drain()
            consumer.exchange([Settlement(d) for d in found], 0)
            consumer.close()

        def run(work: Callable[[Broker], None], broker: Broker) -> None:
            try:
                work(broker)
            except BaseException as exc:
                failed.append(exc)

        shared = open_more()
        works = [(publish, shared if n % 2 else open_more()) for n in range(publishers)]
        works += [(consume, shared if n % 2 else open_more()) for n in range(consumers)]
        threads = [threading.Thread(target=run, args=work) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert len(seen) == total
        assert set(seen.values()) == {1}
        holds(shared, queue, Depth())


def _age(broker: Broker, queue: str) -> float:
    return broker.depths([queue])[queue].oldest or 0.0
