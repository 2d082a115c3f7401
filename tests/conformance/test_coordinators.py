"""Every coordinator through the same suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chervil.drivers.redis.link import Link
from chervil.drivers.redis.location import parse
from chervil.exceptions import BrokerUnavailable
from chervil.ids import new_id
from chervil.testing.coordinators import CoordinatorConformance


class TestMemory(CoordinatorConformance):
    @pytest.fixture
    def coordinator_url(self) -> str:
        return f"memory://{new_id()}"


class TestSqlite(CoordinatorConformance):
    @pytest.fixture
    def coordinator_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/state.db"


@pytest.mark.requires_server("redis")
class TestRedis(CoordinatorConformance):
    @pytest.fixture
    def coordinator_url(self, server_url: Callable[[str], str]) -> Iterator[str]:
        prefix = f"test-{new_id()}:"
        url = server_url("redis")
        yield f"{url}?global_keyprefix={prefix}"
        link = Link(parse(url, {}), BrokerUnavailable)
        keys = link.call("KEYS", prefix + "*")
        if keys:
            link.call("UNLINK", *keys)
        link.close()
