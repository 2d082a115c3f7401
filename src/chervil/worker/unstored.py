"""What the hub has to store: it stays here until the broker has taken it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from chervil.drivers.contracts import Broker, Consumer, Delivery, ResultStore, Settlement
from chervil.exceptions import OperationalError
from chervil.wire.message import Outcome
from chervil.worker.settling import Settling
from chervil.worker.storing import close_joins, put_first

logger = logging.getLogger("chervil.worker")


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
            put_first(self._store, settlements)
        deliveries = consumer.exchange(settlements, limit)
        self.settlements = []
        if not self._shared:
            self._close_joins(settlements)
        self._settling.stored(settlements)
        return deliveries

    def _store_loose(self) -> None:
        """Store what belongs to no message that is claimed."""
        if self.states:
            self._store.put(self.states)
            self.states = []
        if self._loose:
            put_first(self._store, self._loose)
            messages = [message for s in self._loose for message in s.publish]
            if messages:
                self._broker.publish(messages)
            loose, self._loose = self._loose, []
            self._close_joins(loose)

    def _close_joins(self, settlements: Sequence[Settlement]) -> None:
        """What these needed is stored: what is left of their chords may as well expire."""
        try:
            close_joins(self._store, settlements)
        except OperationalError as exc:
            logger.warning("What arrived at chords that have begun stays until it expires: %s", exc)
