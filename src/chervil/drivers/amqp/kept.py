"""Results that arrived for this process, until they are read, too old or too many."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable
from typing import Final

from chervil import clock
from chervil.states import READY_STATES, SUCCESS
from chervil.wire.message import Outcome

logger = logging.getLogger("chervil.result")
#: Bytes that an outcome takes beside its document, about.
_OVERHEAD: Final = 400
#: Ends that are kept after they were read, for who reads them again.
_READ: Final = 1000


class Kept:
    """The last outcome of each task. For any thread.

    :param most: bytes that are kept; beyond that those that were read go first, then the
        oldest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._lock = threading.Lock()
        #: By id, in the order of their arrival.
        self._unread: dict[str, Outcome] = {}
        #: In the order in which they were read.
        self._read: dict[str, Outcome] = {}
        self._warned = False

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._unread or task_id in self._read

    def add(self, outcome: Outcome) -> bool:
        """Keep it, unless what is there says SUCCESS; whether it is kept."""
        task_id = outcome.task_id
        with self._lock:
            before = self._unread.get(task_id) or self._read.get(task_id)
            if before is not None:
                if before.status == SUCCESS and not _is_over(before, clock.now()):
                    return False
                self._remove(task_id)
            self._unread[task_id] = outcome
            self._size += len(outcome.payload) + _OVERHEAD
            if self._size > self._most:
                self._make_room()
            return True

    def get(self, ids: Collection[str]) -> dict[str, Outcome]:
        """Those that are there; ends count as read from now on."""
        found: dict[str, Outcome] = {}
        with self._lock:
            for task_id in ids:
                outcome = self._unread.get(task_id) or self._read.get(task_id)
                if outcome is None:
                    continue
                if outcome.expires and _is_over(outcome, clock.now()):
                    self._remove(task_id)
                    continue
                found[task_id] = outcome
            self._were_read(found)
        return found

    def were_read(self, outcomes: Iterable[Outcome]) -> None:
        """Somebody got these."""
        with self._lock:
            self._were_read([outcome.task_id for outcome in outcomes])

    def _were_read(self, ids: Iterable[str]) -> None:
        for task_id in ids:
            outcome = self._unread.get(task_id)
            if outcome is not None and outcome.status in READY_STATES:
                self._read[task_id] = self._unread.pop(task_id)
        while len(self._read) > _READ:
            self._remove(next(iter(self._read)))

    def forget(self, ids: Iterable[str]) -> None:
        """Drop them."""
        with self._lock:
            for task_id in ids:
                self._remove(task_id)

    def forget_old(self) -> int:
        """Drop what has expired; how many."""
        now = clock.now()
        with self._lock:
            old = [
                task_id
                for some in (self._unread, self._read)
                for task_id, outcome in some.items()
                if _is_over(outcome, now)
            ]
            for task_id in old:
                self._remove(task_id)
        return len(old)

    def _remove(self, task_id: str) -> None:
        outcome = self._unread.pop(task_id, None) or self._read.pop(task_id, None)
        if outcome is not None:
            self._size -= len(outcome.payload) + _OVERHEAD

    def _make_room(self) -> None:
        """Always keeps the one that came last."""
        while self._size > self._most and self._read:
            self._remove(next(iter(self._read)))
        while self._size > self._most and len(self._unread) > 1:
            self._remove(next(iter(self._unread)))
            if not self._warned:
                self._warned = True
                logger.warning(
                    "results that nobody has read take more than %d bytes, so that the oldest are "
                    "dropped: read or ignore them (ignore_result), or raise the option kept_bytes "
                    "of rpc://",
                    self._most,
                )


def _is_over(outcome: Outcome, now: float) -> bool:
    return 0 < outcome.expires <= now
