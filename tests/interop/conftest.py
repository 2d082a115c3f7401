"""One broker, one client and one worker of each side for all tests of this package.

``broker`` is the only place that knows which technology is used: another one is one more
parameter there.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.conftest import SERVICES
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
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Servers of our own, so that all that is there is ours to look at."""
    kind = request.param.partition("-")[0]
    with ExitStack() as stack:
        redis = stack.enter_context(_redis()) if "redis" in request.param else None
        if kind == "redis":
            assert redis is not None
            yield Broker("redis", redis.url, redis.url, True, redis.call)
            return
        url = stack.enter_context(_vhost())
        yield Broker(
            "rabbitmq",
            url,
            "rpc://" if redis is None else redis.url,
            False,
            _nothing_to_call if redis is None else redis.call,
        )


@contextmanager
def _redis() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="interop") as directory:
        server = Server(Path(directory))
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def _vhost() -> Iterator[str]:
    """The URL of a virtual host of the server for tests."""
    name = f"interop-{uuid.uuid4().hex[:12]}"

    def control(*args: str) -> None:
        command = ["sh", SERVICES["CHERVIL_TEST_RABBITMQ_CTL"], *args]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    control("add_vhost", name)
    try:
        url = SERVICES["CHERVIL_TEST_RABBITMQ_URL"]
        control("set_permissions", "-p", name, urlsplit(url).username or "guest", *[".*"] * 3)
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
    finally:
        control("delete_vhost", name)


def _nothing_to_call(*args: Any) -> Any:
    raise AssertionError(f"no server to ask {args}")


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
    }


@pytest.fixture(scope="package")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    made = Workers(conf, tmp_path)
    request.node._chervil_workers = made.started
    yield made
    left = made.close()
    assert not left
