"""Servers of the tests' own, with a worker and a client on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.redis_server import OPTIONS, MakeServer, RedisServer, Sentinel


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Make servers that end with the test: ``redis_server(maxmemory="2mb")`` is running."""
    servers: list[RedisServer] = []

    def make(**options: Any) -> RedisServer:
        start = options.pop("start", True)
        server = RedisServer(tmp_path / f"server-{len(servers)}", **options)
        servers.append(server)
        return server.start() if start else server

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Callable[[RedisServer], list[Sentinel]]]:
    """Three Sentinels that watch a primary."""
    found: list[Sentinel] = []

    def start(primary: RedisServer, password: str = "") -> list[Sentinel]:
        for number in range(3):
            found.append(Sentinel(tmp_path / f"sentinel-{number}", primary, password))
            found[-1].start()
        return found

    yield start
    for sentinel in found:
        sentinel.kill()


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """Have this process be a client: ``client(url, **transport_options)`` gives the app."""
    conf = pooled.app.conf
    before = {name: conf[name] for name in _SETTINGS}

    def configure(url: str, publish_timeout: float = 3.0, **options: Any) -> Any:
        pooled.app.close()
        conf.broker_url = conf.result_backend = url
        conf.publish_timeout = publish_timeout
        given = {**OPTIONS, **options}
        conf.broker_transport_options = conf.result_backend_transport_options = given
        return pooled.app

    yield configure
    pooled.app.close()
    for name, value in before.items():
        setattr(conf, name, value)


_SETTINGS = (
    "broker_url",
    "result_backend",
    "publish_timeout",
    "task_publish_retry_policy",
    "broker_transport_options",
    "result_backend_transport_options",
)


@pytest.fixture
def start(worker: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    """Start a worker: ``start(url, "-c", "2", options={...}, ready=None)``."""

    def start_on(
        url: str, *args: str, options: dict[str, Any] | None = None, **more: Any
    ) -> WorkerProcess:
        given = json.dumps({**OPTIONS, **(options or {})})
        env = {
            "CHERVIL_BROKER_URL": url,
            "CHERVIL_RESULT_BACKEND": url,
            "CHERVIL_BROKER_TRANSPORT_OPTIONS": given,
            "CHERVIL_RESULT_BACKEND_TRANSPORT_OPTIONS": given,
        }
        args = args or ("-P", "prefork", "-c", "2")
        return worker("tests.apps.pooled", *args, env=env, **more)

    return start_on
