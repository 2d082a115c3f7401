"""What every pool must do alike, with real workers on SQLite."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chervil import exceptions
from chervil.drivers.contracts import Delivery, Queue
from chervil.exceptions import (
    EncodeError,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLostError,
)
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until

#: Pools and how a node of two slots or more is started with them.
POOLS = {
    "prefork": ("-P", "prefork", "-c", "2"),
    "threads": ("-P", "threads", "-c", "4"),
    "asyncio": ("-P", "asyncio", "-c", "8"),
    "solo": ("-P", "solo"),
}
IN_PROCESSES = ("prefork", "threads", "asyncio")
WAIT = 20.0

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture(autouse=True)
def _same_database(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app of this process is the one of the workers, on this test's database."""
    pooled.app.close()
    pooled.app.conf.broker_url = sqlite_url
    pooled.app.conf.result_backend = sqlite_url
    yield
    pooled.app.close()


@pytest.fixture
def start(worker: StartWorker) -> Callable[..., WorkerProcess]:
    def start(pool: str, *args: str, env: dict[str, str] | None = None) -> WorkerProcess:
        return worker("tests.apps.pooled", *POOLS[pool], *args, env=env)

    return start


every_pool = pytest.mark.parametrize("pool", POOLS)
process_pools = pytest.mark.parametrize("pool", IN_PROCESSES)


@every_pool
def test_runs_functions_and_coroutines(pool: str, start: Any) -> None:
    start(pool)
    results = [pooled.add.delay(i, 1) for i in range(50)]
    others = [pooled.aadd.delay(i, 2) for i in range(50)]
    assert [r.get(timeout=WAIT) for r in results] == [i + 1 for i in range(50)]
    assert [r.get(timeout=WAIT) for r in others] == [i + 2 for i in range(50)]
    assert results[0].successful()


@every_pool
def test_arguments_request_and_errors(pool: str, start: Any) -> None:
    start(pool, "-n", "me@here")
    assert pooled.echo.delay(1, "zwei", x=[3]).get(timeout=WAIT) == [[1, "zwei"], {"x": [3]}]
    result = pooled.request_of.apply_async(headers={"tenant": "acme"})
    request = result.get(timeout=WAIT)
    assert request == {
        "id": result.id,
        "task": "tests.apps.pooled.request_of",
        "args": [],
        "retries": 0,
        "hostname": "me@here",
        "routing_key": "celery",
        "redelivered": False,
        "headers": {"tenant": "acme"},
    }
    for task in (pooled.fail, pooled.afail):
        failed = task.delay("oh")
        with pytest.raises(pooled.CustomError) as caught:
            failed.get(timeout=WAIT)
        assert caught.value.args == (42, "oh")
        assert failed.failed()
        assert "CustomError" in (failed.traceback or "")


@every_pool
def test_retries(pool: str, start: Any, tmp_path: Path) -> None:
    start(pool)
    assert pooled.succeeds_after.delay(3).get(timeout=WAIT) == 3
    with pytest.raises(pooled.CustomError):
        pooled.never_succeeds.delay().get(timeout=WAIT)
    assert pooled.retries_by_itself.delay(str(tmp_path / "tries")).get(timeout=WAIT) == 3


@every_pool
def test_states_of_its_own_and_started(pool: str, start: Any, tmp_path: Path) -> None:
    start(pool)
    result = pooled.progress.delay(str(tmp_path / "go"))
    wait_until(lambda: result.state == "PROGRESS" or pool == "solo", WAIT)
    if pool != "solo":  # which reports when the task has ended
        assert result.info == {"done": 1}
    (tmp_path / "go").touch()
    assert result.get(timeout=WAIT) == "done"
    tracked = pooled.tracked.delay(str(tmp_path / "go2"))
    if pool != "solo":
        wait_until(lambda: tracked.state == "STARTED", WAIT)
        assert set(tracked.info) == {"pid", "hostname"}
    (tmp_path / "go2").touch()
    assert tracked.get(timeout=WAIT) == "done"


@every_pool
def test_ignore_reject_and_results_nobody_wants(pool: str, start: Any, tmp_path: Path) -> None:
    start(pool)
    ignored = pooled.ignored.delay()
    with pytest.raises(Reject):
        pooled.rejected.delay().get(timeout=WAIT)
    dead = wait_until(lambda: pooled.app.broker.dead(), WAIT)
    assert [letter.reason for letter in dead] == ["rejected by the task: no thanks"]
    again = pooled.rejected_once.delay(str(tmp_path / "seen"))
    assert again.get(timeout=WAIT) == "taken"
    quiet = pooled.quiet.delay(str(tmp_path / "quiet"))
    wait_until((tmp_path / "quiet").exists, WAIT)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    assert ignored.state == quiet.state == "PENDING"
    wait_until(lambda: _nothing_left(), WAIT)


@every_pool
def test_whatever_a_task_raises_or_returns(pool: str, start: Any) -> None:
    start(pool)
    with pytest.raises(SystemExit):
        pooled.exits.delay().get(timeout=WAIT)
    with pytest.raises(KeyboardInterrupt):
        pooled.interrupts.delay().get(timeout=WAIT)
    with pytest.raises(EncodeError, match="set"):
        pooled.unserializable.delay().get(timeout=WAIT)
    unprintable = pooled.fails_unprintably.delay()
    assert isinstance(unprintable.get(timeout=WAIT, propagate=False), Exception)
    assert unprintable.state == "FAILURE"
    assert len(pooled.large.delay(3_000_000).get(timeout=WAIT)) == 3_000_000
    text = "y" * 2_000_000
    assert pooled.echo.delay(text).get(timeout=WAIT) == [[text], {}]
    assert pooled.add.delay(2, 2).get(timeout=WAIT) == 4


@every_pool
def test_errors_and_errbacks_that_are_hard_to_report(pool: str, start: Any) -> None:
    start(pool)
    with pytest.raises(ValueError, match="a"):
        pooled.fails_with_odd_text.delay().get(timeout=WAIT)
    for errback in (pooled.bad_errback.s(), {"task": "no.such", "options": {"countdown": "x"}}):
        result = pooled.fail.apply_async(("oh",), link_error=errback)
        assert isinstance(result.get(timeout=WAIT, propagate=False), Exception)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    wait_until(lambda: _nothing_left(), WAIT)


@every_pool
def test_a_soft_limit_between_the_task_and_its_report(pool: str, start: Any) -> None:
    start(pool)
    result = pooled.fail.apply_async(
        ("oh",), link_error=pooled.slow_errback.s(), soft_time_limit=0.4
    )
    assert isinstance(result.get(timeout=WAIT, propagate=False), Exception)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    wait_until(lambda: _nothing_left(), WAIT)


@every_pool
def test_acknowledged_before_it_runs(pool: str, start: Any) -> None:
    start(pool)
    results = [pooled.early_fine.delay(i) for i in range(30)]
    assert [r.get(timeout=WAIT) for r in results] == list(range(30))


@every_pool
def test_countdown_and_expiry(pool: str, start: Any) -> None:
    start(pool)
    before = time.time()
    late = pooled.add.apply_async((1, 1), countdown=0.5)
    gone = pooled.add.apply_async((1, 1), countdown=0.4, expires=0.1)
    assert late.get(timeout=WAIT) == 2
    assert time.time() - before >= 0.5
    with pytest.raises(Exception, match="expired"):
        gone.get(timeout=WAIT)
    assert gone.state == "REVOKED"


@every_pool
def test_tasks_send_tasks(pool: str, start: Any) -> None:
    start(pool)
    result = pooled.sends_another.delay(4)
    other = pooled.app.AsyncResult(result.get(timeout=WAIT))
    assert other.get(timeout=WAIT) == 5
    assert [child.id for child in result.children or ()] == [other.id]


# --- time limits


@every_pool
@pytest.mark.parametrize("name", ["stops_softly", "astops_softly"])
def test_soft_limit_is_raised_in_the_task(pool: str, name: str, start: Any) -> None:
    start(pool)
    assert getattr(pooled, name).delay().get(timeout=WAIT) == "stopped"
    result = pooled.runs_long.apply_async((20,), soft_time_limit=0.2)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=WAIT)
    assert pooled.add.delay(1, 2).get(timeout=WAIT) == 3


@every_pool
@pytest.mark.parametrize("name", ["runs_long", "aruns_long"])
def test_hard_limit_ends_the_task(pool: str, name: str, start: Any) -> None:
    start(pool)
    result = getattr(pooled, name).apply_async((20,), time_limit=0.3)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=WAIT)
    assert pooled.add.delay(1, 2).get(timeout=WAIT) == 3


@process_pools
def test_hard_limit_ends_a_task_that_will_not_end(pool: str, start: Any) -> None:
    node = start(pool)
    first = node.pids()
    result = pooled.ignores_everything.apply_async((60,), time_limit=0.3)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=WAIT)
    results = [pooled.add.delay(1, i) for i in range(20)]
    assert [r.get(timeout=WAIT) for r in results] == [1 + i for i in range(20)]
    wait_until(lambda: node.pids() - first, WAIT, "its executor is replaced")
    wait_until(lambda: first - node.pids(), WAIT, "the old one is ended")


# --- executors that die


@process_pools
def test_a_task_whose_executor_was_killed_runs_again(pool: str, start: Any, tmp_path: Path) -> None:
    node = start(pool)
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    pid = wait_until(lambda: _first_pid(started), WAIT)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(lines(started)) == 2, WAIT, "it runs again")
    go.touch()
    assert result.get(timeout=WAIT) != pid
    assert "killed by SIGKILL" in node.log()


@process_pools
def test_a_task_that_kills_its_executor_is_kept_as_dead(
    pool: str, start: Any, tmp_path: Path
) -> None:
    start(pool)
    started = tmp_path / "started"
    result = pooled.kills_its_executor.delay(str(started))
    with pytest.raises(WorkerLostError):
        result.get(timeout=WAIT)
    assert started.read_text() == "xx", "max_deliveries=2"
    dead = pooled.app.broker.dead()
    assert [letter.deliveries for letter in dead] == [2]
    assert "SIGKILL" in dead[0].reason
    once = pooled.kills_its_executor_once.delay(str(tmp_path / "once"))
    assert once.get(timeout=WAIT) == "second time"


@process_pools
def test_at_most_once_is_not_run_again(pool: str, start: Any, tmp_path: Path) -> None:
    start(pool)
    started = tmp_path / "started"
    with pytest.raises(WorkerLostError):
        pooled.early.delay(str(started)).get(timeout=WAIT)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    assert started.read_text() == "x"


@process_pools
def test_executors_are_replaced_after_so_many_tasks(pool: str, start: Any) -> None:
    start(pool, "--max-tasks-per-child", "5")
    results = [pooled.whoami.delay() for _ in range(60)]
    pids = [r.get(timeout=WAIT)["pid"] for r in results]
    assert len(set(pids)) >= 4
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_an_executor_that_is_to_be_replaced_holds_nobody_up(
    pool: str, start: Any, tmp_path: Path
) -> None:
    start(pool, "--max-tasks-per-child", "3")
    started, go = tmp_path / "started", tmp_path / "go"
    long = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: len(lines(started)) == 1, WAIT)
    results = [pooled.add.delay(i, 0) for i in range(40)]
    assert [r.get(timeout=WAIT) for r in results] == list(range(40))
    assert long.state == "PENDING"
    go.touch()
    assert long.get(timeout=WAIT)


def test_a_run_queue_that_is_full_leaves_no_slot_empty(worker: StartWorker, tmp_path: Path) -> None:
    """The kernel has room for a few of these jobs at a time, and none of them ends."""
    (tmp_path / "narrow.py").write_text(
        "from chervil.pools import channel\n"
        "channel._BUFFER = 32768\n"
        "from tests.apps.pooled import app\n"
    )
    worker("narrow", "-P", "asyncio", "-c", "300")
    started, go = tmp_path / "started", tmp_path / "go"
    load = "x" * 20_000
    results = pooled.aholds.apply_many([(str(started), str(go), load)] * 300)
    wait_until(lambda: len(lines(started)) == 300, WAIT, "all slots are taken")
    go.touch()
    assert [r.get(timeout=WAIT) for r in results] == [len(load)] * 300


# --- shutdown


@process_pools
def test_warm_shutdown_finishes_what_runs_and_gives_back_the_rest(
    pool: str, start: Any, tmp_path: Path
) -> None:
    node = start(pool)
    slots = int(POOLS[pool][-1])
    started, go = tmp_path / "started", tmp_path / "go"
    running = [pooled.holds.delay(str(started), str(go)) for _ in range(slots)]
    wait_until(lambda: len(lines(started)) == slots, WAIT, "all slots are taken")
    waiting = [pooled.add.delay(i, i) for i in range(10)]
    node.signal(signal.SIGTERM)
    node.wait_for_log("Stopping when")
    go.touch()
    assert node.wait(WAIT) == 0
    assert all(r.get(timeout=WAIT) for r in running)
    depth = pooled.app.broker.depths()["celery"]
    assert (depth.ready, depth.claimed, depth.dead) == (10, 0, 0)
    with pytest.raises(exceptions.TimeoutError):
        waiting[0].get(timeout=0.01)
    start(pool)
    assert [r.get(timeout=WAIT) for r in waiting] == [2 * i for i in range(10)]


@every_pool
def test_second_signal_ends_at_once_and_loses_nothing(
    pool: str, start: Any, tmp_path: Path
) -> None:
    node = start(pool)
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: len(lines(started)) == 1, WAIT)
    node.signal(signal.SIGINT)
    node.wait_for_log("Stopping when")
    node.signal(signal.SIGINT)
    assert node.wait(WAIT) == 1
    assert result.state == "PENDING"
    depth = pooled.app.broker.depths()["celery"]
    assert (depth.ready, depth.claimed) == (1, 0)
    start(pool)
    go.touch()
    assert result.get(timeout=WAIT)


@every_pool
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGQUIT, 1)])
def test_a_shutdown_gives_back_what_has_not_ended_in_its_time(
    pool: str, number: int, status: int, start: Any, tmp_path: Path
) -> None:
    node = start(pool, env={"CHERVIL_WORKER_SOFT_SHUTDOWN_TIMEOUT": "0.5"})
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: len(lines(started)) == 1, WAIT)
    node.signal(number)
    assert node.wait(WAIT) == status
    assert "is over: what runs is given back" in node.log()
    depth = pooled.app.broker.depths()["celery"]
    assert (depth.ready, depth.claimed) == (1, 0)
    (delivery,) = claims_of_everything()
    assert delivery.deliveries == 1, "an interruption by a shutdown is no delivery"
    start(pool)
    go.touch()
    assert result.get(timeout=WAIT)


@every_pool
def test_a_soft_shutdown_lets_tasks_end_and_can_be_cut_short(
    pool: str, start: Any, tmp_path: Path
) -> None:
    env = {"CHERVIL_WORKER_SOFT_SHUTDOWN_TIMEOUT": "60"}
    node = start(pool, env=env)
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: len(lines(started)) == 1, WAIT)
    node.signal(signal.SIGQUIT)
    node.wait_for_log("Stopping when")
    go.touch()
    assert node.wait(WAIT) == 1
    assert result.get(timeout=WAIT)
    go.unlink()
    other = start(pool, env=env)
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: len(lines(started)) == 2, WAIT)
    for _ in range(2):  # warm, then soft
        before = other.log().count("Stopping when")
        other.signal(signal.SIGTERM)
        wait_until(lambda n=before: other.log().count("Stopping when") > n, WAIT)
    other.signal(signal.SIGTERM)
    assert other.wait(WAIT) == 1
    assert result.state == "PENDING"
    go.touch()
    start(pool)
    assert result.get(timeout=WAIT)


@every_pool
def test_idle_node_ends_at_once(pool: str, start: Any) -> None:
    node = start(pool)
    began = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - began < 5


# --- how work is shared


@process_pools
def test_a_long_task_holds_nobody_up(pool: str, start: Any, tmp_path: Path) -> None:
    start(pool)
    started, go = tmp_path / "started", tmp_path / "go"
    long = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: len(lines(started)) == 1, WAIT)
    results = [pooled.add.delay(i, 0) for i in range(1000)]
    assert [r.get(timeout=WAIT) for r in results] == list(range(1000))
    assert long.state == "PENDING"
    go.touch()
    assert long.get(timeout=WAIT)


def test_many_coroutines_at_once(start: Any) -> None:
    start("asyncio", "-c", "100")
    began = time.monotonic()
    results = [pooled.anaps.delay(0.5) for _ in range(100)]
    for result in results:
        result.get(timeout=WAIT)
    assert time.monotonic() - began < 10, "one after the other would take 50 s"


def test_several_processes_of_threads(worker: StartWorker) -> None:
    worker("tests.apps.pooled", "-P", "threads", "-c", "4", "--processes", "2")
    results = [pooled.whoami.delay() for _ in range(200)]
    seen = [r.get(timeout=WAIT) for r in results]
    assert len({item["pid"] for item in seen}) == 2


def _first_pid(path: Path) -> int:
    return int(next(iter(lines(path)), 0))


def claims_of_everything() -> list[Delivery]:
    """Claim what is on the queue, and give it back untouched."""
    consumer = pooled.app.broker.consumer([Queue("celery")], "test")
    try:
        return list(consumer.exchange((), 10))
    finally:
        consumer.close()


def _nothing_left() -> bool:
    depth = pooled.app.broker.depths()["celery"]
    return depth.ready == depth.claimed == depth.delayed == 0
