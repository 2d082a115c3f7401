"""Probes: what a node says of itself, to `chervil health`, over HTTP and to systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chervil.testing.faults.proxy import Proxy
from tests.support.processes import WorkerProcess
from tests.support.waiting import wait_until

WAIT = 25.0
StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A node that no other test asks."""
    return f"{tmp_path.name}-{os.getpid()}@here"


def health(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chervil", "health", "-n", name, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def get(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_node_that_is_well(pool: str, worker: StartWorker, name: str, port: int) -> None:
    assert health(name).returncode == 1, "nobody answers yet"
    env = {"CHERVIL_WORKER_HEALTH_ADDRESS": f"127.0.0.1:{port}"}
    node = worker("tests.apps.pooled", "-P", pool, "-c", "2", "-n", name, env=env)
    done = health(name)
    assert (done.returncode, done.stdout) == (0, f"{name} is ready\n"), done.stderr
    assert health(name, "--live").returncode == 0
    state = json.loads(health(name, "--json").stdout)
    assert get(port, "/live") == get(port, "/ready") == (200, state)
    assert len(state.pop("broker")) == 16
    assert state == {"node": name, "pid": node.pid, "live": True, "ready": True, "problems": []}
    assert node.stop() == 0
    done = health(name)
    assert done.returncode == 1
    assert "no node" in done.stderr


def test_a_node_that_is_stopped_does_not_answer(worker: StartWorker, name: str) -> None:
    node = worker("tests.apps.pooled", "-c", "1", "-n", name)
    node.signal(signal.SIGSTOP)
    try:
        assert health(name, "--live", "--timeout", "0.2").returncode == 1
    finally:
        node.signal(signal.SIGCONT)
    assert health(name, "--live").returncode == 0


def test_a_second_node_of_the_same_name(worker: StartWorker, name: str) -> None:
    first = worker("tests.apps.pooled", "-c", "1", "-n", name)
    second = worker("tests.apps.pooled", "-c", "1", "-n", name)
    assert f"is running here already (process {first.pid})" in second.log()
    assert "is running here already" not in first.log()
    assert health(name).stdout == f"{name} is ready\n" * 2
    assert second.stop() == 0
    assert json.loads(health(name, "--json").stdout)["pid"] == first.pid
    first.kill_node()
    assert health(name).returncode == 1


def test_two_applications_may_have_nodes_of_one_name(
    worker: StartWorker, name: str, tmp_path: Path
) -> None:
    worker("tests.apps.pooled", "-c", "1", "-n", name)
    url = f"sqlite:///{tmp_path / 'other.db'}"
    env = {"CHERVIL_BROKER_URL": url, "CHERVIL_RESULT_BACKEND": url}
    other = worker("tests.apps.pooled", "-c", "1", "-n", name, env=env)
    assert "Another application has a node named" in other.log()
    assert "WARNING" not in other.log()


@pytest.mark.requires_server("redis")
def test_a_node_whose_broker_is_away_is_live_and_not_ready(
    worker: StartWorker, name: str, server_url: Callable[[str], str], port: int
) -> None:
    url = server_url("redis")
    parts = urlsplit(url)
    with Proxy(str(parts.hostname), int(parts.port or 0)) as proxy:
        proxy.refusing = True
        env = {
            "CHERVIL_BROKER_URL": proxy.url(url),
            "CHERVIL_RESULT_BACKEND": proxy.url(url),
            "CHERVIL_TASK_DEFAULT_QUEUE": name,
            "CHERVIL_WORKER_HEALTH_ADDRESS": f"127.0.0.1:{port}",
        }
        node = worker("tests.apps.pooled", "-c", "1", "-n", name, env=env, ready=None)
        node.wait_for_log("tried again in", WAIT)
        assert get(port, "/live")[0] == 200
        status, state = get(port, "/ready")
        assert (status, state["problems"]) == (503, ["the broker has not been reached yet"])
        proxy.refusing = False
        wait_until(lambda: get(port, "/ready")[0] == 200, WAIT, "it gets ready")
        proxy.refusing = True
        proxy.cut()
        wait_until(lambda: get(port, "/ready")[0] == 503, WAIT, "it notices")
        assert get(port, "/live")[0] == 200
        proxy.refusing = False
        wait_until(lambda: get(port, "/ready")[0] == 200, WAIT, "it comes back")
        assert node.stop() == 0


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(WAIT)
        yield listening


def test_systemd_is_told(worker: StartWorker, systemd: socket.socket, name: str) -> None:
    env = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "100000"}
    node = worker("tests.apps.pooled", "-c", "1", "-n", name, env=env)
    told: list[str] = []

    def hear(wanted: str) -> None:
        while wanted not in "\n".join(told):
            told.append(systemd.recv(4096).decode())

    hear("READY=1")
    assert f"MAINPID={node.pid}" in told[-1]
    hear("WATCHDOG=1")
    node.signal(signal.SIGTERM)
    hear("STOPPING=1")
    assert node.wait() == 0
