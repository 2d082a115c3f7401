"""From reports to settlements: what is stored when a job has ended."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from chervil import clock, signals, states
from chervil.drivers.contracts import Action, Settlement
from chervil.exceptions import (
    DecodeError,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from chervil.pools.frames import Extra, Kind, Report
from chervil.wire.envelope import decode_head
from chervil.wire.message import Outcome
from chervil.worker.ends import Final
from chervil.worker.outcomes import Outcomes

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.worker.flight import Flight

logger = logging.getLogger("chervil.worker")
_DEAD = Action.DEAD


class Settling:
    """Turns reports and deaths into settlements."""

    def __init__(self, app: Chervil, outcomes: Outcomes) -> None:
        self._tasks = app.tasks
        self._outcomes = outcomes
        self._most = app.conf.task_max_deliveries
        self._lifetime = outcomes.lifetime
        #: How many messages of each queue this node has put into the dead-letter queue.
        self.dead_letters: Counter[str] = Counter()

    def state(self, flight: Flight, report: Report) -> Outcome:
        """The outcome of a report that is not the end."""
        extra = report.extra
        task_id = extra.task_id or flight.task_id
        return Outcome(
            task_id, extra.status, report.payload, self._outcomes.expires(), flight.reply_to
        )

    def end(self, flight: Flight, report: Report) -> Settlement:
        """The settlement of a job that reported its end."""
        kind, extra = report.kind, report.extra
        if flight.signum and extra.status != states.SUCCESS and flight.final is None:
            return self.revoked(flight)
        outcome = None
        if report.payload:
            outcome = Outcome(
                flight.task_id,
                extra.status,
                report.payload,
                clock.now() + self._lifetime if self._lifetime else 0.0,
                flight.reply_to,
            )
        if kind is Kind.ENDED or kind is Kind.IGNORED or kind is Kind.RETRY:
            settlement = Settlement(flight.delivery, outcome=outcome, publish=extra.publish)
            if extra.others or extra.arrivals or extra.begins or extra.closes:
                self._add(settlement, extra)
            return settlement
        if kind is Kind.CONCLUDED and flight.final is not None:
            flight.final.publish = extra.publish
            self._add(flight.final, extra)
            return flight.final
        if kind is Kind.REQUEUE:
            # The task asked for it, so it is no sign of a task that kills its workers.
            return Settlement(flight.delivery, Action.REQUEUE, counted=False)
        if kind is Kind.UNREADABLE:
            logger.error(
                "The message of task [%s] cannot be run and was put into the dead-letter queue: %s",
                flight.task_id,
                extra.reason,
            )
            outcome = self._outcomes.ended(flight, DecodeError(extra.reason))
        if kind is Kind.REJECTED and signals.task_rejected.receivers:
            signals.task_rejected.send(sender=flight.task, message=flight.delivery, exc=None)
        settlement = Settlement(
            flight.delivery,
            Action.DEAD,
            reason=extra.reason,
            detail=extra.detail,
            outcome=outcome,
            publish=extra.publish,
        )
        self._add(settlement, extra)
        return settlement

    def _add(self, settlement: Settlement, extra: Extra) -> None:
        """What ends and begins with the job."""
        if extra.others:
            expires = self._outcomes.expires()
            for outcome in extra.others:
                outcome.expires = expires
        settlement.others, settlement.arrivals = extra.others, extra.arrivals
        settlement.begins, settlement.closes = extra.begins, extra.closes

    def stored(self, settlements: Sequence[Settlement]) -> None:
        """The broker has taken these: tell of those that are dead letters now."""
        for settlement in settlements:
            if settlement.action is _DEAD:
                self.dead_letters[settlement.delivery.queue] += 1
                if signals.task_dead_lettered.receivers:
                    self._tell(settlement)

    def _tell(self, settlement: Settlement) -> None:
        delivery = settlement.delivery
        try:
            head = decode_head(delivery.head)
            name, ident = head.headers.task, head.headers.id
        except DecodeError:  # which may be why it is there
            name = ident = ""
        signals.task_dead_lettered.send(
            sender=self._tasks.get(name),
            task_id=ident,
            name=name,
            queue=delivery.queue,
            reason=settlement.reason,
            detail=settlement.detail,
            deliveries=delivery.deliveries,
        )

    def failed(self, flight: Flight, error: Exception) -> Outcome | None:
        """The outcome of a job that could not be run here."""
        return self._outcomes.ended(flight, error)

    def revoked(self, flight: Flight, how: str = "terminated") -> Settlement:
        """The settlement of a job that was cancelled before it began or while it ran."""
        signum = flight.signum or None
        logger.info("Task %s[%s] %s", flight.task.name, flight.task_id, how)
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=flight.task,
                request=decode_head(flight.delivery.head),
                terminated=signum is not None,
                signum=signum,
                expired=False,
            )
        error = TaskRevokedError(how)
        outcome = self._outcomes.ended(flight, error, states.REVOKED)
        return Final(flight.delivery, outcome=outcome, error=error, status=states.REVOKED)

    def timed_out(self, flight: Flight) -> Settlement:
        """The settlement of a job that was ended by its hard time limit."""
        logger.error(
            "Hard time limit (%gs) exceeded for %s[%s]",
            flight.hard_limit,
            flight.task.name,
            flight.task_id,
        )
        error = TimeLimitExceeded(flight.hard_limit)
        outcome = self._outcomes.ended(flight, error)
        if not flight.task.acks_on_failure_or_timeout and flight.task.acks_late:
            reason = f"hard time limit of {flight.hard_limit:g}s exceeded"
            return Final(flight.delivery, Action.DEAD, reason=reason, outcome=outcome, error=error)
        return Final(flight.delivery, outcome=outcome, error=error)

    def died(self, flight: Flight, how: str) -> Settlement:
        """The settlement of a job whose executor died while it ran."""
        if flight.final is not None:
            return flight.final
        name, ident, delivery = flight.task.name, flight.task_id, flight.delivery
        most = flight.task.max_deliveries or self._most
        error = WorkerLostError(f"the executor that ran it {how}")
        if flight.acked or not flight.task.reject_on_worker_lost:
            logger.error("Task %s[%s] is lost: its executor %s", name, ident, how)
            return Final(delivery, outcome=self._outcomes.ended(flight, error), error=error)
        if most and delivery.deliveries >= most:
            reason = f"its executor {how}, in each of {delivery.deliveries} deliveries"
            logger.error("Task %s[%s] is now in the dead-letter queue: %s", name, ident, reason)
            error = WorkerLostError(reason)
            return Final(
                delivery,
                Action.DEAD,
                reason=reason,
                outcome=self._outcomes.ended(flight, error),
                error=error,
            )
        logger.warning(
            "Task %s[%s] is run again: its executor %s (delivery %d of %d)",
            name,
            ident,
            how,
            delivery.deliveries,
            most,
        )
        return Settlement(delivery, Action.REQUEUE)


def how_it_ended(status: int) -> str:
    """In words, an exit status as ``os.waitstatus_to_exitcode`` gives it."""
    if status >= 0:
        return f"exited with code {status}"

    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
