"""Results by ``rpc://`` through the suite of result stores, and what only they do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chervil.testing.stores import StoreConformance

pytestmark = pytest.mark.requires_server("rabbitmq")


class TestStore(StoreConformance):
    private = True

    @pytest.fixture
    def store_url(self, server_url: Callable[[str], str]) -> str:
        return server_url("rabbitmq").replace("amqp://", "rpc://", 1)
