"""What is stored when a task is cancelled, whether or not a node is there to hear of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chervil import clock
from chervil.exceptions import OperationalError, TaskRevokedError
from chervil.states import READY_STATES, REVOKED
from chervil.wire import jsoncodec, outcomes
from chervil.wire.message import Outcome
from chervil.wire.times import now_text

if TYPE_CHECKING:
    from chervil.app import Chervil

#: Seconds that the broker remembers that a task was revoked.
REVOKES_KEPT = 30 * 86400.0


#: What the names of stamps begin with, among the ids that the broker remembers.
STAMP = "stamp:"


def stamp_names(stamps: Mapping[str, Any]) -> list[str]:
    """How the broker remembers that tasks with these values of stamps must not run.

    :param stamps: names of stamps to a value, or to several.
    """
    return [
        f"{STAMP}{name}={jsoncodec.dumps(value).decode()}"
        for name, values in stamps.items()
        for value in (values if isinstance(values, (list, tuple, set)) else [values])
    ]


#: Ids that are asked for, or stored, at once.
_AT_ONCE = 1000

#: Asks all nodes what they have of some tasks: answers, and whether all have answered.
Ask = Callable[[Sequence[str]], tuple[list[dict[str, Any]], bool]]


def end_waiting(app: Chervil, ids: Sequence[str], ask: Ask) -> None:
    """Store REVOKED for those of these tasks, revoked before, that no node has.

    What nobody has claimed may still be running where messages are acknowledged before
    their tasks run, as Celery's workers do: so nodes are asked. Where one does not
    answer, nothing is stored: whoever takes such a task off its queue will.
    """
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        try:
            known = app.backend.get(part)
            open_ = [i for i in part if i not in known or known[i].status not in READY_STATES]
            replies, all_answered = ask(open_) if open_ else ([], False)
            if not all_answered:
                continue
            taken = {task_id for answer in replies for task_id in _mentioned(answer)}
            app.backend.put([_revoked(app, task_id) for task_id in open_ if task_id not in taken])
        except OperationalError as exc:
            import logging

            logging.getLogger("chervil.control").warning(
                "what was revoked is not stored as REVOKED before a node comes to it: %s", exc
            )


def _mentioned(reply: dict[str, Any]) -> Iterable[str]:
    for answer in reply.values():
        if isinstance(answer, dict):
            yield from answer


def _revoked(app: Chervil, task_id: str) -> Outcome:
    conf = app.conf
    payload = outcomes.encode(
        task_id=task_id,
        status=REVOKED,
        result=TaskRevokedError("revoked"),
        date_done=now_text(),
        serializer=conf.result_serializer,
        compression=conf.result_compression,
    )
    expires = clock.now() + conf.result_expires if conf.result_expires else 0.0
    return Outcome(task_id, REVOKED, payload, expires, app.address)
