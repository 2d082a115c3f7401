"""What the hub waits on."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from chervil.worker.fleet import Processes

if TYPE_CHECKING:
    from chervil.worker.fleet import Fleet


class Pollers:
    """One set of descriptors for each state that the hub waits in.

    :param consumer: the descriptor of what tells of new messages.
    :param wakeup: readable when another thread or a signal ends the wait.
    """

    def __init__(self, fleet: Fleet, consumer: int, wakeup: int) -> None:
        #: While there is room for more; while there is none; while the run queue is full.
        self._all, self._inner, self._full = select.poll(), select.poll(), select.poll()
        descriptors = fleet.descriptors()
        #: Readable when there are reports; 0 where they are to be asked for.
        self.reports = descriptors[0] if descriptors else 0
        #: Readable when there may be messages.
        self.claims = consumer
        for descriptor in (*descriptors, wakeup):
            for poller in (self._all, self._inner, self._full):
                poller.register(descriptor, select.POLLIN)
        self._all.register(consumer, select.POLLIN)
        if isinstance(fleet, Processes):
            self._full.register(fleet.room_fileno(), select.POLLOUT)

    def poll(self, milliseconds: float, *, listening: bool, full: bool) -> list[tuple[int, int]]:
        """Wait; what there is then.

        :param listening: there is room for more messages.
        :param full: the run queue has no room for those that there are.
        """
        poller = self._all if listening else self._full if full else self._inner
        return poller.poll(milliseconds)
