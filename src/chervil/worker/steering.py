"""What may be changed in a running node, between two steps of its hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chervil.pools.frames import discard, job_number

if TYPE_CHECKING:
    from chervil.worker.admission import Admission
    from chervil.worker.appetite import Appetite
    from chervil.worker.fleet import Fleet
    from chervil.worker.flight import Flight


class Steering:
    """The hub's side of remote control; in the hub's thread, unless it says otherwise.

    :param flights: the hub's jobs by number; other threads may copy it.
    :param end: settles a job as revoked that has not begun.
    """

    def __init__(
        self,
        flights: dict[int, Flight],
        fleet: Fleet,
        admission: Admission,
        appetite: Appetite,
        end: Callable[[Flight], None],
    ) -> None:
        self.flights = flights
        self.appetite = appetite
        self._fleet = fleet
        self._admission = admission
        self._end = end

    def totals(self) -> dict[str, int]:
        """How many tasks of each name were taken. From any thread."""
        return self._admission.totals()

    def options_changed(self) -> None:
        """Options of tasks are not what they were."""
        self._admission.forget()

    def resize(self, change: int) -> int:
        """More or fewer executors; how many tasks run at a time then.

        :raises OperationalError: the pool cannot be changed so.
        """
        slots = self._fleet.resize(change)
        self.appetite.resize(slots)
        return slots

    def replace_executors(self) -> None:
        """Have other executors take the place of all there are."""
        self._fleet.replace()

    def cancel(self, chosen: Callable[[Flight], bool], signum: int) -> list[str]:
        """Settle as revoked what has not begun of these jobs, and end what runs.

        :param signum: how; 0 lets it run.
        :returns: the ids of those that were here.
        """
        wanted = {f.number: f for f in self.flights.values() if not f.lost and chosen(f)}
        if not wanted:
            return []
        found = list(dict.fromkeys(flight.task_id for flight in wanted.values()))
        for flight in [flight for flight in wanted.values() if not flight.sent]:
            self._end(wanted.pop(flight.number))
        for frame in self._fleet.take_back():
            waiting = wanted.pop(job_number(frame), None)
            if waiting is None:
                self._fleet.put_again(frame)
            else:
                discard(frame)
                self._end(waiting)
        for flight in wanted.values():
            if signum and signum != flight.signum:  # told twice, it is told once
                flight.signum = signum
                self._fleet.terminate(flight)
        return found
