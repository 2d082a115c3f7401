"""Chords in Redis: the arguments by which scripts count members, and what they counted.

The keys are those of Celery's result backend (see ``join.lua``), so that workers of both
kinds count in the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from chervil.drivers.chords import Arrival
from chervil.drivers.redis.link import Argument

#: What packs the trigger of an arrival: the list that it goes to and the envelope.
Pack = Callable[[Arrival], tuple[bytes, bytes]]


def arrivals_of(arrivals: Iterable[Arrival], pack: Pack) -> tuple[int, list[Argument]]:
    """How many groups, and the groups (see ``joins`` in ``join.lua``)."""
    by_join: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        by_join.setdefault(arrival.join, []).append(arrival)
    found: list[Argument] = []
    for join, members in by_join.items():
        failed = next((arrival for arrival in members if arrival.failed), None)
        key, envelope = pack(failed or members[-1])
        size = max(arrival.size for arrival in members)
        found += ("a", join, size, key, envelope, failed.member if failed else "", len(members))
        for arrival in members:
            place = arrival.index if arrival.index >= 0 else "+inf"
            found += (arrival.member, place, arrival.value)
    return len(by_join), found


def begins_of(joins: Mapping[str, int]) -> list[Argument]:
    """The groups for joins that begin."""
    return [part for join, size in joins.items() for part in ("b", join, size)]


def closes_of(joins: Collection[str]) -> list[Argument]:
    """The groups for joins that are closed."""
    return [part for join in joins for part in ("c", join)]
