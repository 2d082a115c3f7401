"""One broker, one client and one worker of each side for all tests of this package.

``broker`` is the only place that knows which technology is used: another one is one more
parameter there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.interop.sides import SIDES, Client, Workers
from tests.support.processes import WorkerProcess
from tests.unit.drivers.redis.servers import Server


class Broker(NamedTuple):
    """Where messages and results go."""

    kind: str
    url: str
    results: str
    #: The smaller number is served first.
    small_first: bool
    call: Callable[..., Any]
    #: Settings of both sides.
    conf: dict[str, Any] = {}


class Pair(NamedTuple):
    """A client of one side, and a queue that only a worker of one side serves."""

    client: Client
    to: str
    #: The queue of the other worker.
    other_queue: str

    @property
    def queue(self) -> str:
        return f"{self.to}-only"


#: From whom to whom. What Celery does with Celery is theirs; setting the variable runs it
#: too, to see whether a test expects the right thing.
PAIRS = [("celery", "chervil"), ("chervil", "celery"), ("chervil", "chervil")]
if os.environ.get("INTEROP_CONTROL"):
    PAIRS.append(("celery", "celery"))


#: Brokers, and where the results go.
BROKERS = {
    "redis": ("redis",),
    "rabbitmq-rpc": ("rabbitmq",),
    "rabbitmq-redis": ("rabbitmq", "redis"),
}


@pytest.fixture(
    scope="package",
    params=[
        pytest.param(name, marks=pytest.mark.requires_server(*servers))
        for name, servers in BROKERS.items()
    ],
)
def broker(
    request: pytest.FixtureRequest,
    server_url: Callable[[str], str],
    rabbitmqctl: Callable[..., None],
) -> Iterator[Broker]:
    """A Redis server of our own, so that whole databases are ours to look at; and for
    RabbitMQ a virtual host of our own."""
    with ExitStack() as stack:
        results, call = "rpc://", _nobody
        if "redis" in request.param:
            redis = stack.enter_context(_redis())
            results, call = redis.url, redis.call
        if request.param == "redis":
            yield Broker("redis", results, results, True, call)
            return
        vhost = f"interop-{os.getpid()}"
        rabbitmqctl("add_vhost", vhost)
        stack.callback(rabbitmqctl, "delete_vhost", vhost)
        rabbitmqctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
        url = server_url("rabbitmq").rstrip("/") + f"/{vhost}"
        yield Broker("rabbitmq", url, results, False, call, {"task_queue_max_priority": 9})


@contextmanager
def _redis() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="interop") as directory:
        server = Server(Path(directory))
        try:
            yield server
        finally:
            server.stop()


def _nobody(*args: Any) -> Any:
    raise AssertionError(f"there is no Redis to ask {args}")


@pytest.fixture(scope="package")
def conf(broker: Broker) -> dict[str, Any]:
    """Settings of both sides."""
    return {
        "broker_url": broker.url,
        "result_backend": broker.results,
        "accept_content": ["json", "pickle", "yaml", "msgpack"],
        # Celery's defaults lose a task together with its worker.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        **broker.conf,
    }


@pytest.fixture(scope="package")
def directory(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Path:
    """For the logs of what runs with that broker."""
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="package")
def clients(conf: dict[str, Any], directory: Path) -> Iterator[dict[str, Client]]:
    """A client of each side, by its side."""
    made = {side: Client(side, conf, directory / f"client-{side}.log") for side in SIDES}
    yield made
    for client in made.values():
        client.close()


@pytest.fixture(scope="package")
def _standing(
    conf: dict[str, Any], directory: Path, clients: dict[str, Client]
) -> Iterator[list[WorkerProcess]]:
    """A worker of each side: for a queue of its own, and for one that both serve."""
    workers = Workers(conf, directory)
    started = [workers.start(side, f"{side}-only", "both", pool="prefork") for side in SIDES]
    workers.ready(*started)
    yield started
    left = workers.close()
    assert not left


@pytest.fixture
def standing(request: pytest.FixtureRequest, _standing: list[WorkerProcess]) -> list[WorkerProcess]:
    request.node._chervil_workers = _standing
    return _standing


@pytest.fixture(params=PAIRS, ids=lambda pair: "-to-".join(pair))
def pair(
    request: pytest.FixtureRequest, clients: dict[str, Client], standing: list[WorkerProcess]
) -> Pair:
    """Who sends, and who runs it."""
    sender, to = request.param
    other = SIDES[1 - SIDES.index(to)]
    return Pair(clients[sender], to, f"{other}-only")


@pytest.fixture
def workers(
    request: pytest.FixtureRequest, conf: dict[str, Any], tmp_path: Path
) -> Iterator[Workers]:
    """More workers, of this test alone."""
    made = Workers(conf, tmp_path, "elsewhere")
    request.node._chervil_workers = made.started
    yield made
    left = made.close()
    assert not left
