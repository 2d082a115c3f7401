"""Killing each process of a node, and whole nodes, at chosen moments."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until

WAIT = 25.0
StartWorker = Callable[..., WorkerProcess]


@pytest.fixture(autouse=True)
def _same_database(sqlite_url: str) -> Iterator[None]:
    pooled.app.close()
    pooled.app.conf.broker_url = sqlite_url
    pooled.app.conf.result_backend = sqlite_url
    yield
    pooled.app.close()


@pytest.fixture
def start(worker: StartWorker) -> Callable[..., WorkerProcess]:
    def start(*args: str) -> WorkerProcess:
        return worker("tests.apps.pooled", "-P", "prefork", "-c", "2", *args)

    return start


def parents(node: WorkerProcess) -> dict[int, int]:
    found = {}
    for pid in node.pids():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        found[pid] = int(stat.rpartition(")")[2].split()[1])
    return found


def fork_server(node: WorkerProcess) -> int:
    """Its pid; 0 while there is none."""
    found = [pid for pid, parent in parents(node).items() if parent == node.pid]
    return found[0] if len(found) == 1 else 0


def executors(node: WorkerProcess) -> set[int]:
    server = fork_server(node)
    return {pid for pid, parent in parents(node).items() if server and parent == server}


def kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, signal.SIGKILL)


def hold(tmp_path: Path) -> tuple[Any, Path, Path]:
    started, go = tmp_path / "started", tmp_path / "go"
    return pooled.holds.delay(str(started), str(go)), started, go


def test_a_killed_node_s_tasks_are_run_by_another(start: Any, tmp_path: Path) -> None:
    first = start("-n", "first@here")
    result, started, go = hold(tmp_path)
    wait_until(lambda: lines(started), WAIT)
    second = start("-n", "second@here")
    others = [pooled.add.delay(i, 1) for i in range(100)]
    first.kill_node()
    wait_until(lambda: len(lines(started)) == 2, WAIT, "the task runs again")
    go.touch()
    result.get(timeout=WAIT)
    assert [r.get(timeout=WAIT) for r in others] == [i + 1 for i in range(100)]
    assert "Took back" in second.log()


def test_a_killed_hub_takes_its_executors_with_it(start: Any, tmp_path: Path) -> None:
    node = start()
    result, started, go = hold(tmp_path)
    wait_until(lambda: lines(started), WAIT)
    before = node.pids()
    os.kill(node.pid, signal.SIGKILL)
    wait_until(lambda: not node.tree.pids() & before, WAIT, "fork server and executors end")
    start()
    wait_until(lambda: len(lines(started)) == 2, WAIT, "the task runs again")
    go.touch()
    assert result.get(timeout=WAIT)


def test_a_killed_fork_server_is_replaced(start: Any, tmp_path: Path) -> None:
    node = start()
    result, started, go = hold(tmp_path)
    wait_until(lambda: lines(started), WAIT)
    old = fork_server(node)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: len(lines(started)) == 2, WAIT, "the task runs again")
    wait_until(lambda: fork_server(node) not in (0, old), WAIT)
    go.touch()
    assert result.get(timeout=WAIT)
    # and the new one does its work as well
    kill(executors(node))
    assert pooled.add.delay(2, 3).get(timeout=WAIT) == 5
    assert node.stop() == 0


def test_executors_killed_again_and_again_under_load(start: Any) -> None:
    node = start()
    results = []
    for round_ in range(10):
        results += [pooled.add.delay(i, round_) for i in range(200)]
        kill(executors(node))
        wait_until(lambda: len(executors(node)) == 2, WAIT, "executors are back")
    values = [r.get(timeout=WAIT) for r in results]
    assert values == [i + round_ for round_ in range(10) for i in range(200)]


def test_nothing_is_left_in_the_tables(start: Any, tmp_path: Path) -> None:
    """Killed nodes, then a clean end: no claim, consumer or wake-up file stays."""
    node = start()
    results = [pooled.add.delay(i, 1) for i in range(50)]
    node.kill_node()
    last = start()
    for result in results:
        result.get(timeout=WAIT)
    assert last.stop() == 0
    pooled.app.close()
    with sqlite3.connect(tmp_path / "chervil.db") as connection:
        for table in ("messages", "consumers", "dead_letters"):
            count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            assert count == 0, table
    connection.close()


def test_a_stopped_node_that_comes_back_does_no_harm(start: Any, tmp_path: Path) -> None:
    """SIGSTOP for longer than the lease: its claims belong to the other by then."""
    first = start("-n", "first@here", "--lease", "1")
    result, started, go = hold(tmp_path)
    wait_until(lambda: lines(started), WAIT)
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        start("-n", "second@here", "--lease", "1")
        wait_until(lambda: len(lines(started)) == 2, WAIT, "the other runs it")
        go.touch()
        assert result.get(timeout=WAIT)
        answer = pooled.app.backend.get([result.id])[result.id].payload
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    first.wait_for_log("lease ran out", WAIT)
    assert [pooled.add.delay(i, 1).get(timeout=WAIT) for i in range(20)] == list(range(1, 21))
    assert pooled.app.backend.get([result.id])[result.id].payload == answer
    assert pooled.app.broker.depths()["celery"].dead == 0
    assert first.stop() == 0


def test_a_database_that_is_deleted_under_a_running_node(start: Any, tmp_path: Path) -> None:
    """What was in it is gone; the node says so, and goes on with the file that is there now."""
    node = start()
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    pooled.app.close()
    for path in tmp_path.glob("chervil.db*"):
        if path.is_file():
            path.unlink()
    assert pooled.add.delay(2, 2).get(timeout=WAIT) == 4
    assert "was deleted or replaced" in node.log()
    assert node.stop() == 0


def test_executors_do_not_outlive_a_hub_whose_fork_server_has_gone(
    start: Any, tmp_path: Path
) -> None:
    """It hears of the signal that ends it before it hears of that."""
    node = start()
    _, started, _ = hold(tmp_path)
    wait_until(lambda: lines(started), WAIT)
    server, children = fork_server(node), executors(node)
    os.kill(node.pid, signal.SIGSTOP)
    kill({server})
    node.signal(signal.SIGQUIT)
    os.kill(node.pid, signal.SIGCONT)
    assert node.wait() == 1
    assert not node.tree.pids() & children


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends them")
def test_executors_end_in_the_middle_of_a_task_when_fork_server_and_hub_are_gone(
    start: Any, tmp_path: Path
) -> None:
    """Neither was left to end them, and a task does not look at the run queue."""
    node = start()
    result, started, go = hold(tmp_path)
    wait_until(lambda: lines(started), WAIT)
    server, children = fork_server(node), executors(node)
    os.killpg(node.pid, signal.SIGSTOP)
    kill({server})
    kill({node.pid})
    node.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGCONT)
    wait_until(lambda: not node.tree.pids() & children, WAIT, "the executors end")
    start()
    wait_until(lambda: len(lines(started)) == 2, WAIT, "the task runs again")
    go.touch()
    assert result.get(timeout=WAIT)
