"""Tasks that harm their executor harm neither the node nor other tasks."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from chervil.exceptions import TimeLimitExceeded, WorkerLostError
from tests.apps import hostile
from tests.support.processes import WorkerProcess
from tests.support.waiting import wait_until

POOLS = {
    "prefork": ("-P", "prefork", "-c", "2"),
    "threads": ("-P", "threads", "-c", "4"),
    "asyncio": ("-P", "asyncio", "-c", "8"),
}
WAIT = 30.0
every_pool = pytest.mark.parametrize("pool", POOLS)


@pytest.fixture(autouse=True)
def _same_database(sqlite_url: str) -> Iterator[None]:
    hostile.app.close()
    hostile.app.conf.broker_url = hostile.app.conf.result_backend = sqlite_url
    yield
    hostile.app.close()


@pytest.fixture
def start(worker: Callable[..., WorkerProcess]) -> Callable[[str], WorkerProcess]:
    return lambda pool: worker("tests.apps.hostile", *POOLS[pool])


def all_is_well(node: WorkerProcess) -> None:
    """The node works, nothing waits or is claimed, and it can be stopped."""
    results = [hostile.add.delay(i, 1) for i in range(30)]
    assert [r.get(timeout=WAIT) for r in results] == [i + 1 for i in range(30)]

    def settled() -> bool:
        depth = hostile.app.broker.depths()["celery"]
        return depth.ready == depth.claimed == depth.delayed == 0

    wait_until(settled, WAIT, "everything is settled")
    assert node.stop() == 0


@every_pool
@pytest.mark.parametrize(
    "name",
    ["segfaults", "exits_at_once", "aborts", "closes_descriptors", "closes_and_raises"],
)
def test_what_ends_the_executor_ends_in_the_dead_letters(
    pool: str, name: str, start: Callable[[str], WorkerProcess]
) -> None:
    node = start(pool)
    with pytest.raises(WorkerLostError):
        getattr(hostile, name).delay().get(timeout=WAIT)
    (letter,) = hostile.app.broker.dead()
    assert letter.deliveries == 2
    assert "its executor" in letter.reason
    all_is_well(node)


@every_pool
@pytest.mark.parametrize("name", ["blocks_all_signals", "holds_the_interpreter_lock"])
def test_a_hard_limit_ends_what_cannot_be_asked(
    pool: str, name: str, start: Callable[[str], WorkerProcess]
) -> None:
    node = start(pool)
    with pytest.raises(TimeLimitExceeded):
        getattr(hostile, name).delay().get(timeout=WAIT)
    all_is_well(node)


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_tasks_beside_one_that_holds_the_interpreter_lock_run_elsewhere(
    pool: str, start: Callable[[str], WorkerProcess]
) -> None:
    """They have begun and cannot go on; the executor is ended for all of them."""
    node = start(pool)
    beside = [hostile.naps.delay(1.0) for _ in range(2)]
    wait_until(lambda: hostile.app.broker.depths()["celery"].claimed == 2, WAIT)
    with pytest.raises(TimeLimitExceeded):
        hostile.holds_the_interpreter_lock.delay().get(timeout=WAIT)
    assert [r.get(timeout=WAIT) for r in beside] == ["ended"] * 2
    all_is_well(node)


@every_pool
@pytest.mark.parametrize("name", ["leaves_a_fork_behind", "leaves_a_program_behind"])
def test_children_that_outlive_their_task(
    pool: str, name: str, start: Callable[[str], WorkerProcess]
) -> None:
    node = start(pool)
    child = getattr(hostile, name).delay().get(timeout=WAIT)
    try:
        all_is_well(node)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


@every_pool
def test_whatever_it_prints_raises_or_returns(
    pool: str, start: Callable[[str], WorkerProcess]
) -> None:
    node = start(pool)
    assert hostile.prints_megabytes.delay().get(timeout=WAIT) == 4
    hostile.changes_directory_and_signals.delay().get(timeout=WAIT)
    for name in ("raises_odd", "raises_stubborn", "returns_stubborn", "has_no_memory"):
        result = getattr(hostile, name).delay()
        result.get(timeout=WAIT, propagate=False)
        assert result.state == "FAILURE", name
    all_is_well(node)


def test_a_result_of_100_mb(start: Callable[[str], WorkerProcess]) -> None:
    node = start("prefork")
    assert len(hostile.returns.delay(100_000_000).get(timeout=2 * WAIT)) == 100_000_000
    all_is_well(node)
