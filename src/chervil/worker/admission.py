"""Deciding what becomes of a claimed message before it runs.

Only the head is decoded here. What is admitted becomes a
:class:`~chervil.worker.flight.Flight`; what is not is settled at once, and kept:
an unknown task goes back to its queue for a while, so that a node that knows it
can take it, and what nobody can read goes to the dead-letter queue.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from chervil import clock, signals, states
from chervil.drivers.contracts import Action, Delivery, Settlement
from chervil.exceptions import DecodeError, NotRegistered, TaskRevokedError, WorkerLostError
from chervil.wire.celery_v1 import upgrade
from chervil.wire.envelope import Head, decode, decode_head, encode_head
from chervil.wire.times import parse_time
from chervil.worker.ends import Final
from chervil.worker.flight import Flight
from chervil.worker.outcomes import Outcomes
from chervil.worker.revocations import Revocations

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.task import Task

logger = logging.getLogger("chervil.worker")
#: A message that is due within this many seconds is not worth sending back.
_SOON_SECONDS = 0.02
_LONGEST_PARK_SECONDS = 60.0
_NO_LIMITS = (None, None)


class Known(msgspec.Struct):
    """A task's options, as they are needed for each of its messages."""

    task: Task[Any, Any]
    most: int
    late: bool
    ignore_result: bool
    soft: float
    hard: float
    #: How many were admitted.
    count: int = 0


class Admission:
    """Admits or refuses what was claimed.

    :param time_limit: hard limit in seconds where neither call nor task set one.
    :param soft_time_limit: likewise for the soft limit.
    """

    def __init__(
        self,
        app: Chervil,
        outcomes: Outcomes,
        time_limit: float = 0.0,
        soft_time_limit: float = 0.0,
        revocations: Revocations | None = None,
    ) -> None:
        self._app = app
        self._tasks = app.tasks
        self._outcomes = outcomes
        self._hard, self._soft = time_limit, soft_time_limit
        self._timezone = app.timezone
        self._most = app.conf.task_max_deliveries
        self._number = 0
        self._warned: set[str] = set()
        self._known: dict[str, Known] = {}
        self._revocations = revocations or Revocations()
        #: How many of each name were taken with options that have changed since.
        self._before: dict[str, int] = {}

    def examine(self, delivery: Delivery, now: float) -> Flight | Settlement:
        """The flight of a message that may run, or what to do with it instead.

        :param now: monotonic seconds.
        """
        try:
            head = decode_head(delivery.head)
            if not head.headers.task:
                head = _upgrade(delivery)
            early = self._not_now(delivery, head)
        except DecodeError as exc:
            return self._unreadable(delivery, exc)
        if early is not None:
            return early
        headers = head.headers
        known = self._known.get(headers.task) or self._learn(headers.task)
        if known is None:
            return self._unknown(delivery, head)
        if delivery.deliveries > known.most > 0:
            return self._worn_out(delivery, head, known.task)
        if signals.task_received.receivers:
            signals.task_received.send(sender=known.task, request=head)
        self._number += 1
        known.count += 1
        hard, soft = headers.timelimit or _NO_LIMITS
        ignored = headers.ignore_result
        return Flight(
            self._number,
            delivery,
            headers.id,
            known.task,
            head.reply_to,
            known.ignore_result if ignored is None else ignored,
            now,
            soft or known.soft,
            hard or known.hard,
            not known.late,
        )

    def judged(self, final: Final, acked: bool, quiet: bool, now: float) -> Flight:
        """The flight on which an executor works out what follows an end."""
        self._number += 1
        return Flight(
            self._number,
            final.delivery,
            final.outcome.task_id if final.outcome is not None else "",
            self._tasks["celery.accumulate"],
            "",
            True,
            now,
            acked=acked,
            final=final,
            quiet=quiet,
        )

    def _learn(self, name: str) -> Known | None:
        task = self._tasks.get(name)
        if task is None:
            return None
        known = self._known[name] = Known(
            task,
            task.max_deliveries or self._most,
            task.acks_late,
            task.ignore_result,
            task.soft_time_limit or self._soft,
            task.time_limit or self._hard,
        )
        return known

    def forget(self) -> None:
        """Options of tasks were changed: look at them anew."""
        self._before = self.totals()
        self._known.clear()

    def totals(self) -> dict[str, int]:
        """How many tasks of each name were admitted. From any thread."""
        found = dict(self._before)
        for name, known in list(self._known.items()):
            found[name] = found.get(name, 0) + known.count
        return found

    def _not_now(self, delivery: Delivery, head: Head) -> Settlement | None:
        """What to do with a message that is revoked, expired or not due."""
        if delivery.revoked or (self._revocations.some and self._revocations.covers(head)):
            return self._revoked(delivery, head, "revoked", expired=False)
        eta, expires = head.headers.eta, head.headers.expires
        if expires is None and eta is None:
            return None
        now = clock.now()
        if expires is not None and parse_time(expires, self._timezone) <= now:
            return self._revoked(delivery, head, "expired", expired=True)
        if eta is not None:
            due = parse_time(eta, self._timezone)
            if due > now + _SOON_SECONDS:
                return Settlement(delivery, Action.DEFER, until=due, counted=False)
        return None

    def _revoked(self, delivery: Delivery, head: Head, why: str, *, expired: bool) -> Settlement:
        logger.info("Task %s[%s] %s", head.task, head.id, why)
        if signals.task_revoked.receivers:
            signals.task_revoked.send(
                sender=self._tasks.get(head.task),
                request=head,
                terminated=False,
                signum=None,
                expired=expired,
            )
        error = TaskRevokedError(why)
        outcome = self._outcomes.failed(head, error, states.REVOKED)
        return Final(delivery, outcome=outcome, error=error, status=states.REVOKED)

    def _unreadable(self, delivery: Delivery, exc: DecodeError) -> Settlement:
        logger.error(
            "A message on queue %r cannot be read and was put into the dead-letter queue: %s",
            delivery.queue,
            exc,
        )
        return Settlement(delivery, Action.DEAD, reason=f"unreadable: {exc}")

    def _unknown(self, delivery: Delivery, head: Head) -> Settlement:
        """Not registered here; another node may know it, for example during a deployment."""
        most = self._most
        if signals.task_unknown.receivers:
            signals.task_unknown.send(sender=None, name=head.task, id=head.id, message=head)
        if most and delivery.deliveries >= most:
            logger.error(
                "Task %s[%s] is not registered on any node that took it in %d deliveries; it is "
                "now in the dead-letter queue (see: chervil dead list)",
                head.task,
                head.id,
                delivery.deliveries,
            )
            error = NotRegistered(head.task)
            return Final(
                delivery,
                Action.DEAD,
                reason=f"task {head.task!r} is not registered",
                outcome=self._outcomes.failed(head, error),
                error=error,
            )
        wait = min(2.0 ** (delivery.deliveries - 1), _LONGEST_PARK_SECONDS)
        logger.log(
            logging.DEBUG if head.task in self._warned else logging.ERROR,
            "Task %s[%s] is not registered on this node; it is kept and offered again in %g s "
            "(delivery %d of %d). Is its module imported (--include, the setting `imports`, "
            "app.autodiscover_tasks)?",
            head.task,
            head.id,
            wait,
            delivery.deliveries,
            most,
        )
        self._warned.add(head.task)
        return Settlement(delivery, Action.DEFER, until=clock.now() + wait)

    def _worn_out(self, delivery: Delivery, head: Head, task: Task[Any, Any]) -> Settlement:
        times = delivery.deliveries - 1
        reason = f"delivered {times} times, and each time its worker died"
        logger.error(
            "Task %s[%s] was %s; it is now in the dead-letter queue", task.name, head.id, reason
        )
        error = WorkerLostError(reason)
        outcome = self._outcomes.failed(head, error)
        return Final(delivery, Action.DEAD, reason=reason, outcome=outcome, error=error)


def _upgrade(delivery: Delivery) -> Head:
    """The head of a message of Celery's task protocol 1, whose body names the task.

    :raises DecodeError: it is not such a message either.
    """
    message = upgrade(decode(delivery.head, delivery.body))
    delivery.head, delivery.body = encode_head(message), message.body
    return decode_head(delivery.head)
