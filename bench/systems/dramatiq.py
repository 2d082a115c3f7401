"""Dramatiq as a measured system."""

from __future__ import annotations

from typing import Any

NAME = "Dramatiq"
DISTRIBUTIONS = ("dramatiq", "redis")


def worker(pool: str, slots: int) -> list[str]:
    """Arguments that start a worker; with one thread a process it is many times slower."""
    processes, threads = {"prefork": (slots, 8), "threads": (1, slots)}[pool]
    return [
        *("-m", "dramatiq", "bench.apps.dramatiq_app"),
        *("-p", str(processes), "-t", str(threads), "--skip-logging"),
    ]


class Client:
    """Dramatiq's client."""

    own_package = "dramatiq"

    def __init__(self) -> None:
        from bench.apps import dramatiq_app as tasks

        self.send = tasks.noop.send
        self.stamp = tasks.stamp.send
        self.frames = tasks.frames.send

    def wait(self, handle: Any) -> Any:
        return handle.get_result(block=True, timeout=30_000)

    def send_many(self, count: int) -> None:
        for _ in range(count):
            self.send()
