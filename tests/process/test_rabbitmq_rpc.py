"""A node on RabbitMQ whose results come by ``rpc://``."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.location import parse
from chervil.exceptions import BackendError, BrokerUnavailable
from chervil.result import AsyncResult
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.requires_server("rabbitmq")
WAIT = 25.0


@pytest.fixture(autouse=True)
def queue(server_url: Callable[[str], str]) -> Iterator[str]:
    """A queue of this test alone, for the app of this process too."""
    queue = f"test-{uuid.uuid4().hex[:12]}"
    conf = pooled.app.conf
    pooled.app.close()
    before = conf.task_default_queue, conf.broker_url, conf.result_backend
    conf.broker_url, conf.result_backend = server_url("rabbitmq"), "rpc://"
    conf.task_default_queue = queue
    yield queue
    pooled.app.close()
    conf.task_default_queue, conf.broker_url, conf.result_backend = before
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
        "CHERVIL_RESULT_BACKEND": "rpc://",
        "CHERVIL_TASK_DEFAULT_QUEUE": queue,
    }

    def start(*args: str) -> WorkerProcess:
        return worker("tests.apps.pooled", *args, env=env)

    return start


@pytest.mark.parametrize(
    "pool", [("prefork", "-c", "2"), ("threads", "-c", "4"), ("asyncio", "-c", "8"), ("solo",)]
)
def test_results_retries_states_and_errors(
    pool: tuple[str, ...], start: Any, tmp_path: Path
) -> None:
    start("-P", *pool)
    results = [pooled.add.delay(i, 1) for i in range(1500)]
    assert [r.get(timeout=WAIT) for r in results] == [i + 1 for i in range(1500)]
    seen: list[str] = []
    result = pooled.succeeds_after.delay(2)
    assert result.get(timeout=WAIT, on_message=lambda meta: seen.append(meta["status"])) == 2
    assert seen[-1] == "SUCCESS"
    with pytest.raises(pooled.CustomError):
        pooled.fail.delay("oh").get(timeout=WAIT)
    assert len(pooled.large.delay(2_000_000).get(timeout=WAIT)) == 2_000_000
    assert pooled.sends_another.delay(1).get(timeout=WAIT)
    assert AsyncResult(pooled.add.delay(2, 2).id, app=pooled.app).get(timeout=WAIT) == 4


def test_states_on_the_way(start: Any, tmp_path: Path) -> None:
    start("-P", "threads", "-c", "2")
    go = tmp_path / "go"
    result = pooled.progress.delay(str(go))
    wait_until(lambda: result.state not in ("PENDING", "STARTED"), WAIT)
    assert result.state == "PROGRESS"
    go.touch()
    assert result.get(timeout=WAIT)
    tracked = pooled.tracked.delay(str(tmp_path / "later"))
    wait_until(lambda: tracked.state == "STARTED", WAIT)
    (tmp_path / "later").touch()
    assert tracked.get(timeout=WAIT)


def test_coroutines(start: Any) -> None:
    start("-P", "asyncio", "-c", "8")

    async def main() -> list[int]:
        sent = [await pooled.add.adelay(i, i) for i in range(300)]
        return list(await asyncio.gather(*[result.aget(timeout=WAIT) for result in sent]))

    assert asyncio.run(main()) == [2 * i for i in range(300)]


def test_a_result_that_goes_elsewhere_is_refused(start: Any) -> None:
    foreign = AsyncResult(str(uuid.uuid4()), app=pooled.app)
    with pytest.raises(BackendError, match="process that sent the task"):
        foreign.get(timeout=WAIT)
    with pytest.raises(BackendError, match="process that sent the task"):
        asyncio.run(foreign.aget(timeout=WAIT))
    assert foreign.state == "PENDING"
