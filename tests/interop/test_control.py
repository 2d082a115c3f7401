"""Remote control: the clients of each side, and the workers of both."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.interop.conftest import Pair
from tests.interop.sides import SIDES, WAIT, Client
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until

NODES = ["celery0@here", "chervil1@here"]


@pytest.fixture(params=SIDES, ids="by-{}".format)
def controller(
    request: pytest.FixtureRequest, clients: dict[str, Client], standing: list[WorkerProcess]
) -> Client:
    """Who gives the orders."""
    return clients[request.param]


def test_ping(controller: Client) -> None:
    found = controller(f"app.control.ping(destination={NODES}, timeout={WAIT})")
    assert sorted(found, key=str) == [{name: {"ok": "pong"}} for name in NODES]


def test_inspect(pair: Pair, controller: Client, tmp_path: Path) -> None:
    path, go = tmp_path / "ran", tmp_path / "go"
    call = "t.holds.apply_async((path, go), queue=q)"
    task = pair.client.send(call, q=pair.queue, path=str(path), go=str(go))
    wait_until(lambda: lines(path), WAIT)
    (node,) = [name for name in NODES if name.startswith(pair.to)]
    inspect = f"app.control.inspect([{node!r}], timeout={WAIT})"
    active = controller(f"{inspect}.active()")
    assert [(each["id"], each["args"]) for each in active[node]] == [(task, [str(path), str(go)])]
    queues = controller(f"{inspect}.active_queues()")[node]
    assert {queue["name"] for queue in queues} == {pair.queue, "both"}
    assert any("interop.add" in name for name in controller(f"{inspect}.registered()")[node])
    go.touch()
    assert pair.client.get(task) == pair.to


def test_revoked_before_it_is_sent(pair: Pair, controller: Client, tmp_path: Path) -> None:
    """By id; the answers say that every worker knows."""
    path, task = tmp_path / "ran", str(uuid.uuid4())
    revoke = f"app.control.revoke(id, reply=True, destination={NODES}, timeout={WAIT})"
    replies = controller(revoke, id=task)
    assert sorted(name for reply in replies for name in reply) == NODES
    call = "t.record.apply_async((path, 1), queue=q, task_id=id)"
    pair.client.send(call, q=pair.queue, id=task, path=str(path))
    failure = pair.client.failure(task)
    assert (failure.state, failure.cls, failure.args) == (
        "REVOKED",
        "TaskRevokedError",
        ("revoked",),
    )
    for _ in range(4):  # the worker has come to it
        pair.client.run("t.add.apply_async((1, 2), queue=q)", q=pair.queue)
    assert not path.exists()


@pytest.mark.parametrize("to", SIDES)
def test_revoked_while_it_waits(
    to: str, clients: dict[str, Client], controller: Client, tmp_path: Path
) -> None:
    path = tmp_path / "ran"
    call = "t.record.apply_async((path, 1), queue=q, countdown=3)"
    client = clients[SIDES[1 - SIDES.index(to)]]
    task = client.send(call, q=f"{to}-only", path=str(path))
    controller("app.control.revoke(id)", id=task)
    assert client.failure(task)[:2] == ("REVOKED", "TaskRevokedError")
    assert not path.exists()


def test_terminated(pair: Pair, controller: Client, tmp_path: Path) -> None:
    path, go = tmp_path / "ran", tmp_path / "go"
    call = "t.holds.apply_async((path, go), queue=q)"
    task = pair.client.send(call, q=pair.queue, path=str(path), go=str(go))
    wait_until(lambda: lines(path), WAIT)
    controller("app.control.revoke(id, terminate=True, signal='SIGKILL')", id=task)
    failure = pair.client.failure(task)
    assert (failure.state, failure.cls) == ("REVOKED", "TaskRevokedError")
    assert pair.client.run("t.add.apply_async((1, 2), queue=q)", q=pair.queue) == 3


@pytest.mark.parametrize("to", SIDES)
def test_time_limits_and_unknown_commands(to: str, controller: Client) -> None:
    (node,) = [name for name in NODES if name.startswith(to)]
    options = f"reply=True, destination=[{node!r}], timeout={WAIT}"
    found = controller(f"app.control.time_limit('interop.naps', soft=300, hard=400, {options})")
    assert found == [{node: {"ok": "time limits set successfully"}}]
    found = controller(f"app.control.broadcast('no_such_command', {options})")
    assert "error" in found[0][node]
