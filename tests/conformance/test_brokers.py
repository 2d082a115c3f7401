"""Every broker through the same suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from chervil.ids import new_id
from chervil.testing.brokers import BrokerConformance


class TestMemory(BrokerConformance):
    @pytest.fixture
    def broker_url(self) -> str:
        return f"memory://{new_id()}"


class TestSqlite(BrokerConformance):
    # The kernel tells of a process's death; nobody waits for its lease.
    crash_lease = 3600.0
    crash_patience = 1.0

    @pytest.fixture
    def broker_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/queues.db"
