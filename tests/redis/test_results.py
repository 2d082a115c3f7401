"""What workers leave in the result store: keys, expiry, the extended form, large ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.redis_server import WAIT, MakeServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.requires_server("redis")
Client = Callable[..., Any]
Start = Callable[..., WorkerProcess]
SOLO = ("-P", "solo")


def test_they_expire(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    client(server.url)
    start(server.url, *SOLO, "result_expires=2")
    result = pooled.add.delay(1, 1)
    assert result.get(timeout=WAIT) == 2
    failed = pooled.fail.delay("oh")
    with pytest.raises(pooled.CustomError):
        failed.get(timeout=WAIT)
    with server.client() as admin:
        keys = {f"celery-task-meta-{one.id}".encode() for one in (result, failed)}
        assert set(admin.keys("celery-task-meta-*")) <= keys
        assert all(admin.pttl(key) <= 2000 for key in keys)
        wait_until(lambda: not admin.exists(*keys), WAIT, "they are gone")
    assert pooled.add.AsyncResult(result.id).state == "PENDING"


def test_they_stay_if_they_shall(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    client(server.url)
    start(server.url, *SOLO, "result_expires=null")
    result = pooled.add.delay(1, 1)
    assert result.get(timeout=WAIT) == 2
    assert server.do("PTTL", f"celery-task-meta-{result.id}") == -1


def test_the_extended_form(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    client(server.url)
    start(server.url, *SOLO, "-n", "w@here", "result_extended=true")
    result = pooled.add.delay(1, y=2)
    assert result.get(timeout=WAIT) == 3
    document = json.loads(server.do("GET", f"celery-task-meta-{result.id}"))
    assert document["name"] == "tests.apps.pooled.add"
    assert (document["args"], document["kwargs"]) == ([1], {"y": 2})
    assert (document["worker"], document["queue"], document["retries"]) == ("w@here", "celery", 0)
    again = pooled.add.AsyncResult(result.id)
    assert (again.name, again.worker, again.kwargs) == (document["name"], "w@here", {"y": 2})


def test_large_ones(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    client(server.url)
    start(server.url, *SOLO)
    sizes = (100_000, 5_000_000, 40_000_000)
    results = [pooled.large.delay(size) for size in sizes]
    for size, result in zip(sizes, results, strict=True):
        assert len(result.get(timeout=2 * WAIT)) == size
        result.forget()
    assert server.do("KEYS", "celery-task-meta-*") == []


@pytest.mark.parametrize(("prefix", "results"), [("shop:", "shop:"), ("shop", "shop_")])
def test_all_keys_and_channels_have_the_prefix(
    prefix: str, results: str, redis_server: MakeServer, start: Start, client: Client
) -> None:
    server = redis_server()
    client(server.url, global_keyprefix=prefix)
    options = {"global_keyprefix": prefix}
    worker = start(server.url, *SOLO, options=options)
    result = pooled.add.delay(1, 1)
    assert result.get(timeout=WAIT) == 2
    assert pooled.add.apply_async((1, 2), countdown=0.1).get(timeout=WAIT) == 3
    pooled.rejected.delay()
    pooled.add.apply_async((1, 1), countdown=60).revoke()
    wait_until(lambda: pooled.app.broker.dead(), WAIT, "there is a dead letter")
    with server.client() as admin:
        keys = [key.decode() for key in admin.keys("*")]
        assert [key for key in keys if not key.startswith(prefix)] == []
        assert f"{results}celery-task-meta-{result.id}" in keys
        channels = [name.decode() for name in admin.pubsub_channels("*")]
    assert [c for c in channels if not c.startswith(prefix)] == ["__redis__:invalidate"]
    assert worker.stop() == 0


def test_results_in_another_database(
    redis_server: MakeServer, start: Start, client: Client
) -> None:
    """Not in one step then: the result first."""
    server = redis_server()
    app = client(server.url)
    app.conf.result_backend = other = server.url[:-1] + "5"
    worker = start(server.url, *SOLO, f"result_backend={other}")
    results = [pooled.add.delay(number, 1) for number in range(20)]
    assert [result.get(timeout=WAIT) for result in results] == [n + 1 for n in range(20)]
    assert server.do("DBSIZE", db=5) == 20
    assert worker.stop() == 0
