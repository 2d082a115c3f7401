"""What the hub has to store: it stays here until the broker has taken it."""

from __future__ import annotations

from collections.abc import Sequence

from chervil.drivers.contracts import Broker, Consumer, Delivery, ResultStore, Settlement
from chervil.wire.message import Outcome
from chervil.worker.settling import Settling
from chervil.worker.storing import Storing


class Unstored:
    """Settlements, and what jobs left behind whose messages are gone already.

    :param shared: the broker writes outcomes in the step that settles their messages.
    """

    def __init__(
        self, broker: Broker, store: ResultStore, settling: Settling, *, shared: bool
    ) -> None:
        self._broker = broker
        self._store = store
        self._storing = Storing(store)
        self._settling = settling
        self._shared = shared
        self.settlements: list[Settlement] = []
        #: States of jobs that go on.
        self.states: list[Outcome] = []
        #: Ends of jobs whose messages are gone already.
        self._loose: list[Settlement] = []

    def __bool__(self) -> bool:
        return bool(self.settlements or self._loose or self.states)

    def add(self, settlement: Settlement, acked: bool) -> None:
        """A job has ended.

        :param acked: its message is gone already: only what it left behind is stored.
        """
        (self._loose if acked else self.settlements).append(settlement)

    def exchange(self, consumer: Consumer, limit: int) -> Sequence[Delivery]:
        """Store everything, and claim up to ``limit`` messages.

        :raises LeaseLost: the claims belong to others.
        :raises OperationalError: what is still here has not been stored.
        """
        if self.states or self._loose:
            self._store_loose()
        settlements = self.settlements
        if not self._shared:
            self._storing.first(settlements)
        deliveries = consumer.exchange(settlements, limit)
        self.settlements = []
        if not self._shared:
            self._storing.last(settlements)
        self._settling.stored(settlements)
        return deliveries

    def _store_loose(self) -> None:
        """Store what belongs to no message that is claimed."""
        if self.states:
            self._store.put(self.states)
            self.states = []
        if self._loose:
            self._storing.first(self._loose)
            messages = [message for s in self._loose for message in s.publish]
            if messages:
                self._broker.publish(messages)
            loose, self._loose = self._loose, []
            self._storing.last(loose)
