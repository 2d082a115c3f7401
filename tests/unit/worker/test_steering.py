"""Cancelling in the hub, before a job begins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chervil import signals
from chervil.pools.frames import Kind, job_number, pack_report
from tests.support.waiting import wait_until
from tests.unit.worker.test_hub import Bench, make

__all__ = ["make"]


@pytest.fixture
def revoked() -> Iterator[list[dict[str, Any]]]:
    """What the signal ``task_revoked`` told."""
    told: list[dict[str, Any]] = []

    def note(**kwargs: Any) -> None:
        told.append(kwargs)

    signals.task_revoked.connect(note, weak=False, dispatch_uid="test")
    yield told
    signals.task_revoked.disconnect(dispatch_uid="test")


def on_hub(bench: Bench, work: Callable[[], Any]) -> Any:
    done, box = threading.Event(), []

    def serve() -> None:
        box.append(work())
        done.set()

    bench.hub.requests.append(serve)
    bench._wakeup_in.send(b"!")
    assert done.wait(10)
    return box[0]


def test_what_has_not_begun_is_settled(make: Any, revoked: list[dict[str, Any]]) -> None:
    bench = make(slots=3)
    ids = [bench.noop.delay().id for _ in range(3)]
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) == 3)
    found = on_hub(bench, lambda: bench.hub.steering.cancel(lambda f: f.task_id == ids[1], 0))
    assert found == [ids[1]]
    assert len(bench.executors.jobs) == 2
    wait_until(lambda: bench.depth() == (0, 2))
    assert [(told["request"].id, told["terminated"], told["signum"]) for told in revoked] == [
        (ids[1], False, None)
    ]
    bench.executors.end(2)
    wait_until(lambda: bench.depth() == (0, 0))


def test_what_runs_is_ended_or_left(make: Any, revoked: list[dict[str, Any]]) -> None:
    bench = make(slots=1)
    task_id = bench.noop.delay().id
    bench.start()
    wait_until(lambda: bench.executors.jobs)
    (running,) = bench.executors.jobs
    bench.executors.jobs.clear()  # it has begun
    cancel = bench.hub.steering.cancel
    assert on_hub(bench, lambda: cancel(lambda f: f.task_id == task_id, 0)) == [task_id]
    assert bench.executors.terminated == []
    assert on_hub(bench, lambda: cancel(lambda f: f.task_id == task_id, 15)) == [task_id]
    assert on_hub(bench, lambda: cancel(lambda f: f.task_id == task_id, 15)) == [task_id]
    assert bench.executors.terminated == [(job_number(running), 15)], "told twice"
    bench.executors._reports.append(pack_report(job_number(running), Kind.NOT_BEGUN, 0.0, b""))
    bench.executors._in.send(b"!")
    wait_until(lambda: bench.depth() == (0, 0))
    assert [(told["terminated"], told["signum"]) for told in revoked] == [(True, 15)]


def test_one_that_was_taken_off_early(make: Any) -> None:
    bench = make(slots=1)
    task_id = bench.early.delay().id
    bench.start()
    wait_until(lambda: bench.executors.jobs)
    assert on_hub(bench, lambda: bench.hub.steering.cancel(lambda _: True, 0)) == [task_id]
    assert not bench.executors.jobs
    assert not bench.flights


def test_totals_survive_changed_options(make: Any) -> None:
    bench = make(slots=5)
    for _ in range(3):
        bench.noop.delay()
    bench.start()
    wait_until(lambda: len(bench.executors.jobs) == 3)
    on_hub(bench, bench.hub.steering.options_changed)
    bench.noop.delay()
    wait_until(lambda: len(bench.executors.jobs) == 4)
    assert bench.hub.steering.totals() == {"noop": 4}
