"""Executors whose fork server ends at bad moments."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.exceptions import OperationalError
from chervil.pools.channel import Channel
from chervil.pools.page import Page
from chervil.testing.faults.processes import parent_of
from chervil.worker import executors, forkserver
from chervil.worker.executor import Plan
from chervil.worker.executors import Executors
from tests.support.waiting import lines, wait_until


@pytest.fixture
def make(app: Any, monkeypatch: Any, tmp_path: Path) -> Iterator[Callable[..., Executors]]:
    """Executors that write their ids down and do nothing else."""
    found: list[Executors] = []

    def idle(plan: Plan, index: int, control: Any) -> int:
        with (tmp_path / "pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(60)
        return 0

    monkeypatch.setattr(executors, "run_executor", idle)

    def start(count: int = 2) -> Executors:
        plan = Plan(app, "n@h", "prefork", 1, Channel(), Page(8, 1))
        found.append(Executors(plan, count, contextlib.nullcontext))
        return found[-1]

    yield start
    for each in found:
        each.close()
        each.plan.channel.close()
        each.plan.page.close()


def pids(tmp_path: Path) -> list[int]:
    return [int(line) for line in lines(tmp_path / "pids")]


def test_closing_ends_the_executors_of_a_fork_server_that_has_gone(
    make: Callable[..., Executors], tmp_path: Path
) -> None:
    one = make()
    one.start()
    wait_until(lambda: len(pids(tmp_path)) == 2)
    assert one._server is not None
    os.kill(one._server.pid, signal.SIGKILL)
    one.close()
    assert [pid for pid in pids(tmp_path) if parent_of(pid)] == []


def test_closing_does_not_wait_for_a_fork_server_that_is_stopped(
    make: Callable[..., Executors], tmp_path: Path
) -> None:
    one = make()
    one.start()
    wait_until(lambda: len(pids(tmp_path)) == 2)
    assert one._server is not None
    os.kill(one._server.pid, signal.SIGSTOP)
    close = one._server.close
    one._server.close = lambda: close(0.05)  # type: ignore[method-assign]
    one.close()
    assert [pid for pid in pids(tmp_path) if parent_of(pid)] == []


@pytest.mark.parametrize("kernel", [False, True])
@pytest.mark.parametrize("slow", [False, True])
def test_an_executor_that_the_fork_server_could_not_tell_of(
    slow: bool, kernel: bool, make: Callable[..., Executors], tmp_path: Path, monkeypatch: Any
) -> None:
    """It dies behind the fork, and before the answer; the child may be slow to begin.

    With what Linux does about it, and without."""
    if not kernel:
        monkeypatch.setattr(forkserver, "_end_with", lambda _parent: None)
    server = forkserver.ForkServer
    become = server._become_executor

    def dies(self: Any, text: bytes) -> None:
        wait_until(lambda: lines(tmp_path / "slow") if slow else pids(tmp_path))
        os._exit(1)

    def becomes(self: Any, *arguments: Any) -> None:
        if slow:
            with (tmp_path / "slow").open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.3)
        become(self, *arguments)

    monkeypatch.setattr(server, "_tell", dies)
    monkeypatch.setattr(server, "_become_executor", becomes)
    one = make(1)
    with pytest.raises(OperationalError):
        one.start()
    monkeypatch.undo()
    one.close()
    if slow:
        pid = int(lines(tmp_path / "slow")[0])
        wait_until(lambda: not parent_of(pid), 10, "it ends")
    else:
        wait_until(lambda: not [pid for pid in pids(tmp_path) if parent_of(pid)], 10)


def test_one_that_died_of_its_job_is_not_one_that_cannot_start(
    make: Callable[..., Executors],
) -> None:
    one = make(1)
    one.start()
    delays = []
    for worked in [True] * 12 + [False] * 12:
        (index,) = one.alive
        if worked:
            one.plan.page.enter(index, 0, 7, 1.0)
        one.kill(index, signal.SIGUSR2)
        exits = wait_until(lambda: one.collect()[0])
        one.remove(exits[0])
        due = one._restarts[0]
        delays.append(due - time.monotonic())
        one.restart(due)
        wait_until(lambda: one.collect()[0] or all(e.pid for e in one.alive.values()))
    assert max(delays[:12]) <= 0.25
    assert max(delays) > 5
