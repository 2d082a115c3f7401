"""The loop of a node: the only place that talks to the broker for its tasks.

Rules:

* One step collects the reports that are there, settles them and claims what
  there is room for in one ``Consumer.exchange``, and dispatches the claims. It
  never waits for more reports or messages to make a larger batch.
* It waits only when there is nothing to do, on everything that can change that:
  the broker, reports, executors, signals, and the next time that matters.
* What cannot be stored now stays here and is tried again; nothing is dropped.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from chervil import clock
from chervil.backoff import Backoff
from chervil.drivers.contracts import Action, Broker, Consumer, Delivery, ResultStore, Settlement
from chervil.exceptions import LeaseLost, MessageTooLarge, OperationalError
from chervil.pools.frames import Kind, discard, job_number, pack_job, unpack_report
from chervil.worker.admission import Admission
from chervil.worker.adrift import Adrift
from chervil.worker.appetite import Appetite
from chervil.worker.ends import Final, something_waits
from chervil.worker.fleet import Processes
from chervil.worker.flight import Flight
from chervil.worker.pollers import Pollers
from chervil.worker.settling import Settling
from chervil.worker.shutdown import COLD, RUN
from chervil.worker.steering import Steering
from chervil.worker.unstored import Unstored

if TYPE_CHECKING:
    from chervil.worker.fleet import Fleet

logger = logging.getLogger("chervil.worker")
#: Claim at most so many at once, so that one step stays short.
_BATCH = 256
#: Look at the broker at least so often, in seconds, whatever its signals say.
_SAFETY_SECONDS = 0.5
#: A surplus that nobody has begun for so many seconds is given back.
_STALE_SECONDS = 0.1
#: A large message for which this machine has no room is offered again after so many seconds.
_NO_ROOM_SECONDS = 5.0


class Hub:
    """Claims, dispatches and settles for one node.

    :param flights: shared with the fleet: the jobs that are not settled, by number.
    :param shared: the broker writes outcomes in the step that settles their messages.
    """

    def __init__(
        self,
        broker: Broker,
        consumer: Consumer,
        store: ResultStore,
        fleet: Fleet,
        flights: dict[int, Flight],
        admission: Admission,
        settling: Settling,
        appetite: Appetite,
        *,
        shared: bool,
        wakeup: int,
    ) -> None:
        self._consumer = consumer
        self._fleet = fleet
        self._flights = flights
        self._admission = admission
        self._settling = settling
        self._appetite = appetite
        self._unstored = Unstored(broker, store, settling, shared=shared)
        #: Jobs that begin when their acknowledgement is stored.
        self._early: list[Flight] = []
        self._hungry = True
        #: There may be reports.
        self._reported = True
        self._stale_at: float | None = None
        #: When the consumer was asked for the last time.
        self._drained = 0.0
        self._retry_at = 0.0
        self._backoff = Backoff(base=0.05, cap=2.0)
        self._lost = threading.Event()
        #: The consumer whose claims were lost last.
        self._abandoned: Consumer | None = None
        self._adrift = Adrift()
        self._wakeup = wakeup
        #: What other threads ask this one to do between two steps.
        self.requests: deque[Callable[[], None]] = deque()
        self.steering = Steering(flights, fleet, admission, appetite, self._end_revoked)
        self.dead_letters = settling.dead_letters
        self.stopping = RUN
        #: Monotonic seconds at which the loop came round last.
        self.beat = monotonic()
        self.processed = 0
        self.idle_since: float | None = None
        self.thread = 0
        #: The consumer is to be replaced, if nothing is claimed.
        self._replace = False
        #: Makes a new consumer when the lease was lost.
        self.reopen: Callable[[], Consumer] | None = None
        self._watch()

    # --- the loop

    def run(self) -> None:
        """Until :attr:`stopping` is set and what runs has ended."""
        self.thread = threading.get_ident()
        while self.stopping < COLD:
            now = self.beat = monotonic()
            if self._reported:
                self._collect(now)
            self._fleet.tend(now)
            if self._fleet.endings:
                self._take_endings()
            if self.requests:
                self.requests.popleft()()
                self._hungry = True
            if now >= self._retry_at and (self._lost.is_set() or self._replace):
                self._start_over()
            self._consumer.room = room = self._room()
            blocked = now < self._retry_at
            if not blocked and self._has_work(room):
                self._step(room if self._hungry else 0)
                self._reported = True
                room = self._room()
                blocked = self._retry_at > 0
                if not blocked and self._has_work(room):
                    continue
            if self.stopping and not (self._flights or self._unstored):
                break
            if not self.requests and not self._fleet.busy():
                self._wait(now, room, blocked)

    @property
    def reachable(self) -> bool:
        """The last call to the broker was answered."""
        return not self._retry_at

    def _has_work(self, room: int) -> bool:
        """Whether there is something to store, or may be something to claim."""
        return bool(self._unstored) or (self._hungry and room > 0)

    def settle_last(self) -> None:
        """After the executors have ended: store what they had finished."""
        self._collect(monotonic())
        try:
            self._unstored.exchange(self._consumer, 0)
        except OperationalError as exc:
            logger.warning("What had ended last runs again, as it could not be stored: %s", exc)

    def _room(self) -> int:
        if self.stopping or self._fleet.full():
            return 0
        return max(0, min(self._appetite.allowed - len(self._flights), _BATCH))

    def _step(self, room: int) -> None:
        """Store what is to be stored, claim, dispatch."""
        try:
            deliveries = self._unstored.exchange(self._consumer, room)
        except LeaseLost as exc:
            logger.error("%s", exc)
            self.lose()
            return
        except OperationalError as exc:
            self._failed(exc)
            return
        acknowledged, self._early = self._early, []
        if self._retry_at:
            self._recovered()
        if room:
            self._hungry = len(deliveries) == room
            if deliveries:
                self.idle_since = None
                self._dispatch(deliveries)
        for flight in acknowledged:
            self._send(flight)

    def _failed(self, exc: OperationalError) -> None:
        wait = self._backoff.next()
        self._retry_at = monotonic() + wait
        logger.error("%s; tried again in %.2f s", exc, wait)

    def _recovered(self) -> None:
        self._retry_at = 0.0
        self._backoff.reset()
        logger.info("The broker is back")

    # --- claims

    def _dispatch(self, deliveries: Sequence[Delivery]) -> None:
        now = monotonic()
        for delivery in deliveries:
            verdict = self._admission.examine(delivery, now)
            if isinstance(verdict, Settlement):
                self._end(verdict, acked=False)
                continue
            if self._adrift and self._comes_back(verdict):
                continue
            self._flights[verdict.number] = verdict
            if not verdict.acked:
                self._send(verdict)
            else:  # it is sent when that is stored
                self._early.append(verdict)
                self._unstored.settlements.append(Settlement(delivery))
        self._stale_at = now + _STALE_SECONDS

    def _send(self, flight: Flight) -> None:
        flight.sent = True
        try:
            self._fleet.dispatch(flight, pack_job(flight.job()))
        except MessageTooLarge as exc:
            self._cannot_send(flight, exc)

    def _cannot_send(self, flight: Flight, exc: MessageTooLarge) -> None:
        """There is no room to hand a large message over; there may be later."""
        logger.error("Task %s[%s]: %s", flight.task.name, flight.task_id, exc)
        del self._flights[flight.number]
        if flight.final is not None:
            self._unstored.add(flight.final, flight.acked)
        elif flight.acked:
            outcome = self._settling.failed(flight, exc)
            self._unstored.add(Settlement(flight.delivery, outcome=outcome), acked=True)
        else:
            until = clock.now() + _NO_ROOM_SECONDS
            self._unstored.settlements.append(
                Settlement(flight.delivery, Action.DEFER, until=until, counted=False)
            )

    def _give_back(self, *, stale: bool) -> None:
        """Return to the broker what no executor has begun."""
        for frame in self._fleet.take_back():
            number = job_number(frame)
            flight = self._flights.get(number)
            if flight is not None and (flight.acked or flight.final):  # it stays with us
                self._fleet.put_again(frame)
                continue
            discard(frame)
            if flight is not None and self._flights.pop(number) and not flight.lost:
                self._unstored.settlements.append(
                    Settlement(flight.delivery, Action.REQUEUE, counted=False)
                )
        self._stale_at = None
        if stale:
            self._appetite.waited()

    # --- reports

    def _collect(self, now: float) -> None:
        frames = self._fleet.reports()
        if not frames:
            return
        flights, add = self._flights, self._unstored.add
        total, count = 0.0, 0
        for frame in frames:
            report = unpack_report(frame)
            if report.kind is Kind.LEAVING:
                self._fleet.retire(report.number)
                continue
            flight = flights.get(report.number)
            if flight is None or flight.lost:
                if flight is not None and report.kind is not Kind.STATE:
                    del flights[report.number]
                    if report.kind is not Kind.NOT_BEGUN:
                        self._adrift.ended(self._settling.end(flight, report))
                continue
            if report.kind is Kind.NOT_BEGUN:
                if flight.signum:
                    self._end_revoked(flight)
                else:
                    self._send(flight)
                continue
            if report.kind is Kind.STATE:
                self._unstored.states.append(self._settling.state(flight, report))
                continue
            del flights[report.number]
            total += report.runtime
            count += 1
            settlement = self._settling.end(flight, report)
            if settlement.publish or settlement.arrivals:
                self._hungry = True  # what follows may be for us: the same exchange finds it
            if isinstance(settlement, Final) and flight.final is None:
                self._end(settlement, flight.acked)
                continue
            add(settlement, flight.acked)
        if count:
            self.processed += count
            self._appetite.ran(total, count)
            self._stale_at = now + _STALE_SECONDS

    def _take_endings(self) -> None:
        """Jobs that ended without a report."""
        for flight, settlement in self._fleet.endings:
            if self._flights.pop(flight.number, None) is None or flight.lost:
                continue
            if flight.final is not None and not flight.quiet:
                self._judge(flight.final, flight.acked, quiet=True)
            elif flight.final is not None:
                self._unstored.add(flight.final, flight.acked)
            else:
                self._end(settlement, flight.acked)
        self._fleet.endings.clear()

    def _end(self, settlement: Settlement, acked: bool) -> None:
        """Settle a task that did not end by itself.

        What follows from that (errbacks, later steps, chords) an executor works out.
        """
        if isinstance(settlement, Final) and something_waits(settlement.delivery):
            self._judge(settlement, acked, quiet=False)
        else:
            self._unstored.add(settlement, acked)

    def _judge(self, final: Final, acked: bool, quiet: bool) -> None:
        flight = self._admission.judged(final, acked, quiet, monotonic())
        self._flights[flight.number] = flight
        self._send(flight)

    def _end_revoked(self, flight: Flight) -> None:
        """A job that was cancelled before it began."""
        del self._flights[flight.number]
        if not flight.sent:
            self._early.remove(flight)
        self._end(self._settling.revoked(flight, "revoked"), flight.acked)

    # --- waiting

    def _watch(self) -> None:
        self._pollers = Pollers(self._fleet, self._consumer.fileno(), self._wakeup)

    def _wait(self, now: float, room: int, blocked: bool) -> None:
        listening = room > 0 and not blocked
        if not listening:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now
        until = now + _SAFETY_SECONDS
        due = self._consumer.next_due() if listening else None
        if due is not None:
            until = min(until, now + max(0.0, due - clock.now()))
        for time in (self._fleet.next(), self._retry_at or None, self._stale_deadline()):
            if time is not None:
                until = min(until, time)
        milliseconds = max(0.0, until - monotonic()) * 1000 + 0.5
        ready = self._pollers.poll(milliseconds, listening=listening, full=self._fleet.full())
        self._reported = not self._pollers.reports or self._fleet.full()
        told = listening and (not ready or now - self._drained > _SAFETY_SECONDS)
        for descriptor, _ in ready:
            if descriptor == self._pollers.reports:
                self._reported = True
            elif descriptor == self._pollers.claims:
                told = True
            elif descriptor == self._wakeup:
                self._on_wakeup()
            elif isinstance(self._fleet, Processes) and descriptor == self._fleet.exits_fileno():
                self._on_exits(self._fleet)
        if told:
            self._drained = now
            self._hungry = self._consumer.drain() or self._hungry
        if due is not None and clock.now() >= due:
            self._hungry = True
        stale = self._stale_deadline()
        if stale is not None and monotonic() >= stale:
            self._give_back(stale=True)

    def _stale_deadline(self) -> float | None:
        """When a surplus that nobody begins is given back."""
        return self._stale_at if len(self._flights) > self._fleet.slots else None

    def _on_exits(self, fleet: Processes) -> None:
        exits, replaced = fleet.exits()
        # Whatever an executor reported, it did so before the news of its end arrived.
        self._collect(monotonic())
        for exit_ in exits:
            fleet.bury(exit_)
        self._reported = True  # by the fleet, for those that cannot any more
        self._take_endings()
        if replaced:
            self._watch()

    def _on_wakeup(self) -> None:
        """A signal handler set :attr:`stopping`, or another thread wants attention."""
        try:
            os.read(self._wakeup, 4096)
        except BlockingIOError:
            pass
        if self.stopping:
            self._give_back(stale=False)

    # --- a lost lease

    def lose(self) -> None:
        """The claims belong to others now. May be called from any thread."""
        self._lost.set()

    def replace_consumer(self) -> bool:
        """Have the consumer replaced; False when something is claimed. From any thread."""
        self._replace = not (self._flights or self._unstored.settlements)
        return self._replace

    def _start_over(self) -> None:
        """With a new consumer; what still runs is kept for the messages that come back."""
        if self._replace and not self._lost.is_set():
            self._replace = False
            if self._flights or self._unstored.settlements:
                return
            self._lost.set()
        elif self._consumer is not self._abandoned:
            self._abandon()
        if self.reopen is not None:
            try:
                self._consumer = self.reopen()
            except OperationalError as exc:
                self._failed(exc)
                return
        if self._retry_at:
            self._recovered()
        self._lost.clear()
        self._hungry = True
        self.idle_since = None
        self._watch()

    def _abandon(self) -> None:
        self._abandoned = self._consumer
        logger.error(
            "This node's lease ran out (was it stopped, or the broker away or emptied?): its %d "
            "claims belong to others now and it starts over",
            len(self._flights),
        )
        self._adrift.abandon(self._flights, self._early, self._unstored.settlements, self._fleet)

    def _comes_back(self, arrived: Flight) -> bool:
        """Whether the job of a message that has come runs here already, or has ended."""
        settlement = self._adrift.settlement(arrived)
        if settlement is not None:
            self._unstored.settlements.append(settlement)
            return True
        return self._adrift.runs_on(arrived, self._flights)
