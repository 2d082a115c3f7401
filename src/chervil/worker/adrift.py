"""Jobs whose claims were lost while they ran, or before their ends could be settled.

The messages belong to whoever gets them next. Where that is this node again, as after a
broker's restart or when RabbitMQ takes back what was not acknowledged in time, a job that
still runs goes on as theirs, and one that has ended is settled: neither runs twice.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chervil import clock
from chervil.drivers.contracts import Settlement
from chervil.exceptions import DecodeError
from chervil.pools.frames import discard, job_number
from chervil.wire.envelope import decode_head
from chervil.worker.flight import Flight

if TYPE_CHECKING:
    from chervil.worker.fleet import Fleet

logger = logging.getLogger("chervil.worker")

#: Ends that are kept for messages that have not come back, and for how many seconds.
_MOST = 1000
_KEPT_SECONDS = 300.0


class Adrift:
    """Of one node; empty as long as it has not lost its claims."""

    def __init__(self) -> None:
        self._running: dict[str, Flight] = {}
        #: With the monotonic time until which it counts.
        self._ended: dict[str, tuple[float, Settlement]] = {}

    def __bool__(self) -> bool:
        return bool(self._running or self._ended)

    def abandon(
        self,
        flights: dict[int, Flight],
        early: list[Flight],
        settlements: list[Settlement],
        fleet: Fleet,
    ) -> None:
        """Forget a node's claims, which are others' now; what runs is kept for the messages
        that come back.

        :param flights: all jobs; those that have not begun are taken out.
        :param early: jobs whose messages were to be taken off first; emptied.
        :param settlements: of jobs that have ended; emptied.
        """
        for flight in early:  # not stored as taken off: they are others' now
            del flights[flight.number]
        early.clear()
        for flight in flights.values():
            flight.lost = not flight.acked
        for frame in fleet.take_back():
            number = job_number(frame)
            begun = flights.get(number)
            if begun is not None and not begun.lost:
                fleet.put_again(frame)
            else:
                discard(frame)
                flights.pop(number, None)
        for settlement in settlements:
            self.ended(settlement)
        settlements.clear()
        self._running.update((f.task_id, f) for f in flights.values() if f.lost)

    def ended(self, settlement: Settlement) -> None:
        """A job whose claim is lost has ended."""
        try:
            task_id = decode_head(settlement.delivery.head).id
        except DecodeError:
            return
        self._running.pop(task_id, None)
        if len(self._ended) >= _MOST:  # the oldest: it runs again if its message comes back
            del self._ended[next(iter(self._ended))]
        self._ended[task_id] = clock.monotonic() + _KEPT_SECONDS, settlement

    def runs_on(self, arrived: Flight, flights: dict[int, Flight]) -> bool:
        """Whether the job of a message that has come runs already; it is that message's now."""
        flight = self._running.get(arrived.task_id)
        if flight is None or not _same(flight, arrived):
            return False
        del self._running[arrived.task_id]
        if flight.number not in flights:
            return False
        logger.warning("Task %s[%s] has come back and runs on", flight.task.name, flight.task_id)
        flight.delivery = arrived.delivery
        flight.lost = False
        return True

    def settlement(self, arrived: Flight) -> Settlement | None:
        """How the job ended that the message that has come is for."""
        until, found = self._ended.get(arrived.task_id, (0.0, None))
        if found is None or until < clock.monotonic() or not _same(found, arrived):
            return None
        del self._ended[arrived.task_id]
        found.delivery = arrived.delivery
        return found


def _same(one: Flight | Settlement, other: Flight) -> bool:
    """Whether two deliveries are of one message, and not of two runs of one task."""
    try:
        heads = decode_head(one.delivery.head), decode_head(other.delivery.head)
    except DecodeError:
        return False
    return heads[0].retries == heads[1].retries and one.delivery.body == other.delivery.body
