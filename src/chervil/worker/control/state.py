"""What commands see of their node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from chervil.exceptions import OperationalError

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.worker.flight import Flight
    from chervil.worker.hub import Hub
    from chervil.worker.node import Node
    from chervil.worker.revocations import Revocations
    from chervil.worker.steering import Steering

T = TypeVar("T")
#: Seconds that the hub may take until it is between two steps.
_PATIENCE = 5.0
_LOOK_SECONDS = 0.1


class NoReply(Exception):
    """The command is not answered."""


class State:
    """A node, as its commands see it.

    :param wake: ends a wait of the hub.
    """

    def __init__(
        self, node: Node, hub: Hub, revocations: Revocations, wake: Callable[[], None]
    ) -> None:
        self.app: Chervil = node.app
        self.hostname = node.hostname
        self.node = node
        self.revocations = revocations
        self.started = monotonic()
        #: Lamport's: larger than that of any message seen.
        self.clock = 0
        #: Held while the thread of remote control is at work, so that forks wait.
        self.lock = threading.Lock()
        self._hub = hub
        self._wake = wake
        #: Of this request: it says that the broker has stored it already.
        self.stored = False
        #: The node is about to end: its hub does nothing more.
        self.closing = False

    def tick(self, seen: int = 0) -> int:
        """The clock after an event of ours, or after a message with that clock."""
        self.clock = max(self.clock, seen) + 1
        return self.clock

    def flights(self) -> list[Flight]:
        """The jobs that the node has claimed and not settled."""
        return list(self._hub.steering.flights.values())

    @property
    def claims_ahead(self) -> int:
        """How many messages the node may hold now."""
        return self._hub.steering.appetite.allowed

    def totals(self) -> dict[str, int]:
        """How many tasks of each name the node has taken."""
        return self._hub.steering.totals()

    def dead_letters(self) -> dict[str, int]:
        """How many messages of each queue the node has put into the dead-letter queue."""
        return dict(self._hub.dead_letters)

    def on_hub(self, work: Callable[[Steering], T]) -> T:
        """Have the hub do something between two steps, and wait for it.

        :raises OperationalError: it is busy with a task (``solo``), or has ended; what was
            asked for is still done when that task has ended.
        """
        done = threading.Event()
        box: list[tuple[bool, object]] = []

        def serve() -> None:
            try:
                box.append((True, work(self._hub.steering)))
            except Exception as exc:
                box.append((False, exc))
            done.set()

        self._hub.requests.append(serve)
        self._wake()
        self.lock.release()  # the hub may want to fork first
        try:
            deadline = monotonic() + _PATIENCE
            while not (answered := done.wait(_LOOK_SECONDS)):
                if self.closing or monotonic() > deadline:
                    break
        finally:
            self.lock.acquire()
        if not answered:
            raise OperationalError(
                f"the node has not got to it within {_PATIENCE:g} s; it will when its task has "
                "ended"
            )
        fine, value = box[0]
        if not fine:
            raise value  # type: ignore[misc]
        return value  # type: ignore[return-value]
