"""Sending what a past range would have sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from chervil import clock
from chervil.beat.entries import ScheduleEntry
from chervil.beat.rule import firing_id
from chervil.beat.sending import book_of, build
from chervil.beat.state import BACKFILLED, Run

if TYPE_CHECKING:
    from chervil.app import Chervil

#: Due times that are looked at and sent at once.
_AT_ONCE = 200


class Missing(msgspec.Struct, frozen=True):
    """A due time of the past."""

    due: float
    task_id: str
    #: It was sent, as far as the entry's history and the result store know.
    done: bool


def past(app: Chervil, entry: ScheduleEntry, start: float, end: float) -> Iterator[Missing]:
    """The due times of an entry in a past range, both ends included.

    :param start: Unix time in seconds; so is ``end``.
    """
    known = {run.due for run in entry.state.runs if run.task_id}
    dues = _dues(entry, start, min(end, clock.now()))
    while part := list(islice(dues, _AT_ONCE)):
        ids = [firing_id(book_of(app), entry.name, due) for due in part]
        stored = app.backend.get(ids)
        for due, task_id in zip(part, ids, strict=True):
            yield Missing(due, task_id, due in known or task_id in stored)


def _dues(entry: ScheduleEntry, start: float, end: float) -> Iterator[float]:
    rule = entry.rule
    # An interval is counted from a due time; others need none.
    anchor = (entry.state.last or entry.state.due) if rule.every is not None else None
    at = rule.from_now(anchor, start - 1e-6)
    while at is not None and at <= end:
        yield at
        at = rule.after(at)


def send(app: Chervil, entry: ScheduleEntry, missing: Sequence[Missing]) -> list[Run]:
    """Send these due times, in their order and with the ids that they would have had.

    :raises BrokerUnavailable: the rest was not sent; to try again sends nothing twice once
        the tasks have results.
    """
    runs: list[Run] = []
    for first in range(0, len(missing), _AT_ONCE):
        part = missing[first : first + _AT_ONCE]
        messages = [m for item in part for m in build(app, entry, item.due, item.task_id)]
        app.publisher.send(messages)
        now = clock.now()
        runs += [Run(item.due, now, item.task_id, BACKFILLED) for item in part]
    return runs
