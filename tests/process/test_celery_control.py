"""Remote control between Celery from PyPI and nodes of ours, on Redis."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.drivers.redis.link import Link
from chervil.drivers.redis.location import parse
from chervil.exceptions import BrokerUnavailable, TaskRevokedError
from tests.apps import pooled
from tests.process.test_redis_worker import prefix, start
from tests.support.processes import Tree, WorkerProcess
from tests.support.waiting import lines, wait_until

__all__ = ["prefix", "start"]
pytestmark = pytest.mark.requires_server("redis")
WAIT = 25.0
NODE = "mine@here"

_TWIN = """
from celery import Celery

app = Celery("twin", broker={url!r}, backend={url!r})
app.conf.broker_transport_options = app.conf.result_backend_transport_options = {{
    "global_keyprefix": {prefix!r}
}}
app.conf.worker_enable_prefetch_count_reduction = False
app.conf.broker_connection_retry_on_startup = True
"""

#: ``run("inspect", "ping")``: what the command printed, as JSON where it is that.
Celery = Callable[..., Any]


@pytest.fixture
def twin(tmp_path: Path, server_url: Callable[[str], str], prefix: str) -> Path:
    """The module of an app of Celery's on the same keys."""
    path = tmp_path / "twin.py"
    path.write_text(_TWIN.format(url=server_url("redis"), prefix=prefix))
    return path


@pytest.fixture
def celery(twin: Path) -> Celery:
    def run(*args: str) -> Any:
        command = [sys.executable, "-m", "celery", "-A", "twin", *args]
        done = subprocess.run(
            command, cwd=twin.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if "--json" in args else done.stdout

    return run


@pytest.fixture
def keys(server_url: Callable[[str], str], prefix: str) -> Iterator[Callable[[], set[str]]]:
    """The names of this test's keys, without the prefix."""
    link = Link(parse(server_url("redis"), {}), BrokerUnavailable)
    yield lambda: {key.decode().removeprefix(prefix) for key in link.call("KEYS", prefix + "*")}
    found = link.call("KEYS", prefix + "*")
    if found:
        link.call("UNLINK", *found)
    link.close()


def test_celery_inspects_our_nodes(start: Any, celery: Celery, tmp_path: Path) -> None:
    start("-P", "threads", "-c", "2", "-n", NODE)
    started, go = tmp_path / "started", tmp_path / "go"
    running = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT)
    assert celery("inspect", "ping", "--json", "--timeout", "5", "-d", NODE) == {
        NODE: {"ok": "pong"}
    }
    found = celery("inspect", "active", "--json", "--timeout", "5", "-d", NODE)[NODE]
    assert [(task["id"], task["args"]) for task in found] == [(running.id, [str(started), str(go)])]
    assert found[0]["worker_pid"] == int(lines(started)[0])
    go.touch()
    assert running.get(timeout=WAIT)
    for command in (
        "reserved",
        "scheduled",
        "stats",
        "active_queues",
        "registered",
        "clock",
        "conf",
        "report",
        "revoked",
    ):
        answer = celery("inspect", command, "--json", "--timeout", "5", "-d", NODE)[NODE]
        assert "error" not in answer, command
    assert "OK" in celery("status", "--timeout", "5", "-d", NODE)


def test_celery_revokes_and_terminates(start: Any, celery: Celery, tmp_path: Path) -> None:
    node = start("-P", "prefork", "-c", "2", "-n", NODE)
    started, mark = tmp_path / "started", tmp_path / "ran"
    later = str(uuid.uuid4())
    running = pooled.cleans_up.delay(str(started))
    wait_until(lambda: lines(started), WAIT)
    celery("control", "--timeout", "5", "-d", NODE, "revoke", later)
    celery("control", "--timeout", "5", "-d", NODE, "terminate", "SIGTERM", running.id)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=WAIT)
    node.kill_node()  # it is stored: whoever serves the queue next knows
    sent = pooled.quiet.apply_async((str(mark),), task_id=later, ignore_result=False)
    start("-P", "prefork", "-c", "2", "-n", "other@here", "--lease", "2")
    with pytest.raises(TaskRevokedError):
        sent.get(timeout=WAIT)
    assert not mark.exists()


@pytest.fixture
def celery_worker(twin: Path, process_tree: Tree) -> WorkerProcess:
    log = twin.parent / "celery.log"
    command = [sys.executable, "-m", "celery", "-A", "twin", "worker", "-P", "threads", "-c", "2",
               "-n", "theirs@here", "-l", "INFO", "-Q", "elsewhere"]  # fmt: skip
    process_tree.start(command, twin.parent, {}, log)
    wait_until(lambda: "ready." in log.read_text(), WAIT, "Celery's worker is ready")
    return WorkerProcess


def test_nodes_of_both_kinds_hear_one_another(
    celery_worker: Any, start: Any, keys: Callable[[], set[str]]
) -> None:
    start("-P", "solo", "-n", NODE)
    control = pooled.app.control
    names = {name for reply in control.ping(timeout=10) for name in reply}
    assert names == {NODE, "theirs@here"}
    control.revoke("11111111-2222-4333-8444-555555555555")
    revoked = control.inspect(timeout=10).revoked()
    assert {name: list(ids) for name, ids in revoked.items()} == {
        name: ["11111111-2222-4333-8444-555555555555"] for name in names
    }
    assert not {key for key in keys() if "reply" in key}, "nothing is left of the answers"


def test_celerys_workers_tell_ours_what_was_revoked(
    celery_worker: Any, start: Any, celery: Celery
) -> None:
    task_id = "11111111-2222-4333-8444-666666666666"
    celery("control", "--timeout", "5", "-d", "theirs@here", "revoke", task_id)
    start("-P", "solo", "-n", NODE)
    assert task_id in pooled.app.control.inspect(NODE, timeout=10).hello("other@here")["revoked"]


def test_a_lost_connection_is_made_again(
    start: Any, server_url: Callable[[str], str], prefix: str, tmp_path: Path
) -> None:
    node = start("-P", "threads", "-c", "2", "-n", NODE)
    started, go = tmp_path / "started", tmp_path / "go"
    running = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT)
    link = Link(parse(server_url("redis"), {}), BrokerUnavailable)
    channel = f"{prefix}/0.celery.pidbox"
    for client in link.call("CLIENT", "LIST", "TYPE", "PUBSUB").decode().splitlines():
        fields = dict(field.split("=", 1) for field in client.split())
        if fields["sub"] == "1" and fields["cmd"] == "subscribe":
            link.call("CLIENT", "KILL", "ID", fields["id"])
    wait_until(lambda: link.call("PUBSUB", "NUMSUB", channel)[1] == 1, WAIT, "it is back")
    link.close()
    assert pooled.app.control.inspect(NODE, timeout=10).ping() == {"ok": "pong"}
    node.wait_for_log("Remote control is back")
    go.touch()
    assert running.get(timeout=WAIT)
