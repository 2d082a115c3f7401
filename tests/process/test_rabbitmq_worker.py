"""A node on RabbitMQ, end to end: with its executors, itself and the server killed."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.location import parse
from chervil.exceptions import BrokerUnavailable
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until

pytestmark = [pytest.mark.requires_server("rabbitmq"), pytest.mark.requires_server("redis")]
WAIT = 25.0


@pytest.fixture(autouse=True)
def queue(server_url: Callable[[str], str]) -> Iterator[str]:
    """A queue of this test alone, for the app of this process too."""
    queue = f"test-{uuid.uuid4().hex[:12]}"
    conf = pooled.app.conf
    pooled.app.close()
    before = conf.task_default_queue
    conf.broker_url, conf.result_backend = server_url("rabbitmq"), server_url("redis")
    conf.task_default_queue = queue
    yield queue
    pooled.app.close()
    conf.task_default_queue = before
    link = Link(parse(server_url("rabbitmq"), {}), BrokerUnavailable)
    link.call(1, m.QUEUE_DELETE, queue, False, False, False)
    link.call(1, m.EXCHANGE_DELETE, queue, False, False)
    link.close()


@pytest.fixture
def start(
    worker: Callable[..., WorkerProcess], server_url: Callable[[str], str], queue: str
) -> Callable[..., WorkerProcess]:
    env = {
        "CHERVIL_BROKER_URL": server_url("rabbitmq"),
        "CHERVIL_RESULT_BACKEND": server_url("redis"),
        "CHERVIL_TASK_DEFAULT_QUEUE": queue,
    }

    def start(*args: str) -> WorkerProcess:
        return worker("tests.apps.pooled", *args, env=env)

    return start


@pytest.mark.parametrize(
    "pool", [("prefork", "-c", "2"), ("threads", "-c", "4"), ("asyncio", "-c", "8"), ("solo",)]
)
def test_results_retries_delays_and_errors(pool: tuple[str, ...], start: Any) -> None:
    start("-P", *pool)
    results = [pooled.add.delay(i, 1) for i in range(200)]
    assert [r.get(timeout=WAIT) for r in results] == [i + 1 for i in range(200)]
    assert pooled.aadd.apply_async((1, 2), countdown=0.3).get(timeout=WAIT) == 3
    assert pooled.aadd.apply_async((1, 2), countdown=1.2).get(timeout=WAIT) == 3
    assert pooled.succeeds_after.delay(2).get(timeout=WAIT) == 2
    with pytest.raises(pooled.CustomError):
        pooled.fail.delay("oh").get(timeout=WAIT)
    assert len(pooled.large.delay(2_000_000).get(timeout=WAIT)) == 2_000_000


def test_killed_executors_and_nodes_lose_nothing(start: Any, tmp_path: Path, queue: str) -> None:
    first = start("-P", "prefork", "-c", "2", "-n", "first@here", "--lease", "2")
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT)
    os.kill(int(lines(started)[0]), signal.SIGKILL)
    wait_until(lambda: len(lines(started)) == 2, WAIT, "it runs again")
    others = [pooled.add.delay(i, 1) for i in range(50)]
    first.kill_node()
    start("-P", "prefork", "-c", "2", "-n", "second@here", "--lease", "2")
    wait_until(lambda: len(lines(started)) == 3, WAIT, "another runs it")
    go.touch()
    assert result.get(timeout=WAIT)
    assert [r.get(timeout=WAIT) for r in others] == [i + 1 for i in range(50)]
    wait_until(lambda: pooled.app.broker.depths([queue])[queue].ready == 0, WAIT)


def test_a_restarted_server(
    start: Any, tmp_path: Path, rabbitmqctl: Callable[..., None], queue: str
) -> None:
    """The node comes back by itself, and what it was running meanwhile runs only once."""
    node = start("-P", "prefork", "-c", "2")
    started, go = tmp_path / "started", tmp_path / "go"
    held = pooled.holds.delay(str(started), str(go))
    wait_until(lambda: lines(started), WAIT)
    late = pooled.add.apply_async((1, 2), countdown=6)
    rabbitmqctl("stop_app")
    node.wait_for_log("lease ran out", WAIT)
    rabbitmqctl("start_app")
    node.wait_for_log("runs on", WAIT)
    others = [pooled.add.delay(i, 1) for i in range(20)]
    assert [r.get(timeout=WAIT) for r in others] == [i + 1 for i in range(20)]
    go.touch()
    assert held.get(timeout=WAIT)
    assert late.get(timeout=WAIT) == 3
    assert len(lines(started)) == 1
    wait_until(lambda: pooled.app.broker.depths([queue])[queue].ready == 0, WAIT)
    assert node.stop() == 0


def test_a_task_longer_than_the_servers_consumer_timeout(
    start: Any, tmp_path: Path, rabbitmqctl: Callable[..., None]
) -> None:
    """RabbitMQ takes the message back and gives it to the node again, which goes on."""
    rabbitmqctl("eval", "application:set_env(rabbit, consumer_timeout, 1000).")
    rabbitmqctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
    try:
        node = start("-P", "prefork", "-c", "2")
        started, go = tmp_path / "started", tmp_path / "go"
        held = pooled.holds.delay(str(started), str(go))
        node.wait_for_log("consumer_timeout", WAIT)
        node.wait_for_log("runs on", WAIT)
        go.touch()
        assert held.get(timeout=WAIT)
        assert len(lines(started)) == 1
    finally:
        rabbitmqctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
        rabbitmqctl("eval", "application:set_env(rabbit, channel_tick_interval, 60000).")
