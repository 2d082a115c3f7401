"""What is stored of an entry: its definition, and how far it is."""

from __future__ import annotations

from typing import Any

import msgspec

from chervil.exceptions import DecodeError

#: Where an entry comes from.
CODE, STORE = "code", "store"
#: What became of a due time, in :attr:`Run.what`; else it begins with "failed".
SENT, SKIPPED, BY_HAND, BACKFILLED = "sent", "skipped", "by hand", "backfilled"


class Run(msgspec.Struct, array_like=True, frozen=True):
    """One due time of an entry that was decided."""

    #: Unix times in seconds: when it was due, and when it was decided.
    due: float
    at: float
    #: Of the task; empty when none was sent.
    task_id: str
    what: str = SENT


class State(msgspec.Struct, omit_defaults=True):
    """A stored entry."""

    definition: dict[str, Any]
    origin: str = STORE
    #: What the due times follow from; when it changes, they do.
    rule: str = ""
    paused: bool = False
    #: The next due time; None: there is none.
    due: float | None = None
    #: The last one that was decided.
    last: float | None = None
    #: ``due`` waits for the run before it to end.
    waiting: bool = False
    #: How many tasks were sent.
    count: int = 0
    #: The last ones, oldest first.
    runs: list[Run] = []

    def note(self, run: Run, keep: int) -> None:
        """Add a run, and forget those that are too many."""
        self.runs = [*self.runs, run][-keep:]
        if run.task_id:
            self.count += 1

    @property
    def last_sent(self) -> Run | None:
        """The last run that sent a task."""
        return next((run for run in reversed(self.runs) if run.task_id), None)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(State)


def encode(state: State) -> bytes:
    """As it is stored."""
    return _encoder.encode(state)


def decode(key: str, data: bytes) -> State:
    """Read what :func:`encode` wrote.

    :raises DecodeError: it is nothing of that kind.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as exc:
        raise DecodeError(f"the stored periodic task {key!r} cannot be read: {exc}") from exc
