"""Celery as a measured system."""

from __future__ import annotations

from typing import Any

NAME = "Celery"
DISTRIBUTIONS = ("celery", "kombu", "SQLAlchemy")


def worker(pool: str, slots: int) -> list[str]:
    """Arguments that start a worker."""
    return [
        *("-m", "celery", "-A", "bench.apps.celery_app", "worker", "-P", pool, "-c", str(slots)),
        *("-l", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]


class Client:
    """Celery's client."""

    own_package = "celery"

    def __init__(self) -> None:
        from bench.apps import celery_app as tasks

        self.send = tasks.noop.delay
        self.stamp = tasks.stamp.delay
        self.frames = tasks.frames.delay

    def wait(self, handle: Any) -> Any:
        return handle.get(timeout=30, interval=0.001)

    def send_many(self, count: int) -> None:
        for _ in range(count):
            self.send()
