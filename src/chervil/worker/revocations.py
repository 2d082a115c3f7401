"""What this node was told must not run, before or besides what the broker remembers.

A cancellation that came by remote control holds here from the moment on at which it
is read. Marks of tasks (stamps) are known here alone, and kept by the broker under
names that begin with ``stamp:``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chervil.control.cancelling import STAMP
from chervil.wire import jsoncodec

if TYPE_CHECKING:
    from chervil.wire.envelope import Head

#: Ids that are kept here; the broker keeps all.
ROOM = 50_000


class Revocations:
    """Changed by the thread of remote control, read by the hub."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._stamps: dict[str, list[Any]] = {}
        #: There are any; looked at for each message.
        self.some = False

    def add(self, ids: Iterable[str]) -> None:
        """These tasks must not run."""
        for task_id in ids:
            self._ids.pop(task_id, None)
            self._ids[task_id] = None
        while len(self._ids) > ROOM:
            del self._ids[next(iter(self._ids))]
        self.some = bool(self._ids or self._stamps)

    def add_stamps(self, stamps: Mapping[str, Iterable[Any]]) -> None:
        """Tasks with one of these values of a stamp must not run."""
        for name, values in stamps.items():
            known = self._stamps.get(name, [])
            self._stamps[name] = known + [value for value in values if value not in known]
        self.some = bool(self._ids or self._stamps)

    def load(self, names: Iterable[str]) -> None:
        """What the broker remembers of stamps."""
        for name in names:
            if name.startswith(STAMP) and "=" in name:
                stamp, _, value = name.removeprefix(STAMP).partition("=")
                try:
                    self.add_stamps({stamp: [jsoncodec.loads(value)]})
                except ValueError:
                    continue

    def covers(self, head: Head) -> bool:
        """Whether this message must not run."""
        return head.id in self._ids or (bool(self._stamps) and self.stamped(head, self._stamps))

    @staticmethod
    def stamped(head: Head, wanted: Mapping[str, Iterable[Any]]) -> bool:
        """Whether a message carries one of these values of a stamp."""
        for name, stamp in head.headers.stamps.items():
            values = stamp if isinstance(stamp, list) else [stamp]
            if any(value in wanted.get(name, ()) for value in values):
                return True
        return False

    def ids(self) -> list[str]:
        """The tasks, as far as they are known here."""
        return list(self._ids)


def is_task_id(name: str) -> bool:
    """Whether what the broker remembers is a task, and no stamp."""
    return not name.startswith(STAMP)
