"""Cancelling in every pool, with real workers on SQLite."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chervil.exceptions import SoftTimeLimitExceeded, TaskRevokedError
from tests.apps import pooled
from tests.conformance.test_pools import (
    POOLS,
    WAIT,
    _nothing_left,
    _same_database,
    every_pool,
    process_pools,
    start,
)
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until

__all__ = ["_same_database", "start"]
Start = Callable[..., WorkerProcess]


def is_revoked(result: Any) -> bool:
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT)
    return bool(result.state == "REVOKED")


@every_pool
@pytest.mark.parametrize("name", ["cleans_up", "acleans_up", "early_cleans_up"])
def test_a_running_task_is_ended(pool: str, name: str, start: Start, tmp_path: Path) -> None:
    node = start(pool)
    started = tmp_path / "started"
    result = getattr(pooled, name).delay(str(started))
    wait_until(lambda: lines(started), WAIT)
    result.revoke(terminate=True)
    wait_until(lambda: len(lines(started)) == 2, WAIT, "it may clean up")
    assert is_revoked(result)
    wait_until(lambda: "terminated" in node.log(), WAIT)
    assert pooled.add.delay(1, 2).get(timeout=WAIT) == 3
    wait_until(_nothing_left, WAIT)


@process_pools
def test_one_that_will_not_end_is_ended_with_its_executor(pool: str, start: Start) -> None:
    node = start(pool)
    first = node.pids()
    result = pooled.ignores_everything.delay(60)
    wait_until(lambda: pooled.app.control.inspect().active(), WAIT)
    wait_until(lambda: any((pooled.app.control.inspect().active() or {}).values()), WAIT)
    result.revoke(terminate=True)
    assert is_revoked(result)
    wait_until(lambda: node.pids() - first, WAIT, "its executor is replaced")
    assert pooled.add.delay(1, 2).get(timeout=WAIT) == 3


def test_sigkill_ends_the_process_at_once(start: Start, tmp_path: Path) -> None:
    start("prefork")
    started = tmp_path / "started"
    result = pooled.cleans_up.delay(str(started))
    wait_until(lambda: lines(started), WAIT)
    result.revoke(terminate=True, signal="SIGKILL")
    assert is_revoked(result)
    assert len(lines(started)) == 1, "it had no time to clean up"
    assert pooled.add.delay(1, 2).get(timeout=WAIT) == 3


@process_pools
def test_sigusr1_is_a_soft_time_limit(pool: str, start: Start, tmp_path: Path) -> None:
    start(pool)
    started = tmp_path / "started"
    result = pooled.catches_soft_limit.delay(str(started))
    wait_until(lambda: lines(started), WAIT)
    result.revoke(terminate=True, signal="SIGUSR1")
    assert result.get(timeout=WAIT) == SoftTimeLimitExceeded.__name__


@every_pool
def test_without_terminate_it_runs_on(pool: str, start: Start, tmp_path: Path) -> None:
    start(pool)
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT)
    result.revoke()
    pooled.app.control.ping(timeout=WAIT)  # the node has read what came before
    assert result.state == "PENDING"
    go.touch()
    assert result.get(timeout=WAIT)


@every_pool
def test_what_waits_and_what_is_delayed_never_runs(pool: str, start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    waits = pooled.quiet.apply_async((str(mark),), ignore_result=False)
    delayed = pooled.quiet.apply_async((str(mark),), countdown=0.5, ignore_result=False)
    pooled.app.control.revoke([waits.id, delayed.id])
    assert is_revoked(waits)
    assert is_revoked(delayed), "before a node was ever there"
    node = start(pool)
    wait_until(_nothing_left, WAIT)
    assert not mark.exists()
    assert is_revoked(waits)
    assert is_revoked(delayed)
    assert len([line for line in node.log().splitlines() if "] revoked" in line]) == 2


@process_pools
def test_what_was_claimed_and_has_not_begun_never_runs(
    pool: str, start: Start, tmp_path: Path
) -> None:
    """Behind short tasks a node claims ahead; then all slots are taken by long ones."""
    start(pool, "--prefetch-multiplier", "10")
    for result in [pooled.add.delay(i, 0) for i in range(200)]:
        result.get(timeout=WAIT)
    slots = int(POOLS[pool][-1])
    started, go, mark = tmp_path / "started", tmp_path / "go", tmp_path / "ran"
    running = [pooled.holds.delay(str(started), str(go)) for _ in range(slots)]
    waiting = [pooled.quiet.apply_async((str(mark),), ignore_result=False) for _ in range(slots)]
    pooled.app.control.revoke([result.id for result in waiting])
    for result in waiting:
        assert is_revoked(result)
    go.touch()
    for result in running:
        assert result.get(timeout=WAIT)
    wait_until(_nothing_left, WAIT)
    assert not mark.exists()


def test_a_cancellation_survives_the_node(start: Start, tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    node = start("prefork")
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT)
    result.revoke()
    node.signal(signal.SIGKILL)
    node.wait()
    start("prefork")
    assert is_revoked(result)
    assert len(lines(started)) == 1, "it would have run again"


def test_by_stamps(start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    control = pooled.app.control
    control.revoke_by_stamped_headers({"tenant": ["acme"]})
    start("prefork")
    control.revoke_by_stamped_headers({"tags": "b"}, reply=True, timeout=WAIT)
    for stamps in ({"tenant": "acme"}, {"tenant": ["x", "acme"]}, {"tags": ["a", "b"]}):
        assert is_revoked(_stamped(stamps, mark)), stamps
    assert not mark.exists()
    assert _stamped({"tenant": "other", "tags": ["acme"]}, mark).get(timeout=WAIT)
    assert mark.exists()


def _stamped(stamps: Any, mark: Path) -> Any:
    message = pooled.app.publisher.build(
        pooled.quiet.name, (str(mark),), {}, {"ignore_result": False}
    )[0]
    message.headers.update(stamps=stamps, stamped_headers=list(stamps))
    message.head = None
    pooled.app.broker.publish([message])
    return pooled.app.AsyncResult(message.id)
