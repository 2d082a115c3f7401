"""Every result store through the same suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from chervil.ids import new_id
from chervil.testing.stores import StoreConformance


class TestMemory(StoreConformance):
    shared = False

    @pytest.fixture
    def store_url(self) -> str:
        return f"memory://{new_id()}"


class TestSqlite(StoreConformance):
    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/results.db"
