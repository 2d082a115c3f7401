"""Jobs that run in the hub's own thread (``solo``), behind the face of a fleet."""

from __future__ import annotations

import os

from chervil.drivers.contracts import Settlement
from chervil.exceptions import OperationalError
from chervil.pools.solo import Solo
from chervil.worker.flight import Flight


class Inline:
    """Runs jobs in the hub's thread."""

    slots = 1

    def __init__(self, solo: Solo) -> None:
        self._solo = solo
        self.endings: list[tuple[Flight, Settlement]] = []

    def start(self) -> None:
        pass

    def descriptors(self) -> list[int]:
        return []

    def busy(self) -> bool:
        return self._solo.waiting > 0

    def full(self) -> bool:
        return False

    def dispatch(self, flight: Flight, frame: bytes) -> None:
        self._solo.limit(flight.number, flight.soft_limit, flight.hard_limit)
        self._solo.put(frame)

    def terminate(self, flight: Flight) -> None:
        """The hub's thread is not in a task when it is here: it has ended."""

    def retire(self, index: int) -> None:
        pass

    def put_again(self, frame: bytes) -> None:
        self._solo.put_again(frame)

    def reports(self) -> list[bytes]:
        return self._solo.reports()

    def take_back(self) -> list[bytes]:
        return self._solo.take_back()

    def tend(self, now: float) -> None:
        pass

    def next(self) -> float | None:
        return None

    def pids(self) -> list[int]:
        return []

    def missing(self) -> int:
        return 0

    def running(self) -> dict[int, tuple[int, float]]:
        number = self._solo.current
        return {number: (os.getpid(), self._solo.since)} if number else {}

    def resize(self, change: int) -> int:
        raise OperationalError("the solo pool has one slot, which is the node itself")

    def replace(self) -> None:
        raise OperationalError("the solo pool is the node itself: restart that")

    def kill(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def close(self) -> None:
        self._solo.close()
