"""What is stored when a task is cancelled, whether or not a node is there to hear of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chervil import clock, states
from chervil.exceptions import OperationalError, TaskRevokedError
from chervil.wire import outcomes
from chervil.wire.message import Outcome
from chervil.wire.times import now_text

if TYPE_CHECKING:
    from chervil.app import Chervil

#: Seconds that the broker remembers that a task was revoked.
REVOKES_KEPT = 30 * 86400.0


def store_revoked(app: Chervil, ids: Sequence[str]) -> None:
    """Have the broker remember it, and end what nobody has claimed as REVOKED."""
    held = app.broker.revoke(ids, clock.now() + REVOKES_KEPT)
    if held is None or not _acknowledges_late(app):
        return
    waiting = [task_id for task_id in ids if task_id not in held]
    try:
        known = app.backend.get(waiting)
        app.backend.put(
            [
                _revoked(app, task_id)
                for task_id in waiting
                if task_id not in known or known[task_id].status not in states.READY_STATES
            ]
        )
    except OperationalError as exc:
        import logging

        logging.getLogger("chervil.control").warning(
            "what was revoked is not stored as REVOKED before a node comes to it: %s", exc
        )


def _acknowledges_late(app: Chervil) -> bool:
    """Whether what no consumer has claimed cannot be running."""
    return bool(app.conf.task_acks_late) and all(t.acks_late for t in app.tasks.values())


def _revoked(app: Chervil, task_id: str) -> Outcome:
    conf = app.conf
    payload = outcomes.encode(
        task_id=task_id,
        status=states.REVOKED,
        result=TaskRevokedError("revoked"),
        date_done=now_text(),
        serializer=conf.result_serializer,
        compression=conf.result_compression,
    )
    expires = clock.now() + conf.result_expires if conf.result_expires else 0.0
    return Outcome(task_id, states.REVOKED, payload, expires, app.address)
