"""How the hub has jobs run, behind one face.

:class:`Processes` puts them on the run queue of executor processes, and looks
after those; ``inline.Inline`` runs them in the hub's own thread (``solo``).
"""

from __future__ import annotations

import logging
import signal
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Protocol

from chervil.drivers.contracts import Settlement
from chervil.pools.channel import Channel
from chervil.pools.frames import Kind, job_number, pack_report
from chervil.pools.page import Page
from chervil.worker.executor import Plan
from chervil.worker.executors import Executors, Exit
from chervil.worker.flight import Flight
from chervil.worker.limits import Limits, Place
from chervil.worker.settling import Settling, how_it_ended

logger = logging.getLogger("chervil.worker")
#: Seconds that a task whose time is over gets to end by itself, in pools where one
#: slot cannot be ended alone, before its executor is replaced.
_GRACE_SECONDS = 1.0
#: Seconds that an executor which holds such a task gets to read its orders.
_DEAF_SECONDS = 5.0
#: Seconds that a cancelled task gets to clean up before its executor is ended.
_CANCEL_SECONDS = 3.0
_SEARCH_SECONDS = 0.01
_AUDIT_SECONDS = 0.05
#: How often in a row a job must be seen nowhere. One that was taken off the queue may be
#: in a process that the machine does not let run, or in a thread that waits for the
#: interpreter lock, and not yet in the page; and what dies in just that moment is rare.
_AUDITS = 60
#: Seconds that idle executors get to end by themselves at a shutdown.
_LEAVE_SECONDS = 3.0


class Fleet(Protocol):
    """What the hub needs to have jobs run."""

    slots: int
    #: Settlements for jobs that ended without a report; the hub empties it.
    endings: list[tuple[Flight, Settlement]]

    def start(self) -> None: ...
    def descriptors(self) -> list[int]:
        """What to wait for besides the broker; the first tells of reports."""
        ...

    def busy(self) -> bool:
        """Whether ``reports`` has work to do by itself, so that waiting is wrong."""
        ...

    def full(self) -> bool:
        """Whether nothing more should be dispatched for now."""
        ...

    def dispatch(self, flight: Flight, frame: bytes) -> None: ...
    def terminate(self, flight: Flight) -> None:
        """End a job that was cancelled, with the signal it says; it may have ended already."""
        ...

    def retire(self, index: int) -> None:
        """An executor takes no more jobs: have another take its place."""
        ...

    def put_again(self, frame: bytes) -> None:
        """Put on the run queue what ``take_back`` took from it."""
        ...

    def reports(self) -> list[bytes]: ...
    def take_back(self) -> list[bytes]: ...
    def tend(self, now: float) -> None:
        """Look after executors and limits."""
        ...

    def next(self) -> float | None:
        """Monotonic seconds at which ``tend`` has something to do."""
        ...

    def pids(self) -> list[int]: ...
    def missing(self) -> int:
        """How many executors should be there and are not."""
        ...

    def running(self) -> dict[int, tuple[int, float]]:
        """Jobs that run: number -> process id, monotonic time it began. From any thread."""
        ...

    def resize(self, change: int) -> int:
        """More or fewer executors; how many slots there are then.

        :raises OperationalError: that cannot be.
        """
        ...

    def replace(self) -> None:
        """Have other executors take the place of all there are."""
        ...

    def kill(self) -> None:
        """End all executors at once; what they reported before can still be read."""
        ...

    def leave(self) -> None:
        """No more jobs come: let executors end by themselves, and wait for that."""
        ...

    def close(self) -> None:
        """End everything at once."""
        ...


class Processes:
    """Runs jobs in executor processes.

    :param flights: the hub's jobs by number; one that dies is taken out.
    """

    def __init__(
        self,
        plan: Plan,
        count: int,
        settling: Settling,
        flights: dict[int, Flight],
        quiet: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._channel: Channel = plan.channel
        self._page: Page = plan.page
        self._executors = Executors(plan, count, quiet)
        self._limits = Limits(flights, self._find, self._soft, self._hard)
        self._settling = settling
        self._flights = flights
        self._audit_at: float | None = None
        self._restart_at: float | None = None
        #: Jobs whose time is over but whose slot is still taken: number -> (index, until).
        self._overdue: dict[int, tuple[int, float]] = {}
        #: Jobs that were cancelled and may have to be found first.
        self._cancelled: dict[int, Flight] = {}
        self._terminate_at: float | None = None
        self.endings: list[tuple[Flight, Settlement]] = []
        #: Reports that a dead executor can no more send itself.
        self._late_reports: list[bytes] = []
        #: Frames for which the run queue had no room.
        self._backlog: deque[bytes] = deque()
        self.slots = self._executors.slots

    def start(self) -> None:
        self._executors.start()

    def descriptors(self) -> list[int]:
        return [self._channel.fileno(), self._executors.fileno()]

    def busy(self) -> bool:
        return False

    def pids(self) -> list[int]:
        return [executor.pid for executor in list(self._executors.alive.values()) if executor.pid]

    def missing(self) -> int:
        there = [e for e in list(self._executors.alive.values()) if e.pid and not e.retired]
        return max(0, self._executors.count - len(there))

    def running(self) -> dict[int, tuple[int, float]]:
        found = {}
        for index, executor in list(self._executors.alive.items()):
            for number, (_, began, _) in self._page.running(index).items():
                if began > 0:
                    found[number] = executor.pid, began
        return found

    def resize(self, change: int) -> int:
        self._executors.resize(change)
        self._restart_at = self._executors.restart(monotonic())
        self.slots = self._executors.slots
        return self.slots

    def replace(self) -> None:
        for index in list(self._executors.alive):
            self._executors.retire(index)
        self._restart_at = self._executors.restart(monotonic())

    def full(self) -> bool:
        return bool(self._backlog)

    def dispatch(self, flight: Flight, frame: bytes) -> None:
        if (flight.soft_limit or flight.hard_limit) and not flight.watched:
            flight.watched = True
            self._limits.watch(flight)
        self.put_again(self._channel.pack(frame))

    def terminate(self, flight: Flight) -> None:
        self._cancelled[flight.number] = flight
        self._terminate_at = monotonic()

    def retire(self, index: int) -> None:
        if index in self._executors.alive:
            self._executors.retire(index)
            self._restart_at = self._executors.restart(monotonic())

    def put_again(self, frame: bytes) -> None:
        if self._backlog or not self._channel.put(frame):
            self._backlog.append(frame)

    def reports(self) -> list[bytes]:
        reports = self._channel.reports()
        if self._late_reports:
            reports += self._late_reports
            self._late_reports = []
        while self._backlog and self._channel.put(self._backlog[0]):
            self._backlog.popleft()
        return reports

    def take_back(self) -> list[bytes]:
        frames = [*self._channel.take_back(), *self._backlog]
        self._backlog.clear()
        return frames

    def next(self) -> float | None:
        times = [self._limits.next(), self._audit_at, self._restart_at, self._terminate_at]
        times += [until for _, until in self._overdue.values()]
        return min((time for time in times if time is not None), default=None)

    def tend(self, now: float) -> None:
        self._limits.check(now)
        if self._audit_at is not None and self._audit_at <= now:
            self._audit(now)
        if self._terminate_at is not None and self._terminate_at <= now:
            self._terminate(now)
        if self._overdue:
            self._end_overdue(now)
        if self._restart_at is not None and self._restart_at <= now:
            self._restart_at = self._executors.restart(now)

    def room_fileno(self) -> int:
        """Writable when the run queue is nearly empty."""
        return self._channel.room_fileno

    def exits_fileno(self) -> int:
        """Readable when :meth:`exits` has something to tell."""
        return self._executors.fileno()

    def exits(self) -> tuple[list[Exit], bool]:
        """Executors that ended since the last call; call ``reports`` first and handle them,
        then :meth:`bury` each."""
        return self._executors.collect()

    def bury(self, exit_: Exit) -> None:
        """Settle the jobs that died with an executor, and have it replaced."""
        for number, (_, began, _) in self._page.running(exit_.index).items():
            if began > 0:
                self._died(number, how_it_ended(exit_.status))
            else:  # it was taken, and nothing of it was run
                self._late_reports.append(pack_report(number, Kind.NOT_BEGUN, 0.0, b""))
        executor = self._executors.remove(exit_)
        if executor is not None and exit_.status != 0 and not executor.retired:
            logger.error(
                "Executor %d (pid %d) %s", exit_.index, exit_.pid, how_it_ended(exit_.status)
            )
        now = monotonic()
        self._restart_at = self._executors.restart(now)
        # A job may have been taken and not yet been entered in the page.
        self._audit_at = now + _AUDIT_SECONDS

    def _died(self, number: int, how: str) -> None:
        flight = self._flights.get(number)
        if flight is None:
            return
        if flight.signum:
            settlement = self._settling.revoked(flight)
        elif flight.ended_by == "time":
            settlement = self._settling.timed_out(flight)
        else:
            settlement = self._settling.died(flight, how)
        self.endings.append((flight, settlement))

    def _audit(self, now: float) -> None:
        """Find jobs that are neither queued nor running nor reported: they died between
        being taken and being entered in the page."""
        queued = self.take_back()
        for frame in queued:
            self.put_again(frame)
        seen = {job_number(frame) for frame in queued}
        for index in list(self._executors.alive):
            seen.update(self._page.running(index))
        missing = [f for f in self._flights.values() if f.sent and f.number not in seen]
        again = False
        for flight in missing:
            flight.missing += 1
            if flight.missing >= _AUDITS:
                self._died(flight.number, "died before it began")
            else:
                again = True
        for number in seen:
            if number in self._flights:
                self._flights[number].missing = 0
        self._audit_at = now + _AUDIT_SECONDS if again else None

    # --- time limits

    def _find(self, number: int) -> Place | None:
        for index in self._executors.alive:
            for slot in range(self._page.slots):
                running, began, _ = self._page.read(index, slot)
                if running == number and began > 0:
                    return index, slot, began
        return None

    def _soft(self, flight: Flight, place: Place) -> None:
        logger.warning(
            "Soft time limit (%gs) exceeded for %s[%s]",
            flight.soft_limit,
            flight.task.name,
            flight.task_id,
        )
        self._executors.interrupt(place[0], place[1], flight.number)

    def _hard(self, flight: Flight, place: Place) -> None:
        flight.ended_by = "time"
        index, slot, _ = place
        self._executors.abandon(index, slot, flight.number)
        if self._page.slots > 1 or self._executors.plan.pool != "prefork":
            # The slot cannot be ended alone. The task is asked to end, its result is
            # settled now, and its executor replaced if it does not.
            self.endings.append((flight, self._settling.timed_out(flight)))
            self._overdue[flight.number] = index, monotonic() + _GRACE_SECONDS

    def _end_overdue(self, now: float) -> None:
        """Replace executors that hold tasks which do not end."""
        stuck: dict[int, set[int]] = {}
        for number, (index, until) in list(self._overdue.items()):
            if number not in self._page.running(index):
                del self._overdue[number]
            elif until <= now:
                stuck.setdefault(index, set()).add(number)
                self._overdue[number] = index, now + _AUDIT_SECONDS
        for index, numbers in stuck.items():
            if index not in self._executors.alive:
                continue
            self._executors.retire(index)
            self._restart_at = self._executors.restart(now)
            running = self._page.running(index).items()
            begun = {number for number, (_, began, _) in running if began > 0}
            if begun <= numbers or self._executors.deaf_for(index, now) > _DEAF_SECONDS:
                self._executors.kill(index, signal.SIGKILL)

    # --- cancelled jobs

    def _terminate(self, now: float) -> None:
        """Interrupt what was cancelled; who does not end by himself is ended."""
        self._terminate_at = None
        for number, flight in list(self._cancelled.items()):
            if number not in self._flights:
                del self._cancelled[number]
                continue
            place = self._find(number)
            if place is None:  # taken from the queue and not yet entered in the page
                self._terminate_at = now + _SEARCH_SECONDS
                continue
            del self._cancelled[number]
            self._executors.terminate(place[0], place[1], number, flight.signum)
            if flight.signum != signal.SIGUSR1:
                self._overdue[number] = place[0], now + _CANCEL_SECONDS

    # --- ends

    def kill(self) -> None:
        self._executors.close()

    def leave(self) -> None:
        self._executors.end()
        self._channel.close_jobs()
        self._executors.wait(_LEAVE_SECONDS)

    def close(self) -> None:
        self._executors.close()
        self._channel.close()
        self._page.close()
