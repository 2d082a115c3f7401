"""A server whose memory is full: nothing is lost, workers make room, and it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chervil.drivers.contracts import Queue
from chervil.drivers.redis.broker import RedisBroker
from chervil.exceptions import BrokerUnavailable
from chervil.testing.harness import claim, make_message
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.redis_server import OPTIONS, WAIT, MakeServer, RedisServer, says
from tests.support.waiting import lines, wait_until

pytestmark = pytest.mark.requires_server("redis")
Client = Callable[..., Any]
Start = Callable[..., WorkerProcess]


def fill(server: RedisServer) -> None:
    """Leave the server less memory than it uses."""
    with server.client() as admin:
        admin.config_set("maxmemory", admin.info()["used_memory"] // 2)
        assert admin.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_sends_are_refused_and_go_on_when_there_is_room(
    redis_server: MakeServer, client: Client
) -> None:
    server = redis_server()
    client(server.url, publish_timeout=0.5)
    fill(server)
    for options in ({}, {"countdown": 60}):
        with pytest.raises(BrokerUnavailable, match="out of memory"):
            pooled.add.apply_async((1, 1), **options)
    assert pooled.app.broker.depths(["celery"])["celery"].ready == 0
    server.do("CONFIG", "SET", "maxmemory", "0")
    pooled.add.delay(1, 1)
    assert pooled.app.broker.depths(["celery"])["celery"].ready == 1


def test_workers_make_room(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    """A queue that filled the memory would otherwise stay for ever."""
    server = redis_server()
    client(server.url, publish_timeout=0.5)
    log = tmp_path / "ran"
    for number in range(300):
        pooled.writes.delay(str(log), str(number) + " " * 3000)
    late = pooled.add.apply_async((1, 1), countdown=0.5)
    worker = start(server.url, "-P", "prefork", "-c", "2", "--lease", "3", "-Q", "none")
    worker.stop()
    fill(server)
    with pytest.raises(BrokerUnavailable, match="out of memory"):
        pooled.add.delay(1, 1)
    worker = start(server.url, "-P", "prefork", "-c", "2", "--lease", "3", ready=None)
    says(worker, "is out of memory (maxmemory)")
    server.do("CONFIG", "SET", "maxmemory", "0")
    assert late.get(timeout=WAIT) == 2
    wait_until(lambda: len(lines(log)) == 300, WAIT, "all run once")


def test_the_lease_and_the_results_of_a_full_server(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    """What was claimed before ends, and nobody takes it for dead."""
    server = redis_server()
    client(server.url, publish_timeout=0.5)
    worker = start(server.url, "-P", "prefork", "-c", "2", "--lease", "2")
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    others = [pooled.add.apply_async((number, 1), countdown=0.5) for number in range(50)]
    wait_until(lambda: lines(started), WAIT)
    fill(server)
    with server.client() as admin:
        (lease,) = admin.keys("_chervil.lease.*")
        for _ in range(2):  # it is renewed
            wait_until(lambda: admin.pttl(lease) < 1500, WAIT)
            wait_until(lambda: admin.pttl(lease) > 1800, WAIT)
    go.touch()
    assert result.get(timeout=WAIT)
    assert [other.get(timeout=WAIT) for other in others] == [n + 1 for n in range(50)]
    says(worker, "this node works off those that are there")
    assert len(lines(started)) == 1
    fill(server)
    with pytest.raises(BrokerUnavailable, match="out of memory"):
        pooled.add.delay(1, 1)
    # A node that ends gives back what it holds.
    assert worker.stop() == 0


def test_claims_come_back_from_the_dead_in_full_memory(redis_server: MakeServer) -> None:
    server = redis_server()
    broker = RedisBroker(server.url, OPTIONS)
    broker.publish([make_message("q") for _ in range(10)])
    dead, alive = (
        broker.consumer([Queue("q")], name, lease) for name, lease in (("a", 1), ("b", 60))
    )
    claim(dead, 10)
    fill(server)
    wait_until(lambda: alive.recover() == 10, WAIT)
    assert {d.deliveries for d in claim(alive, 10)} == {2}
    alive.close()
    assert broker.depths(["q"])["q"].ready == 10
    dead.close()
    broker.close()


def test_a_server_that_may_delete_queues_is_warned_of(
    redis_server: MakeServer, start: Start
) -> None:
    server = redis_server(maxmemory="100mb", maxmemory_policy="allkeys-lru")
    worker = start(server.url)
    says(worker, "deletes keys when its memory is full (maxmemory-policy allkeys-lru)")
    server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert "deletes keys" not in start(server.url, "-n", "other@here").log()
