"""Jobs whose claims were lost while they ran, or before their ends could be settled.

The messages belong to whoever gets them next. Where that is this node again, as after a
broker's restart or when RabbitMQ takes back what was not acknowledged in time, a job that
still runs goes on as theirs, and one that has ended is settled: neither runs twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from chervil import clock
from chervil.drivers.contracts import Settlement
from chervil.exceptions import DecodeError
from chervil.wire.envelope import decode_head
from chervil.worker.flight import Flight

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

    def leave(self, flights: Iterable[Flight]) -> None:
        """The claims of these jobs are lost, and they run on."""
        self._running.update((flight.task_id, flight) for flight in flights)

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

    def running(self, arrived: Flight) -> Flight | None:
        """The job that runs already, of the message that has come."""
        flight = self._running.get(arrived.task_id)
        if flight is None or not _same(flight, arrived):
            return None
        del self._running[arrived.task_id]
        return flight

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
