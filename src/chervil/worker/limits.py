"""Time limits, as the hub enforces them.

A limit counts from the moment at which an executor began the task, which the
hub reads from the shared page. Since a task begins after it was dispatched, the
dispatch gives the earliest time at which a look is worth while.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from chervil.worker.flight import Flight

#: Where a job is: executor, slot, monotonic seconds at which it began.
Place = tuple[int, int, float]

_SOFT, _HARD = 0, 1
#: Entries of jobs that ended in time are swept out above this number.
_ROOM = 1024


class Limits:
    """Calls back when a job's time is over.

    :param flights: the jobs that have not ended, by number.
    :param find: where a job runs now; None when it has not begun.
    """

    def __init__(
        self,
        flights: dict[int, Flight],
        find: Callable[[int], Place | None],
        on_soft: Callable[[Flight, Place], None],
        on_hard: Callable[[Flight, Place], None],
    ) -> None:
        self._flights = flights
        self._find = find
        self._calls = (on_soft, on_hard)
        self._heap: list[tuple[float, int, int, float]] = []

    def watch(self, flight: Flight) -> None:
        """Enforce the limits of a job that is being dispatched."""
        for kind, seconds in ((_SOFT, flight.soft_limit), (_HARD, flight.hard_limit)):
            if seconds:
                entry = (flight.dispatched + seconds, flight.number, kind, seconds)
                heapq.heappush(self._heap, entry)
        if len(self._heap) > _ROOM + 4 * len(self._flights):
            self._heap = [entry for entry in self._heap if entry[1] in self._flights]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """Monotonic seconds of the next look, if there is one."""
        return self._heap[0][0] if self._heap else None

    def check(self, now: float) -> None:
        """Enforce what is over."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, number, kind, seconds = heapq.heappop(heap)
            flight = self._flights.get(number)
            if flight is None:
                continue
            place = self._find(number)
            # Not begun: it cannot be over before it has begun and run that long.
            over = now + seconds if place is None else place[2] + seconds
            if place is None or over > now:
                heapq.heappush(heap, (over, number, kind, seconds))
            else:
                self._calls[kind](flight, place)
