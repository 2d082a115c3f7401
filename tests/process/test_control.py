"""Remote control of real nodes, on SQLite."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from chervil.exceptions import TimeLimitExceeded
from tests.apps import pooled
from tests.conformance.test_pools import WAIT, _same_database, start
from tests.support.waiting import lines, wait_until

__all__ = ["_same_database", "start"]
control = pooled.app.control


def stats(node: str) -> dict[str, Any]:
    found: dict[str, Any] = control.inspect(node, timeout=WAIT).stats()
    return found


def pids(node: str = "one@here") -> set[int]:
    return set(stats(node)["pool"]["processes"])


def tell(command: str, **arguments: Any) -> Any:
    (reply,) = control.broadcast(command, arguments, ["one@here"], reply=True, timeout=WAIT) or ()
    return reply["one@here"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_executors_come_and_go(pool: str, start: Any) -> None:
    start(pool, "-n", "one@here")
    before = pids()
    assert tell("pool_grow", n=2) == {"ok": "pool will grow"}
    wait_until(lambda: len(pids()) == len(before) + 2, WAIT)
    slots = stats("one@here")["pool"]["max-concurrency"]
    assert slots == stats("one@here")["prefetch_count"]
    results = [pooled.add.delay(i, 1) for i in range(50)]
    assert [r.get(timeout=WAIT) for r in results] == [i + 1 for i in range(50)]
    assert tell("pool_shrink", n=2) == {"ok": "pool will shrink"}
    wait_until(lambda: len(pids()) == len(before), WAIT)
    old = pids()
    assert tell("pool_restart") == {"ok": "reload started"}
    wait_until(lambda: not old & pids() and len(pids()) == len(old), WAIT)
    assert "error" in tell("pool_grow", n=1000)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    assert stats("one@here")["total"] == {"tests.apps.pooled.add": 51}


def test_more_processes_run_more_at_a_time(start: Any, tmp_path: Path) -> None:
    start("prefork", "-n", "one@here")
    started, go = tmp_path / "started", tmp_path / "go"
    results = [pooled.holds.delay(str(started), str(go)) for _ in range(4)]
    wait_until(lambda: len(lines(started)) == 2, WAIT)
    tell("pool_grow", n=2)
    wait_until(lambda: len(lines(started)) == 4, WAIT)
    tell("pool_shrink", n=3)
    go.touch()
    for result in results:
        assert result.get(timeout=WAIT)
    wait_until(lambda: len(pids()) == 1, WAIT, "those that ran their tasks to the end")


def test_solo_says_that_it_cannot(start: Any) -> None:
    start("solo", "-n", "one@here")
    assert "one slot" in tell("pool_grow", n=1)["error"]
    assert tell("ping") == {"ok": "pong"}


def test_solo_answers_while_it_is_busy(start: Any, tmp_path: Path) -> None:
    start("solo", "-n", "one@here")
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT)
    assert [task["id"] for task in tell("active")] == [result.id]
    go.touch()
    assert result.get(timeout=WAIT)


def test_time_limits_are_changed(start: Any) -> None:
    start("prefork", "-n", "one@here")
    assert pooled.runs_long.delay(0.01).get(timeout=WAIT) == "ended by itself"
    name = pooled.runs_long.name
    assert tell("time_limit", task_name=name, hard=0.3) == {"ok": "time limits set successfully"}
    with pytest.raises(TimeLimitExceeded):
        pooled.runs_long.delay(30).get(timeout=WAIT)
    assert tell("time_limit", task_name="no.such", hard=1) == {"error": "unknown task"}


def test_one_of_two_is_shut_down(start: Any) -> None:
    first = start("prefork", "-n", "one@here")
    start("prefork", "-n", "two@here")
    assert len(control.ping(timeout=WAIT)) == 2
    assert control.broadcast(
        "ping", reply=True, timeout=WAIT, pattern="tw*", matcher="glob", limit=1
    ) == [{"two@here": {"ok": "pong"}}]
    began = time.monotonic()
    control.shutdown(destination=["one@here"])
    assert first.wait(WAIT) == 0
    assert time.monotonic() - began < WAIT
    assert control.ping(timeout=WAIT) == [{"two@here": {"ok": "pong"}}]


def test_dead_letters_are_counted(start: Any) -> None:
    start("prefork", "-n", "one@here")
    assert control.inspect("one@here", timeout=WAIT).dead_letters() == {}
    pooled.rejected.delay()
    pooled.rejected.delay()
    wait_until(lambda: pooled.app.broker.depths()["celery"].dead == 2, WAIT)
    counted = control.inspect("one@here", timeout=WAIT).dead_letters
    wait_until(lambda: counted() == {"celery": 2}, WAIT)


def test_it_can_be_turned_off(worker: Any, sqlite_url: str) -> None:
    worker("tests.apps.pooled", "-P", "solo", env={"CHERVIL_WORKER_ENABLE_REMOTE_CONTROL": "false"})
    assert control.ping(timeout=WAIT) == [], "nobody listens, so nobody is waited for"
    result = pooled.add.apply_async((1, 1), countdown=60)
    result.revoke()
    assert result.state == "REVOKED"


def test_killed_nodes_leave_nothing(start: Any) -> None:
    node = start("prefork", "-n", "one@here")
    assert len(control.ping(timeout=WAIT)) == 1
    node.kill_node()
    assert control.ping(timeout=WAIT) == []
    broker: Any = pooled.app.broker
    left = broker.database.read(
        lambda link: [
            link.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("mailboxes", "notes")
        ]
    )
    assert left == [0, 0]
