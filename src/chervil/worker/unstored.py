"""What the hub has to store: it stays here until the broker has taken it."""

from __future__ import annotations

from collections.abc import Sequence

from chervil.drivers.contracts import Broker, Consumer, Delivery, ResultStore, Settlement
from chervil.wire.message import Message, Outcome
from chervil.worker.flight import Flight
from chervil.worker.settling import Settling


class Unstored:
    """Settlements, and what jobs left behind whose messages are gone already.

    :param shared: the broker writes outcomes in the step that settles their messages.
    """

    def __init__(
        self, broker: Broker, store: ResultStore, settling: Settling, *, shared: bool
    ) -> None:
        self._broker = broker
        self._store = store
        self._settling = settling
        self._shared = shared
        self.settlements: list[Settlement] = []
        #: Of jobs that were acknowledged early, and states on the way.
        self.outcomes: list[Outcome] = []
        self._messages: list[Message] = []

    def __bool__(self) -> bool:
        return bool(self.settlements or self.outcomes or self._messages)

    def add(self, flight: Flight, settlement: Settlement) -> None:
        """A job has ended."""
        if not flight.acked:
            self.settlements.append(settlement)
            return
        if settlement.outcome is not None:
            self.outcomes.append(settlement.outcome)
        if settlement.publish:
            self._messages.extend(settlement.publish)

    def exchange(self, consumer: Consumer, limit: int) -> Sequence[Delivery]:
        """Store everything, and claim up to ``limit`` messages.

        :raises LeaseLost: the claims belong to others.
        :raises OperationalError: what is still here has not been stored.
        """
        if self.outcomes:
            self._store.put(self.outcomes)
            self.outcomes = []
        if self._messages:
            self._broker.publish(self._messages)
            self._messages = []
        settlements = self.settlements
        if not self._shared:
            self._put_first(settlements)
        deliveries = consumer.exchange(settlements, limit)
        self.settlements = []
        self._settling.stored(settlements)
        return deliveries

    def _put_first(self, settlements: Sequence[Settlement]) -> None:
        """Write the outcomes to a store of another technology, before their messages go."""
        outcomes = [s.outcome for s in settlements if s.outcome is not None]
        if outcomes:
            self._store.put(outcomes)
            for settlement in settlements:
                settlement.outcome = None

    def forget_claims(self) -> None:
        """They belong to others now."""
        self.settlements.clear()
