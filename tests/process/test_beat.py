"""Beats that are killed, frozen and brought back: each due time is sent once."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil import Chervil
from chervil.beat.rule import firing_id
from chervil.drivers.contracts import Queue, Settlement
from chervil.drivers.redis.link import Link, Refused
from chervil.drivers.redis.location import parse
from chervil.exceptions import BrokerUnavailable
from chervil.ids import new_id
from tests.apps import periodic
from tests.conftest import ROOT
from tests.support.processes import Tree, WorkerProcess
from tests.support.waiting import lines, wait_until
from tests.unit.drivers.redis.servers import Server

WAIT = 30.0
LEASE = "1"
BOOK = "schedule.periodic"
STORES = ["sqlite", pytest.param("redis", marks=pytest.mark.requires_server("redis"))]


@pytest.fixture(params=STORES)
def url(
    request: pytest.FixtureRequest, sqlite_url: str, server_url: Callable[[str], str]
) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_url
        return
    prefix = f"test-{new_id()}:"
    base = server_url("redis")
    yield f"{base}?global_keyprefix={prefix}"
    link = Link(parse(base, {}), BrokerUnavailable)
    keys = link.call("KEYS", prefix + "*")
    if keys:
        link.call("UNLINK", *keys)
    link.close()


@pytest.fixture
def app(url: str) -> Iterator[Chervil]:
    """An app that looks at the same store as the beats do."""
    with Chervil("periodic", broker_url=url, result_backend=url, set_as_current=False) as app:
        yield app


@pytest.fixture
def start(
    request: pytest.FixtureRequest, url: str, tmp_path: Path, process_tree: Tree
) -> Callable[..., WorkerProcess]:
    """Start ``chervil beat``, or another command, as a process of its own."""
    started: list[WorkerProcess] = []
    request.node._chervil_workers = started

    def run(*args: str, ready: str | None = r"\bready\b", **env: str) -> WorkerProcess:
        process = WorkerProcess(
            ["-A", "tests.apps.periodic", *(args or ("beat", "--lease", LEASE))],
            cwd=tmp_path,
            env={
                "CHERVIL_BROKER_URL": url,
                "CHERVIL_RESULT_BACKEND": url,
                "PYTHONPATH": str(ROOT),
                **env,
            },
            tree=process_tree,
            log=tmp_path / f"process-{len(started)}.log",
        )
        started.append(process)
        if ready:
            process.wait_for_log(ready, WAIT)
        return process

    return run


def leader_pid(app: Chervil) -> int:
    """The process id of the leader; 0 where there is none."""
    owner = app.schedule.leader()
    return int(owner.split(":")[1]) if owner else 0


def rounds(app: Chervil) -> int:
    """How often the first entry has fired."""
    records = app.coordinator.get(BOOK, ["entry-0"])
    return app.schedule.get("entry-0").state.count if records else 0


def wait_for_rounds(app: Chervil, more: int) -> None:
    goal = rounds(app) + more
    wait_until(lambda: rounds(app) >= goal, WAIT, f"{more} more firings")


def sent(app: Chervil) -> list[tuple[str, str, str]]:
    """Entry, due time and task id of all messages in the broker."""
    consumer = app.broker.consumer([Queue("celery")], "reader")
    found = []
    try:
        while deliveries := consumer.exchange((), 500):
            for delivery in deliveries:
                headers: dict[str, Any] = json.loads(delivery.head)["headers"]
                found.append(
                    (headers["periodic_task_name"], headers["periodic_due"], headers["id"])
                )
            consumer.exchange([Settlement(delivery) for delivery in deliveries], 0)
    finally:
        consumer.close()
    return found


def check_ledger(app: Chervil, once: bool = True) -> None:
    """Each due time of each entry was sent, and sent once."""
    messages = sent(app)
    if once:
        assert len(messages) == len(set(messages))
    dues: dict[str, set[float]] = {}
    for name, due, task_id in set(messages):
        at = dt.datetime.fromisoformat(due).timestamp()
        assert task_id == firing_id(BOOK, name, at)
        dues.setdefault(name, set()).add(at)
    assert len(dues) == periodic.ENTRIES
    for name, times in dues.items():
        steps = sorted(times)
        gaps = [b - a for a, b in itertools.pairwise(steps)]
        assert all(abs(gap - periodic.EVERY) < 1e-5 for gap in gaps), (name, gaps)
        assert app.schedule.get(name).state.count == len(times)


def test_a_killed_leader_is_replaced(start: Any, app: Chervil) -> None:
    first, second = start(), start()
    wait_for_rounds(app, 5)
    assert leader_pid(app) == first.pid
    first.kill_node()
    wait_until(lambda: leader_pid(app) == second.pid, WAIT, "the other takes over")
    wait_for_rounds(app, 10)
    assert second.stop() == 0
    assert leader_pid(app) == 0
    check_ledger(app)


def test_a_frozen_leader_comes_back(start: Any, app: Chervil) -> None:
    first, second = start(), start()
    wait_for_rounds(app, 5)
    for one, other in ((first, second), (second, first)):
        os.kill(one.pid, signal.SIGSTOP)
        try:
            wait_until(lambda pid=other.pid: leader_pid(app) == pid, WAIT, "the other takes over")
            wait_for_rounds(app, 10)
        finally:
            os.kill(one.pid, signal.SIGCONT)
        wait_for_rounds(app, 10)
    assert first.stop() == 0
    assert second.stop() == 0
    check_ledger(app)


def test_beats_killed_and_frozen_at_random_moments(start: Any, app: Chervil) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    beats = [start(), start()]
    wait_for_rounds(app, 3)
    until = time.monotonic() + 8
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.05, 0.8))  # the moments are what is tested
        victim = next((b for b in beats if b.pid == leader_pid(app)), beats[0])
        if chance.random() < 0.5:
            victim.kill_node()
            beats.remove(victim)
            beats.append(start(ready=None))
        else:
            os.kill(victim.pid, signal.SIGSTOP)
            time.sleep(chance.uniform(0.1, 1.6))
            os.kill(victim.pid, signal.SIGCONT)
    wait_for_rounds(app, 20)
    for one in beats:
        assert one.stop() == 0
    check_ledger(app)


@pytest.mark.requires_server("redis")
@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_a_coordinator_elsewhere_sends_at_least_once(
    start: Any, tmp_path: Path, app: Chervil
) -> None:
    """Between storing and sending a beat may die: the same id is sent again."""
    elsewhere = f"sqlite:///{tmp_path}/state.db"
    app.conf.coordinator_url = elsewhere
    for _ in range(4):
        one = start(CHERVIL_COORDINATOR_URL=elsewhere)
        wait_for_rounds(app, 4)
        one.kill_node()
    last = start(CHERVIL_COORDINATOR_URL=elsewhere)
    wait_for_rounds(app, 10)
    assert last.stop() == 0
    wait_until(lambda: not app.coordinator.pending(BOOK), WAIT, "nothing is kept back")
    check_ledger(app, once=False)


def test_a_worker_has_a_beat_of_its_own(start: Any, app: Chervil, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    worker = start("worker", "-B", "-c", "1", "--lease", "2", PERIODIC_LEDGER=str(ledger))
    wait_until(lambda: len(lines(ledger)) >= 20, WAIT, "its tasks run")
    assert worker.stop() == 0
    ran = [line.split() for line in lines(ledger)]
    assert len(ran) == len({task_id for task_id, _, _ in ran})
    for task_id, name, due in ran:
        assert task_id == firing_id(BOOK, name, dt.datetime.fromisoformat(due).timestamp())
    assert leader_pid(app) == 0


def test_changes_at_run_time_are_noticed_at_once(start: Any, app: Chervil) -> None:
    beat = start("beat", "--lease", "3600")  # which renews, and looks, every 20 minutes
    app.schedule.add("new", 0.05, "tests.apps.periodic.mark", args=[1])
    wait_until(lambda: app.schedule.get("new").state.count > 3, WAIT, "it is sent")
    app.schedule.pause("new")
    count = app.schedule.get("new").state.count
    wait_for_rounds(app, 5)
    assert app.schedule.get("new").state.count == count
    app.schedule.remove("new")
    wait_for_rounds(app, 5)
    assert beat.stop() == 0
    assert "Traceback" not in beat.log()


def test_the_run_before_is_cancelled(start: Any, app: Chervil, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    worker = start("worker", "-B", "-c", "1", "-Q", "own", PERIODIC_LEDGER=str(ledger))
    app.schedule.add(
        "hold",
        0.7,
        "tests.apps.periodic.hold",
        overlap="cancel_previous",
        options={"queue": "own"},
    )
    wait_until(lambda: len(lines(ledger)) >= 3, WAIT, "one follows the other")
    app.schedule.pause("hold")
    ids = [line.split()[0] for line in lines(ledger)]
    wait_until(lambda: len(app.backend.get(ids[:2])) == 2, WAIT)
    assert {app.backend.get([i])[i].status for i in ids[:2]} == {"REVOKED"}
    app.control.revoke(app.schedule.history("hold")[-1].task_id, terminate=True)
    assert worker.stop() == 0


def test_a_beat_dies_with_its_worker(start: Any, app: Chervil) -> None:
    worker = start("worker", "-B", "-c", "1")
    wait_until(lambda: leader_pid(app) in worker.pids() | {worker.pid}, WAIT, "its beat leads")
    pid = leader_pid(app)
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not _alive(pid), WAIT, "the beat ends")


def _has_loaded(server: Server) -> bool:
    try:
        return server.call("PING") is not None
    except (Refused, BrokerUnavailable):
        return False


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.requires_server("redis")
@pytest.mark.parametrize("url", ["redis"], indirect=True)
def test_a_server_that_goes_away_and_comes_back(start: Any, app: Chervil, tmp_path: Path) -> None:
    server = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    try:
        app.conf.broker_url = app.conf.result_backend = url = f"redis+socket://{server.path}"
        beats = [
            start(CHERVIL_BROKER_URL=url, CHERVIL_RESULT_BACKEND=url, ready=r"\bready\b")
            for _ in range(2)
        ]
        wait_for_rounds(app, 5)
        server.stop()
        for one in beats:
            one.wait_for_log("tried again in a second", WAIT)
        server.start()
        wait_until(lambda: _has_loaded(server), WAIT, "the server has its data")
        wait_for_rounds(app, 10)
        for one in beats:
            assert one.stop() == 0
        check_ledger(app)
        app.close()
    finally:
        server.stop()
