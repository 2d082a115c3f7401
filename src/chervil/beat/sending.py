"""From a due time to the messages that it sends."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from chervil import clock, states
from chervil.beat.entries import ScheduleEntry
from chervil.beat.rule import firing_id, moment
from chervil.exceptions import OperationalError
from chervil.wire.message import Message

if TYPE_CHECKING:
    from chervil.app import Chervil

logger = logging.getLogger("chervil.beat")
#: Seconds after which a task without a result counts as ended, where results never expire.
_LONGEST: Final = 86_400.0


def book_of(app: Chervil) -> str:
    """The name under which the periodic tasks of an app are kept, and its leader's lease."""
    return f"schedule.{app.main or 'app'}"


def build(
    app: Chervil, entry: ScheduleEntry, due: float, task_id: str | None = None
) -> list[Message]:
    """The messages of one firing.

    :param task_id: None: the one that follows from entry and due time.
    :raises Exception: whatever is wrong with the entry's task, arguments or options.
    """
    task = app.tasks.get(entry.task)
    options: dict[str, Any] = dict(entry.options)
    options["task_id"] = task_id or firing_id(book_of(app), entry.name, due)
    options.setdefault("reply_to", "")  # nobody waits here
    options["headers"] = {
        **(options.get("headers") or {}),
        "periodic_task_name": entry.name,
        "periodic_due": moment(due).isoformat(),
    }
    return app.publisher.build(entry.task, entry.args, entry.kwargs, options, task, inherit=False)


def running(app: Chervil, entries: Iterable[ScheduleEntry]) -> dict[str, str]:
    """The ids of last runs that have not ended, by the names of their entries.

    A task whose result is not there counts as running until its result would have expired.

    :raises OperationalError: the result store does not answer.
    """
    last = {entry.name: run for entry in entries if (run := entry.state.last_sent) is not None}
    if not last:
        return {}
    found = app.backend.get([run.task_id for run in last.values()])
    longest, now = app.conf.result_expires or _LONGEST, clock.now()
    going: dict[str, str] = {}
    for name, run in last.items():
        outcome = found.get(run.task_id)
        if outcome is not None:
            ended = outcome.status in states.READY_STATES
        else:
            ended = now - run.at > longest
        if not ended:
            going[name] = run.task_id
    return going


def cancel(app: Chervil, ids: list[str]) -> None:
    """Keep tasks from starting, and end them where they run."""
    try:
        app.control.revoke(ids, terminate=True)
    except OperationalError as exc:
        logger.warning("Runs that overlap with the next could not be cancelled: %s", exc)
