"""The thread that keeps the lease."""

from __future__ import annotations

import threading
import time
from typing import Any

from chervil.exceptions import BrokerUnavailable, LeaseLost
from chervil.worker.keeper import Keeper


class Consumer:
    """Its lease cannot be renewed the first times."""

    def __init__(self, failures: list[Exception | None]) -> None:
        self.failures = failures
        self.times: list[float] = []
        self.enough = threading.Event()

    def renew(self) -> None:
        self.times.append(time.monotonic())
        error = self.failures.pop(0) if self.failures else None
        if not self.failures:
            self.enough.set()
        if error is not None:
            raise error

    def recover(self) -> int:
        return 0

    def tend(self) -> None:
        pass


class Store:
    def expire(self) -> int:
        return 0


def keep(consumer: Any, lease: float) -> list[str]:
    lost: list[str] = []
    store: Any = Store()
    keeper = Keeper(consumer, store, lease, lambda: lost.append("lost"))
    keeper.start()
    assert consumer.enough.wait(20)
    keeper.stop()
    return lost


def test_a_renewal_that_failed_is_tried_again_at_once() -> None:
    """Not after the usual third of the lease, of which there may be no more left."""
    gone = BrokerUnavailable("the connection was cut")
    consumer = Consumer([gone, gone, gone, None])
    assert keep(consumer, lease=300.0) == []
    assert len(consumer.times) == 4


def test_a_lost_lease_ends_the_keeping() -> None:
    consumer = Consumer([LeaseLost("gone")])
    assert keep(consumer, lease=300.0) == ["lost"]
