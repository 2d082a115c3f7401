"""A node whose database is locked, or has no room, for a while."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.exceptions import BrokerUnavailable
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until

WAIT = 25.0


@pytest.fixture
def start(
    worker: Callable[..., WorkerProcess], sqlite_url: str
) -> Iterator[Callable[..., WorkerProcess]]:
    """Nodes that do not wait long for a lock."""
    url = f"{sqlite_url}?busy_timeout=0.3"
    env = {"CHERVIL_BROKER_URL": url, "CHERVIL_RESULT_BACKEND": url}
    pooled.app.close()
    pooled.app.conf.broker_url = pooled.app.conf.result_backend = url
    before, pooled.app.conf.publish_timeout = pooled.app.conf.publish_timeout, 1.0
    yield lambda *args: worker("tests.apps.pooled", "-P", "prefork", "-c", "2", *args, env=env)
    pooled.app.close()
    pooled.app.conf.publish_timeout = before


def held(tmp_path: Path) -> tuple[Any, Path, Path]:
    """A task that a node is at until the test lets it go."""
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT, "the task starts")
    return result, started, go


def settled() -> bool:
    depth = pooled.app.broker.depths()["celery"]
    return depth.ready == depth.claimed == depth.delayed == depth.dead == 0


def test_a_database_that_somebody_holds_locked(
    start: Callable[..., WorkerProcess], sqlite_url: str, tmp_path: Path
) -> None:
    """What ends meanwhile is stored when it is free again; who sends is told."""
    node = start()
    result, started, go = held(tmp_path)
    path = sqlite_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        go.touch()
        node.wait_for_log("busy_timeout .*tried again in", WAIT)
        with pytest.raises(BrokerUnavailable, match="busy_timeout"):
            pooled.add.delay(1, 1)
        other.execute("ROLLBACK")
    assert result.get(timeout=WAIT)
    assert pooled.add.delay(2, 2).get(timeout=WAIT) == 4
    assert len(lines(started)) == 1
    wait_until(settled, WAIT)
    assert node.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process (prlimit)")
def test_a_node_whose_disk_takes_nothing_more(
    start: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    """Its results are stored when there is room again, and no task runs twice."""
    node = start()
    result, started, go = held(tmp_path)
    before = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    big = pooled.large.delay(1_000_000)
    go.touch()
    node.wait_for_log("tried again in", WAIT)
    assert not big.ready()
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, before)
    assert result.get(timeout=WAIT)
    assert len(big.get(timeout=WAIT)) == 1_000_000
    assert pooled.add.delay(2, 2).get(timeout=WAIT) == 4
    assert len(lines(started)) == 1
    wait_until(settled, WAIT)
    assert node.stop() == 0
