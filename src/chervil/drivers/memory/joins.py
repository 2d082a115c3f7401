"""What has arrived of chords, inside this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chervil.drivers.chords import Arrival, Joined
from chervil.wire.message import Message

#: Seconds after which a join that nothing arrives at any more is given up.
KEPT = 90 * 86400.0
#: The same for one whose body was sent.
CLOSED_KEPT = 86400.0


class Join:
    """A join: who has arrived."""

    __slots__ = ("arrived", "closed", "fired", "size", "touched", "unsent", "wider")

    def __init__(self) -> None:
        self.size = self.wider = 0
        #: Place, order of arrival and value, by task id.
        self.arrived: dict[str, tuple[int, int, bytes]] = {}
        #: Who has fired the trigger.
        self.fired = ""
        self.closed = False
        #: Since when a trigger is to be sent, and the trigger.
        self.unsent: tuple[float, Message] | None = None
        self.touched = 0.0


class Joins:
    """The joins of a space. Called with the space's lock held."""

    def __init__(self) -> None:
        self._joins: dict[str, Join] = {}

    def get(self, name: str, now: float) -> Join:
        """A join, which is made when it is new."""
        join = self._joins.get(name)
        if join is None:
            join = self._joins[name] = Join()
        join.touched = now
        return join

    def arrive(self, arrivals: Iterable[Arrival], now: float, again: bool = False) -> list[Arrival]:
        """Record arrivals; those that fire.

        :param again: also those that have fired before; and triggers are kept.
        """
        fired = []
        for arrival in arrivals:
            join = self.get(arrival.join, now)
            if join.closed:
                continue
            if join.fired:
                if again and join.fired == arrival.member:
                    fired.append(arrival)
                continue
            join.size = arrival.size or join.size
            join.arrived.setdefault(
                arrival.member, (arrival.index, len(join.arrived), arrival.value)
            )
            whole = join.size > 0 and join.size + join.wider <= len(join.arrived)
            if arrival.failed or whole:
                join.fired = arrival.member
                join.unsent = (now, arrival.trigger) if again else None
                fired.append(arrival)
        return fired

    def joined(self, name: str) -> Joined | None:
        """What has arrived at a join."""
        join = self._joins.get(name)
        if join is None or join.closed:
            return None
        return Joined(bool(join.fired), [value for _, _, value in sorted(join.arrived.values())])

    def close(self, names: Iterable[str], now: float) -> None:
        """Forget what arrived."""
        for name in names:
            join = self.get(name, now)
            join.closed = True
            join.unsent = None
            join.arrived.clear()

    def sent(self, names: Iterable[str]) -> None:
        """Keep their triggers no longer."""
        for name in names:
            if name in self._joins:
                self._joins[name].unsent = None

    def unsent(self, since: float, now: float) -> dict[str, Message]:
        """Triggers that were not sent since then."""
        found = {}
        for name, join in self._joins.items():
            if join.unsent is not None and join.unsent[0] <= since:
                found[name] = join.unsent[1]
                join.unsent = (now, join.unsent[1])
        return found

    def expire(self, now: float, most: int) -> int:
        """Forget joins at which nothing happens any more."""
        old: Sequence[str] = [
            name
            for name, join in self._joins.items()
            if join.touched + (CLOSED_KEPT if join.closed else KEPT) <= now
        ][:most]
        for name in old:
            del self._joins[name]
        return len(old)
