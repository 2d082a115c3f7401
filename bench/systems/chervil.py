"""Chervil as a measured system."""

from __future__ import annotations

from typing import Any

NAME = "Chervil"
DISTRIBUTIONS = ("chervil", "msgspec")


def worker(pool: str, slots: int) -> list[str]:
    """Arguments that start a worker."""
    return [
        *("-m", "chervil", "-A", "bench.apps.chervil_app", "worker"),
        *("-P", pool, "-c", str(slots), "-l", "WARNING"),
    ]


class Client:
    """Chervil's client."""

    own_package = "chervil"

    def __init__(self) -> None:
        from bench.apps import chervil_app as tasks

        self.tasks = tasks
        self.send = tasks.noop.delay
        self.stamp = tasks.stamp.delay
        self.frames = tasks.frames.delay

    def wait(self, handle: Any) -> Any:
        return handle.get(timeout=30)

    def send_many(self, count: int) -> None:
        for start in range(0, count, 10_000):
            self.tasks.noop.apply_many([()] * min(10_000, count - start))

    def naps(self, count: int, seconds: float) -> list[list[float]]:
        """Send the sleeping task ``count`` times; [begin, end] of each."""
        results = self.tasks.nap.apply_many([(seconds,)] * count)
        return [result.get(timeout=60) for result in results]
