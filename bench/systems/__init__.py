"""The measured systems: one module each, with the same four names.

``NAME``, ``DISTRIBUTIONS`` (whose versions are printed), ``worker(pool, slots)``
(arguments for the interpreter), and ``Client`` (what a client process does).
A technology (``bench/cases/sqlite.py``) says how each is set up on it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

#: Name in the table -> module.
SYSTEMS = {
    "Chervil": "bench.systems.chervil",
    "Huey": "bench.systems.huey",
    # With the durability that Chervil has by default instead of its own.
    "Huey tuned": "bench.systems.huey",
    "Dramatiq": "bench.systems.dramatiq",
    "Celery": "bench.systems.celery",
}


class Client(Protocol):
    """What a client of a system does in its own process."""

    #: Send the no-op task and return a handle of its result.
    send: Callable[[], Any]
    #: Wait for the result of a handle and return it.
    wait: Callable[[Any], Any]
    #: Send the task that writes the time at which it runs to $BENCH_STAMP.
    stamp: Callable[[], Any]
    #: Send the task that counts its frames.
    frames: Callable[[], Any]

    def send_many(self, count: int) -> None:
        """Send the no-op task ``count`` times, the fastest way there is."""


def load(name: str) -> Any:
    """The module of a system."""
    return importlib.import_module(SYSTEMS[name])
