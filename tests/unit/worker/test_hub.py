"""The hub's loop, with the memory broker and executors that the test plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from chervil.drivers.contracts import Delivery, Settlement
from chervil.exceptions import BrokerUnavailable, LeaseLost
from chervil.pools.frames import Extra, Kind, job_number, pack_report, unpack_job
from chervil.signals import task_dead_lettered
from chervil.worker.shutdown import WARM
from tests.support.hubs import Bench
from tests.support.waiting import wait_until


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**kwargs: Any) -> Bench:
        made.append(Bench(**kwargs))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def test_claims_what_can_start_and_settles_what_ended(make: Any) -> None:
    bench = make(slots=2)
    for _ in range(5):
        bench.noop.delay()
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) == 2)
    assert bench.depth() == (3, 2)
    bench.executors.end(2, runtime=1.0)
    wait_until(lambda: len(bench.executors.jobs) == 2 and bench.depth() == (1, 2))
    bench.executors.end(2, runtime=1.0)
    wait_until(lambda: len(bench.executors.jobs) == 1)
    bench.executors.end(1, runtime=1.0)
    wait_until(lambda: bench.depth() == (0, 0))
    assert bench.hub.processed == 5


def test_stays_hungry_when_tasks_become_longer(make: Any) -> None:
    """More may be in flight than is wanted by then; what waits is still claimed after."""
    bench = make(slots=2)
    bench.appetite.ran(0.00001 * 1000, 1000)  # so short that there is a large surplus
    for _ in range(300):
        bench.noop.delay()
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) >= 100)
    bench.executors.end(10, runtime=5.0)
    wait_until(lambda: bench.appetite.allowed == 2)
    while (left := sum(bench.depth())) > 0:
        wait_until(lambda: bench.executors.jobs, 2, "nothing is claimed although work waits")
        bench.executors.end(len(bench.executors.jobs), runtime=5.0)
        wait_until(lambda: sum(bench.depth()) < left, 2)


def test_a_surplus_that_nobody_begins_is_given_back(make: Any) -> None:
    bench = make(slots=2)
    bench.appetite.ran(0.00001 * 1000, 1000)
    for _ in range(20):
        bench.noop.delay()
    bench.start()
    wait_until(lambda: bench.executors.jobs)
    taken = [bench.executors.jobs.pop(0) for _ in range(2)]  # two long tasks begin
    wait_until(lambda: bench.depth() == (18, 2), 5, "the rest goes back")
    assert bench.executors.jobs == []
    for frame in taken:
        assert unpack_job(frame).deliveries == 1


def test_given_back_deliveries_do_not_count(make: Any) -> None:
    bench = make(slots=2)
    for _ in range(3):
        bench.noop.delay()
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) == 2)
    bench.stop(WARM)
    bench.join()
    again = bench.app.broker.consumer(bench.app.router.select(None, None), "m", 60)
    claimed = again.exchange([], 10)
    assert [delivery.deliveries for delivery in claimed] == [1, 1, 1]
    again.close()


def test_warm_stop_waits_for_what_runs(make: Any) -> None:
    bench = make(slots=1)
    bench.noop.delay()
    bench.start()
    wait_until(lambda: bench.executors.jobs)
    running = bench.executors.jobs
    bench.executors.jobs = []  # it has begun, so it cannot be taken back
    bench.stop(WARM)
    bench.noop.delay()
    assert bench._thread.is_alive()
    bench.executors.jobs = running
    bench.executors.end(1)
    bench.join()
    assert bench.depth() == (1, 0)


class Failing:
    """A consumer whose exchanges fail as often as told."""

    def __init__(self, inner: Any, error: type[Exception], times: int) -> None:
        self._inner, self._error, self.left = inner, error, times
        self.seen: list[int] = []

    def exchange(self, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
        self.seen.append(len(settlements))
        if settlements and self.left:
            self.left -= 1
            raise self._error("not now")
        return self._inner.exchange(settlements, limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_what_could_not_be_settled_is_settled_later(make: Any) -> None:
    failing: list[Failing] = []

    def wrap(inner: Any) -> Failing:
        failing.append(Failing(inner, BrokerUnavailable, 3))
        return failing[0]

    bench = make(slots=2, consumer=wrap)
    bench.noop.delay()
    bench.start()
    wait_until(lambda: bench.executors.jobs)
    bench.executors.end(1)
    wait_until(lambda: bench.depth() == (0, 0), 10)
    assert failing[0].left == 0


def test_a_lost_lease_means_starting_over(make: Any) -> None:
    bench = make(slots=2, consumer=lambda inner: Failing(inner, LeaseLost, 1))
    reopened: list[Any] = []

    def reopen() -> Any:
        bench.consumer.close()  # gives the claims to whoever comes next
        reopened.append(bench.app.broker.consumer(bench.app.router.select(None, None), "n", 60))
        bench.consumer = reopened[-1]
        return reopened[-1]

    bench.hub.reopen = reopen
    for _ in range(2):
        bench.noop.delay()
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) == 2)
    begun = bench.executors.jobs.pop()
    bench.executors.end(1)  # and settling it finds the lease lost
    wait_until(lambda: reopened)
    wait_until(lambda: bench.depth() == (0, 1), 10, "what had ended is settled")
    assert not bench.executors.jobs, "what ran goes on"
    bench.executors.jobs.append(begun)
    bench.executors.end(1)
    wait_until(lambda: bench.depth() == (0, 0))
    assert bench.app.broker.dead() == []


def test_what_others_have_got_is_theirs(make: Any) -> None:
    bench = make(slots=2, consumer=lambda inner: Failing(inner, LeaseLost, 1))
    broker, queues = bench.app.broker, bench.app.router.select(None, None)
    other: list[Any] = []

    def reopen() -> Any:
        bench.consumer.close()
        other.append(broker.consumer(queues, "other", 60))
        other.extend(other[0].exchange((), 10))
        bench.consumer = broker.consumer(queues, "n", 60)
        return bench.consumer

    bench.hub.reopen = reopen
    for _ in range(2):
        bench.noop.delay()
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) == 2)
    begun = bench.executors.jobs.pop()
    bench.executors.end(1)
    wait_until(lambda: len(other) == 3)
    bench.executors.jobs.append(begun)
    bench.executors.end(1)
    bench.noop.delay()
    wait_until(lambda: len(bench.executors.jobs) == 1)
    bench.executors.end(1)
    wait_until(lambda: bench.hub.processed == 2)
    wait_until(lambda: bench.depth() == (0, 2), 10, "the claims of the other are untouched")
    # Given back, they come to the first one again: it settles what it has run.
    other[0].close()
    wait_until(lambda: bench.depth() == (0, 0))
    assert not bench.executors.jobs


def test_acknowledged_before_it_runs(make: Any) -> None:
    bench = make(slots=2)
    for _ in range(4):
        bench.early.delay()
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) == 2)
    assert bench.depth() == (2, 0), "gone from the broker before they begin"
    bench.executors.end(2)
    wait_until(lambda: len(bench.executors.jobs) == 2)
    bench.executors.end(2)
    wait_until(lambda: bench.hub.processed == 4)


def test_what_a_dead_executor_had_not_begun_is_sent_again_at_once(make: Any) -> None:
    """The fleet reports it in its place, and nothing tells of that report."""
    bench = make(slots=1)
    bench.noop.delay()
    bench.start()
    wait_until(lambda: bench.executors.jobs)
    (taken,), bench.executors.jobs = bench.executors.jobs, []
    late: list[bytes] = []
    reports = bench.executors.reports

    def with_late() -> list[bytes]:
        found = [*reports(), *late]
        late.clear()
        return found

    class Fleet:
        def exits(self) -> tuple[list[str], bool]:
            return ["an exit"], False

        def bury(self, _exit: str) -> None:
            late.append(pack_report(job_number(taken), Kind.NOT_BEGUN, 0.0, b""))

    bench.executors.reports = with_late
    on_wakeup = bench.hub._on_wakeup

    def on_exit() -> None:
        bench.hub._on_wakeup = on_wakeup
        on_wakeup()
        bench.hub._on_exits(Fleet())

    bench.hub._on_wakeup = on_exit
    bench._wakeup_in.send(b"!")
    wait_until(lambda: bench.executors.jobs == [taken], 10)
    bench.executors.end(1)
    wait_until(lambda: bench.depth() == (0, 0))


def test_dead_letters_are_told_of_when_they_are_stored(make: Any) -> None:
    """Not before: what cannot be stored may be run again."""
    told: list[dict[str, Any]] = []
    ready: list[int] = []

    def receive(signal: Any, sender: Any, **named: Any) -> None:
        told.append({"sender": sender, **named})
        ready.append(len(bench.app.broker.dead()))

    bench = make(slots=2, consumer=lambda inner: Failing(inner, BrokerUnavailable, 2))
    task_dead_lettered.connect(receive)
    try:
        bench.noop.delay()
        bench.noop.delay()
        bench.start()
        wait_until(lambda: len(bench.executors.jobs) == 2)
        (first, _), bench.executors.jobs = bench.executors.jobs, bench.executors.jobs[1:]
        bench.executors._reports.append(
            pack_report(job_number(first), Kind.REJECTED, 0.0, b"", Extra("", reason="bad"))
        )
        bench.executors.end(1)
        wait_until(lambda: told, 10)
    finally:
        task_dead_lettered.disconnect(receive)
    assert ready == [1]
    assert [(call["sender"].name, call["reason"], call["queue"]) for call in told] == [
        ("noop", "bad", "celery")
    ]
    assert (told[0]["deliveries"], told[0]["name"]) == (1, "noop")
    assert told[0]["task_id"]
    assert bench.hub.dead_letters == {"celery": 1}


def test_waiting_jobs_that_are_acknowledged_stay_and_are_left_alone(make: Any) -> None:
    bench = make(slots=2)
    bench.appetite.ran(0.00001 * 1000, 1000)
    for _ in range(20):
        bench.early.delay()
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) == 20)
    first = [bench.executors.jobs.pop(0) for _ in range(2)]  # two long ones begin
    waiting = list(bench.executors.jobs)
    wait_until(lambda: bench.executors.taken_back)
    wait_until(lambda: bench.executors.jobs == waiting, 5, "they are as they were")
    bench.executors.jobs = [*first, *waiting]
    bench.executors.end(20)
    wait_until(lambda: bench.hub.processed == 20)
    assert bench.executors.taken_back < 5, "once, and not in a loop"


def test_follow_ups_are_stored_before_a_warm_stop_ends(make: Any) -> None:
    """Those of jobs that were acknowledged early, with the broker away for a while."""
    bench = make(slots=1)
    bench.early.delay()
    bench.start()
    wait_until(lambda: bench.executors.jobs)
    follow = bench.app.publisher.message("noop", (), {}, {})
    publish, failures = bench.app.broker.publish, [BrokerUnavailable("away")] * 3

    def unreliable(messages: Any) -> None:
        if failures:
            raise failures.pop()
        publish(messages)

    bench.app.broker.publish = unreliable
    (frame,), bench.executors.jobs = bench.executors.jobs, []
    bench.executors._reports.append(
        pack_report(job_number(frame), Kind.RETRY, 0.0, b"", Extra("RETRY", [follow]))
    )
    bench.executors._in.send(b"!")
    bench.stop(WARM)
    bench.join()
    assert bench.depth() == (1, 0)
