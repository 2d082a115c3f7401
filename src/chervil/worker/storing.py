"""Storing ends where broker and result store are of different technologies.

Result first, then the message that it belongs to: if the node dies in between, the task
runs again, and what was counted of a chord is told once more.
"""

from __future__ import annotations

from collections.abc import Sequence

from chervil.drivers.contracts import ResultStore, Settlement


def put_first(store: ResultStore, settlements: Sequence[Settlement]) -> None:
    """Write what goes into the store, before messages go; what is written is taken out.

    Triggers of chords that are complete are added to what is to be published.
    """
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


def close_joins(store: ResultStore, settlements: Sequence[Settlement]) -> None:
    """Forget what arrived at chords whose bodies are sent now."""
    joins = [join for settlement in settlements for join in settlement.closes]
    if joins:
        store.close_joins(joins)
