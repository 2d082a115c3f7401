"""What one exchange has to settle, sorted by what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from chervil.drivers.contracts import Action, Settlement
from chervil.drivers.redis import joining
from chervil.drivers.redis.link import Argument
from chervil.drivers.redis.sending import envelope

if TYPE_CHECKING:
    from chervil.drivers.redis.names import Names
    from chervil.wire.message import Message, Outcome


class Work:
    """Settlements of claims that are held; they are held no more.

    :param held: the tags of the claims; those that are settled are taken out.
    """

    __slots__ = ("acks", "joining", "outcomes", "publish", "settled", "tags")

    def __init__(self, settlements: Sequence[Settlement], held: set[bytes]) -> None:
        #: All claims that are settled here.
        self.tags: list[bytes] = []
        self.acks: list[bytes] = []
        self.settled: list[Settlement] = []
        self.outcomes: list[Outcome] = []
        self.publish: list[Message] = []
        #: What concerns chords, if anything does.
        self.joining: list[Settlement] = []
        ack = Action.ACK
        for settlement in settlements:
            tag = settlement.delivery.tag
            if tag not in held:
                continue  # not ours, or not any more: it changes nothing
            held.discard(tag)  # so that a second settlement finds it gone
            self.tags.append(tag)
            if settlement.action == ack:
                self.acks.append(tag)
            else:
                self.settled.append(settlement)
            if settlement.outcome is not None:
                self.outcomes.append(settlement.outcome)
            if settlement.publish:
                self.publish.extend(settlement.publish)
            if settlement.others:
                self.outcomes.extend(settlement.others)
            if settlement.arrivals or settlement.begins or settlement.closes:
                self.joining.append(settlement)

    def joins(self, names: Names, now: float) -> tuple[int, list[Argument]]:
        """What concerns chords, as the script takes it: how many groups, and the groups."""
        begins = {join: n for s in self.joining for join, n in s.begins.items()}
        arrivals = [arrival for s in self.joining for arrival in s.arrivals]
        closes = [join for s in self.joining for join in s.closes]
        count, found = joining.arrivals_of(
            arrivals,
            lambda a: (names.inner_list(a.trigger.queue), envelope(a.trigger, now)),
        )
        found = joining.begins_of(begins) + found + joining.closes_of(closes)
        return len(begins) + count + len(closes), found

    def others(self) -> list[Argument]:
        """What is settled otherwise."""
        found: list[Argument] = []
        # Of what goes back to the front, the last one to go is the first one there.
        requeued = [s for s in reversed(self.settled) if s.action == Action.REQUEUE]
        for settlement in (*(s for s in self.settled if s.action != Action.REQUEUE), *requeued):
            action = Action(settlement.action)
            found += (
                settlement.delivery.tag,
                action.name.lower(),
                1 if settlement.counted else 0,
                repr(float(settlement.until)),
                settlement.delivery.queue,
                settlement.reason.encode("utf-8", "backslashreplace"),
                settlement.detail.encode("utf-8", "backslashreplace"),
            )
        return found
