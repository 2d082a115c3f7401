"""A worker whose server goes away, comes back, stands still, or loses its memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chervil.exceptions import BrokerUnavailable
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.redis_server import WAIT, MakeServer, says
from tests.support.waiting import lines, wait_until

pytestmark = pytest.mark.requires_server("redis")
Client = Callable[..., Any]
Start = Callable[..., WorkerProcess]


def runs(value: int = 1) -> None:
    """A task is sent, run, and its result read."""
    assert pooled.add.delay(value, 1).get(timeout=WAIT) == value + 1


def held(tmp_path: Path) -> tuple[Any, Path, Path]:
    """A task that a worker is at until the test lets it go."""
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT, "the task starts")
    return result, started, go


def test_the_server_comes_after_the_worker(
    redis_server: MakeServer, start: Start, client: Client
) -> None:
    server = redis_server(start=False)
    worker = start(server.url, ready=None)
    says(worker, "cannot reach Redis at", 2)
    says(worker, "tried again in")
    server.start()
    says(worker, "ready")
    client(server.url)
    runs()


def test_a_worker_that_waits_for_its_server_can_be_stopped(start: Start) -> None:
    worker = start("redis://127.0.0.1:1/0", ready=None)
    says(worker, "tried again in")
    assert worker.stop() == 0


def test_restarted_empty(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    server = redis_server()
    client(server.url)
    worker = start(server.url, "-P", "prefork", "-c", "2", "--lease", "3")
    _, started, go = held(tmp_path)
    server.kill()
    with pytest.raises(BrokerUnavailable):
        pooled.add.delay(1, 1)
    says(worker, "tried again in")
    server.start()
    says(worker, "its 1 claims belong to others now and it starts over")
    runs()
    go.touch()
    runs(2)
    assert len(lines(started)) == 1


def test_restarted_with_what_it_had(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    """Claims, too: what is running goes on and its result is stored."""
    server = redis_server(appendonly="yes", appendfsync="always")
    client(server.url)
    worker = start(server.url, "-P", "prefork", "-c", "1", "--lease", "60")
    result, started, go = held(tmp_path)
    others = [pooled.add.delay(number, 1) for number in range(20)]
    late = pooled.add.apply_async((1, 1), countdown=1)
    server.kill()
    says(worker, "cannot reach Redis at")
    server.start()
    go.touch()
    assert result.get(timeout=WAIT)
    assert [other.get(timeout=WAIT) for other in others] == [n + 1 for n in range(20)]
    assert late.get(timeout=WAIT) == 2
    assert len(lines(started)) == 1
    says(worker, "The broker is back")
    assert "starts over" not in worker.log()


def test_killed_amid_batches(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    server = redis_server(appendonly="yes", appendfsync="always")
    client(server.url)
    log = tmp_path / "ran"
    for number in range(400):
        pooled.writes.delay(str(log), str(number))
    start(server.url, "-P", "prefork", "-c", "2", "--lease", "60")
    for count in (20, 80, 160):
        wait_until(lambda count=count: len(lines(log)) > count, WAIT)
        server.kill()
        server.start()
    wait_until(lambda: len(set(lines(log))) == 400, WAIT, "all run")
    wait_until(lambda: pooled.app.broker.depths(["celery"])["celery"].claimed == 0, WAIT)
    # Nothing twice: what was claimed stays claimed, and what had ended is settled later.
    assert [name for name, times in Counter(lines(log)).items() if times > 1] == []


def test_frozen_for_longer_than_the_timeouts(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    server = redis_server()
    client(server.url, socket_timeout=0.5)
    worker = start(server.url, "-P", "prefork", "-c", "2", options={"socket_timeout": 0.5})
    result, started, go = held(tmp_path)
    runs()
    server.freeze()
    with pytest.raises(BrokerUnavailable, match=r"has not answered within 0\.5 s"):
        pooled.add.delay(1, 1)
    go.touch()
    says(worker, "has not answered within 0.5 s (option socket_timeout); tried again in")
    server.thaw()
    assert result.get(timeout=WAIT)
    runs()
    assert len(lines(started)) == 1


def test_an_idle_worker_notices_a_frozen_server(
    redis_server: MakeServer, start: Start, client: Client
) -> None:
    server = redis_server()
    worker = start(server.url, options={"socket_timeout": 0.5})
    server.freeze()
    says(worker, "has not answered within 0.5 s")
    server.thaw()
    client(server.url)
    runs()


def test_emptied_under_a_running_worker(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    server = redis_server()
    client(server.url)
    worker = start(server.url, "-P", "prefork", "-c", "2", "--lease", "3")
    _, _, go = held(tmp_path)
    server.do("FLUSHALL")
    says(worker, "it starts over")
    runs()
    go.touch()
    runs(2)
    # Also when nothing runs, and with queues that are known no more.
    server.do("FLUSHALL")
    runs(3)


def test_scripts_flushed_under_load(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    server = redis_server()
    client(server.url)
    worker = start(server.url)
    results = []
    for number in range(200):
        results.append(pooled.add.apply_async((number, 1), countdown=number % 2 * 0.01))
        if number % 10 == 0:
            server.do("SCRIPT", "FLUSH")
    assert [r.get(timeout=WAIT) for r in results] == [n + 1 for n in range(200)]
    assert "ERROR" not in worker.log()


def test_all_connections_killed_again_and_again(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    server = redis_server()
    client(server.url)
    log = tmp_path / "ran"
    for number in range(1500):
        pooled.writes.delay(str(log), str(number))
    late = [pooled.writes.apply_async((str(log), f"late {n}"), countdown=1) for n in range(20)]
    stop = threading.Event()

    def kill() -> None:
        with server.client() as admin:
            while not stop.wait(0.03):
                for kind in ("normal", "pubsub"):
                    admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        start(server.url, "-P", "prefork", "-c", "2", "--lease", "60")
        wait_until(lambda: len(set(lines(log))) == 1520, 2 * WAIT, "all run")
    finally:
        stop.set()
        killer.join()
    assert [result.get(timeout=WAIT) for result in late] == [None] * 20
    wait_until(lambda: pooled.app.broker.depths(["celery"])["celery"].claimed == 0, WAIT)
    assert [name for name, times in Counter(lines(log)).items() if times > 1] == []


def test_still_loading(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    with server.client() as admin:
        admin.mset({f"key:{number}": "x" * 100 for number in range(1500)})
        admin.save()
    server.stop()
    server.options |= {
        "key_load_delay": "1000",  # microseconds
        "loading_process_events_interval_bytes": "1024",
    }
    server.start(ready=False)
    worker = start(server.url, ready=None)
    says(worker, "is still loading its data")
    says(worker, "ready")
    client(server.url)
    runs()


def test_made_a_replica_for_a_while(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    client(server.url, publish_timeout=0.5)
    worker = start(server.url)
    runs()
    server.do("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(BrokerUnavailable, match="read-only replica"):
        pooled.add.delay(1, 1)
    says(worker, "is a read-only replica")
    server.do("REPLICAOF", "NO", "ONE")
    runs()


def test_a_disk_that_takes_nothing(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    server = redis_server(save="3600 1000000")
    client(server.url, publish_timeout=0.5)
    worker = start(server.url)
    result, _, go = held(tmp_path)
    (server.folder / "dump.rdb").mkdir()  # cannot be written over
    with server.client() as admin:
        admin.set("something", "to save")
        admin.bgsave()
        wait_until(lambda: admin.info()["rdb_last_bgsave_status"] == "err", WAIT)
        with pytest.raises(BrokerUnavailable, match="cannot save to its disk"):
            pooled.add.delay(1, 1)
        go.touch()
        says(worker, "cannot save to its disk")
        (server.folder / "dump.rdb").rmdir()
        admin.bgsave()
    assert result.get(timeout=WAIT)
    runs()


def test_a_password_that_is_changed(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server(requirepass="first")
    url = f"redis://:first@127.0.0.1:{server.port}/0"
    client(url, publish_timeout=0.5)
    worker = start(url)
    runs()
    with server.client(password="first") as admin:
        admin.config_set("requirepass", "second")
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    says(worker, "refused the user name or password of the URL")
    with pytest.raises(BrokerUnavailable, match="refused the user name or password"):
        pooled.add.delay(1, 1)
    server.do("CONFIG", "SET", "requirepass", "first", password="second")
    runs()
