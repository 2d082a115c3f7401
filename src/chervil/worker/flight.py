"""What the hub knows of a message that it claimed and has not settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from chervil.drivers.contracts import Delivery
from chervil.pools.frames import Job
from chervil.worker.ends import Final, verdict_of

if TYPE_CHECKING:
    from chervil.task import Task


class Flight(msgspec.Struct):
    """A job between its claim and its settlement."""

    #: The number under which executors know it; increases by one a job.
    number: int
    delivery: Delivery
    task_id: str
    task: Task[Any, Any]
    reply_to: str
    ignore_result: bool
    #: Monotonic seconds at which it was put on the run queue.
    dispatched: float
    #: Seconds, or 0 for no limit.
    soft_limit: float = 0.0
    hard_limit: float = 0.0
    #: Acknowledged before it ran (``acks_late=False``).
    acked: bool = False
    #: Why its executor was ended on purpose, if it was.
    ended_by: str = ""
    #: The signal with which it was cancelled while it ran; 0: it was not.
    signum: int = 0
    #: The claim was lost; whatever it still reports is ignored.
    lost: bool = False
    #: At how many audits in a row it was seen nowhere.
    missing: int = 0
    #: It was put on the run queue.
    sent: bool = False
    #: Its time limits are being kept.
    watched: bool = False
    #: How it ended without its executor; what follows from that is being worked out.
    final: Final | None = None
    #: For that no code of the application is called, of which an executor has died.
    quiet: bool = False

    def job(self) -> Job:
        """What an executor gets of it."""
        delivery = self.delivery
        return Job(
            self.number,
            delivery.deliveries,
            delivery.head,
            delivery.body,
            delivery.queue,
            bool(self.hard_limit or self.soft_limit),
            None if self.final is None else verdict_of(self.final, self.quiet),
        )
