"""Storing ends where broker and result store are of different technologies.

Result first, then the message that it belongs to: if the node dies in between, the task
runs again, and what was counted of a chord is told once more. A task that was acknowledged
before it ran does not run again; so the store keeps triggers until they are sent, and
other nodes send what a dead one did not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from chervil.drivers.contracts import Broker, ResultStore, Settlement
from chervil.exceptions import OperationalError

logger = logging.getLogger("chervil.worker")


class Storing:
    """The result store, as the hub writes into it by itself."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        #: Chords whose triggers are with the settlements.
        self._fired: list[str] = []
        #: Chords whose bodies were sent.
        self._closed: list[str] = []

    def first(self, settlements: Sequence[Settlement]) -> None:
        """Write what goes into the store, before messages go; what is written is taken out.

        Triggers of chords that are complete are added to what is to be published.
        """
        store = self._store
        outcomes = [s.outcome for s in settlements if s.outcome is not None]
        for settlement in settlements:
            outcomes += settlement.others
        if outcomes:
            store.put(outcomes)
        begins = {join: size for s in settlements for join, size in s.begins.items()}
        if begins:
            store.announce(begins)
        arrivals = [arrival for s in settlements for arrival in s.arrivals]
        fired = {(a.join, a.member) for a in store.arrive(arrivals)} if arrivals else set()
        for settlement in settlements:
            triggers = [a.trigger for a in settlement.arrivals if (a.join, a.member) in fired]
            if triggers:
                settlement.publish = [*settlement.publish, *triggers]
            settlement.outcome = None
            settlement.others = settlement.arrivals = ()
            settlement.begins = {}
        self._fired += [join for join, _ in fired]

    def last(self, settlements: Sequence[Settlement]) -> None:
        """After the messages have gone; what cannot be written now is tried the next time."""
        self._closed += [join for settlement in settlements for join in settlement.closes]
        try:
            if self._closed:
                self._store.close_joins(self._closed)
                self._closed = []
            if self._fired:
                self._store.sent(self._fired)
                self._fired = []
        except OperationalError as exc:
            logger.warning("That chords are complete could not be stored yet: %s", exc)


def send_again(store: ResultStore, broker: Broker, age: float) -> None:
    """Send triggers that were to be sent so many seconds ago, by nodes that died."""
    triggers = store.unsent(age) if store.joins else None
    if triggers:
        logger.warning("A dead node had not called the bodies of %d complete chords", len(triggers))
        broker.publish(list(triggers.values()))
        store.sent(list(triggers))
