"""Servers of a test's own, and what is open on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil.drivers.contracts import Broker
from chervil.drivers.redis.broker import RedisBroker
from chervil.drivers.registry import open_broker
from tests.unit.drivers.redis.servers import Opened, Proxy, Serve, Server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server(tmp_path, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def proxy(serve: Serve) -> Iterator[Proxy]:
    proxy = Proxy(serve())
    yield proxy
    proxy.close()


@pytest.fixture
def opened() -> Iterator[Opened]:
    brokers: list[Broker] = []

    def make(url: str, **options: object) -> RedisBroker:
        broker = open_broker(url, options)
        brokers.append(broker)
        assert isinstance(broker, RedisBroker)
        return broker

    yield make
    for broker in brokers:
        broker.close()
