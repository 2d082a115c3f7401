"""Huey as a measured system: both sides poll every millisecond."""

from __future__ import annotations

from typing import Any

NAME = "Huey"
DISTRIBUTIONS = ("huey",)
POLL = 0.001


def worker(pool: str, slots: int) -> list[str]:
    """Arguments that start a worker."""
    kind = {"prefork": "process", "threads": "thread"}[pool]
    return [
        *("-m", "huey.bin.huey_consumer", "bench.apps.huey_app.huey"),
        *("-k", kind, "-w", str(slots), "-q", "-n"),
        *("-d", str(POLL), "-m", str(POLL), "-b", "1.0"),
    ]


class Client:
    """Huey's client."""

    own_package = "huey"

    def __init__(self) -> None:
        from bench.apps import huey_app as tasks

        self.send = tasks.noop
        self.stamp = tasks.stamp
        self.frames = tasks.frames

    def wait(self, handle: Any) -> Any:
        return handle.get(blocking=True, timeout=30, backoff=1.0, max_delay=POLL)

    def send_many(self, count: int) -> None:
        for _ in range(count):
            self.send()
