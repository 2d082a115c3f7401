"""Outcomes that the hub writes itself: for tasks that never ran or died."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chervil import clock, states
from chervil.wire import outcomes as wire
from chervil.wire.message import Outcome
from chervil.wire.times import now_text

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.wire.envelope import Head
    from chervil.worker.flight import Flight


class Outcomes:
    """Builds outcomes with the application's result settings."""

    def __init__(self, app: Chervil) -> None:
        conf = app.conf
        self._serializer = conf.result_serializer
        self._compression = conf.result_compression
        self.lifetime = float(conf.result_expires or 0.0)

    def expires(self) -> float:
        """Unix seconds at which an outcome stored now may be deleted; 0: never."""
        return clock.now() + self.lifetime if self.lifetime else 0.0

    def failed(self, head: Head, exception: BaseException, status: str = states.FAILURE) -> Outcome:
        """For a message that is not going to run."""
        headers = head.headers
        return self._outcome(
            headers.id, head.reply_to, exception, status, headers.group, headers.parent_id
        )

    def ended(
        self, flight: Flight, exception: BaseException, status: str = states.FAILURE
    ) -> Outcome | None:
        """For a job that was ended from outside; None when nobody wants its result."""
        if flight.ignore_result and not flight.task.store_errors_even_if_ignored:
            return None
        return self._outcome(flight.task_id, flight.reply_to, exception, status)

    def _outcome(
        self,
        task_id: str,
        reply_to: str,
        exception: BaseException,
        status: str,
        group: str | None = None,
        parent: str | None = None,
    ) -> Outcome:
        payload = wire.encode(
            task_id=task_id,
            status=status,
            result=exception,
            date_done=now_text(),
            group_id=group,
            parent_id=parent,
            serializer=self._serializer,
            compression=self._compression,
        )
        return Outcome(task_id, status, payload, self.expires(), reply_to)
