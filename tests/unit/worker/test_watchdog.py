"""A node that has room, and gets nothing although work waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from chervil.drivers.contracts import Delivery, Settlement
from chervil.worker.watchdog import Watchdog
from tests.support.hubs import Bench
from tests.support.waiting import wait_until


class Deaf:
    """A consumer that is not told of messages; it finds them when it looks."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.called = False
        #: Finds none either.
        self.blind = False
        self.inside = threading.Event()
        self.hold = threading.Event()
        self.hold.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def wake(self) -> None:
        self.called = True
        self._inner.wake()

    def drain(self) -> bool:
        self._inner.drain()
        called, self.called = self.called, False
        return called

    def exchange(self, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
        self.inside.set()
        self.hold.wait(20)
        found: Sequence[Delivery] = self._inner.exchange(settlements, 0 if self.blind else limit)
        return found


class Kennel:
    """A bench with a deaf consumer and a watchdog, whose clock the test moves."""

    def __init__(self) -> None:
        self.consumers: list[Deaf] = []
        self.bench = Bench(slots=2, consumer=self._wrap)
        hub = self.bench.hub
        hub.reopen = lambda: self._wrap(self.bench.consumer)
        self.now = 1000.0
        self.watchdog = Watchdog(
            hub,
            self.bench.app.broker,
            ["celery"],
            lambda: self.consumers[-1].wake(),
            hub.replace_consumer,
            turns=True,
        )
        self.bench.start()
        wait_until(lambda: hub.idle_since is not None)

    def _wrap(self, consumer: Any) -> Any:
        self.consumers.append(Deaf(consumer))
        return self.consumers[-1]

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.watchdog.look(self.now)

    def pass_until(self, text: str, log: Callable[[], str]) -> None:
        """Not a second further than it takes to say that."""
        for _ in range(60):
            if text in log():
                return
            self.pass_seconds(1)
        raise AssertionError(f"not said: {text!r}; said: {log()}")


@pytest.fixture
def kennel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kennel]:
    monkeypatch.setattr("chervil.worker.hub._SAFETY_SECONDS", 0.02)
    kennel = Kennel()
    # The clock of the test is ahead of the hub's turns, which are looked at elsewhere.
    kennel.watchdog._turns = False
    yield kennel
    for consumer in kennel.consumers:
        consumer.hold.set()
    kennel.bench.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.INFO, "chervil.worker")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def test_a_lost_wake_up_is_made_up_for(kennel: Kennel, log: Callable[[], str]) -> None:
    bench = kennel.bench
    kennel.pass_seconds(20)
    assert log() == "", "an idle node is no trouble"
    bench.noop.delay()
    kennel.pass_until("was not told that 1 messages wait (queues: celery)", log)
    wait_until(lambda: len(bench.executors.jobs) == 1, what="the message is found")
    bench.executors.end(1)
    wait_until(lambda: bench.hub.idle_since is not None and bench.hub.processed == 1)
    kennel.pass_seconds(10)
    assert log().count("\n") == 1
    assert "This node gets messages again" in log()


def test_a_consumer_of_no_use_is_replaced(kennel: Kennel, log: Callable[[], str]) -> None:
    bench = kennel.bench
    kennel.consumers[0].blind = True
    bench.noop.delay()
    kennel.pass_until("still gets none of the 1 messages", log)
    assert "it connects anew" in log()
    wait_until(lambda: len(kennel.consumers) == 2, what="the consumer is replaced")
    wait_until(lambda: len(bench.executors.jobs) == 1)
    assert "lease ran out" not in log()


def test_what_runs_is_not_given_up(kennel: Kennel, log: Callable[[], str]) -> None:
    bench = kennel.bench
    bench.noop.delay()
    kennel.pass_until("was not told", log)
    wait_until(lambda: len(bench.executors.jobs) == 1)
    wait_until(lambda: bench.hub.idle_since is not None, what="there is room for another")
    kennel.consumers[0].blind = True
    bench.noop.delay()
    kennel.pass_until("it goes on looking while its tasks run", log)
    assert len(kennel.consumers) == 1
    kennel.consumers[0].blind = False
    kennel.pass_seconds(2)
    wait_until(lambda: len(bench.executors.jobs) == 2)


def test_a_full_node_is_no_trouble(kennel: Kennel, log: Callable[[], str]) -> None:
    bench = kennel.bench
    bench.appetite.ran(10.0, 1)
    for _ in range(5):
        bench.noop.delay()
    kennel.consumers[0].wake()
    wait_until(lambda: len(bench.executors.jobs) == 2 and bench.hub.idle_since is None)
    kennel.pass_seconds(30)
    assert log() == ""


def test_others_may_take_what_waits(kennel: Kennel, log: Callable[[], str]) -> None:
    """What is seen once may be on its way to somebody else."""
    for _ in range(3):
        kennel.pass_seconds(5)
        kennel.bench.noop.delay()
        while not kennel.watchdog._seen:
            kennel.pass_seconds(1)
        kennel.bench.app.broker.purge("celery")
        kennel.pass_seconds(2)
    assert log() == ""


def test_a_loop_that_stands_still_is_said(kennel: Kennel, log: Callable[[], str]) -> None:
    hub, consumer = kennel.bench.hub, kennel.consumers[0]
    kennel.watchdog._turns = True
    consumer.inside.clear()
    consumer.hold.clear()
    consumer.wake()
    assert consumer.inside.wait(10)
    kennel.now = hub.beat
    kennel.pass_seconds(29)
    assert log() == ""
    kennel.pass_seconds(6)
    assert log().count("The worker's loop has been at one step for 30 s") == 1
    assert "self.hold.wait(20)" in log()
