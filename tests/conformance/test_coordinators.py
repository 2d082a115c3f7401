"""Coordinators through their suite; Redis is in test_redis.py."""

from __future__ import annotations

from pathlib import Path

import pytest

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
