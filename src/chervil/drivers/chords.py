"""What a result store must be able to do for chords and groups; part of its contract.

A *join* is what waits for the members of a chord's header. It is a set of those that
have ended, so that one that ends twice counts once, and it fires once: when all are in
it, or with the first that failed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from chervil.exceptions import BackendError
from chervil.wire.message import Message


class Arrival(msgspec.Struct, gc=False):
    """That a member of a chord's header has ended, for good."""

    #: Id of the header's group.
    join: str
    #: Task id of the member; a second arrival of it changes nothing.
    member: str
    #: Its place among the results; those of the same place come in the order of arrival.
    index: int
    #: How many members there are; 0 when only the store was told (``announce``).
    size: int
    failed: bool
    #: What is kept of it, encoded.
    value: bytes
    #: To be published once: when all have arrived, or the first that failed.
    trigger: Message


def pack(trigger: Message) -> bytes:
    """A trigger as a store keeps it."""
    return msgspec.msgpack.encode(trigger)


unpack = msgspec.msgpack.Decoder(Message).decode


class Joined(msgspec.Struct):
    """What has arrived of a chord's header."""

    #: The trigger was published.
    complete: bool
    #: The values, in the order of their places.
    values: Sequence[bytes]


class JoinStore(Protocol):
    """Joins, and groups that were saved."""

    #: Whether it can; without it the methods below are not called.
    joins: bool

    def announce(self, joins: Mapping[str, int]) -> None:
        """Tell workers of other makes how many members the headers have, before they run."""
        ...

    def arrive(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """Record ends of members; those whose trigger the caller is to publish.

        An arrival that is recorded already answers the same as the first time, until
        the join is closed. A trigger is kept here until it is :meth:`sent`.
        """
        ...

    def sent(self, joins: Collection[str]) -> None:
        """The triggers that :meth:`arrive` told of are published."""
        ...

    def unsent(self, age: float) -> Mapping[str, Message]:
        """Triggers, by join, that :meth:`arrive` told of ``age`` seconds ago and that were
        not sent, as their caller has died. A bounded number; each again only when as much
        time has passed again."""
        ...

    def joined(self, join: str) -> Joined | None:
        """What has arrived; None for a join that is not known, or was closed."""
        ...

    def widen(self, join: str, by: int) -> None:
        """Let a join wait for more members than were announced."""
        ...

    def close_joins(self, joins: Collection[str]) -> None:
        """Their bodies are sent: forget what arrived, and let nothing arrive any more."""
        ...

    # --- groups that were saved

    def put_group(self, group: str, payload: bytes, expires: float) -> None:
        """Store which results belong to a group; ``expires`` as of outcomes."""
        ...

    def get_group(self, group: str) -> bytes | None:
        """What was stored for a group."""
        ...

    def forget_group(self, group: str) -> None:
        """Delete it."""
        ...


class NoJoins:
    """What a result store has of :class:`JoinStore` that cannot do it."""

    joins = False
    #: What to do about it, for the errors.
    instead = "set result_backend to SQLite, Redis or memory"

    def announce(self, joins: Mapping[str, int]) -> None:
        """Refuse."""
        raise self._refused("chords need")

    def arrive(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """Refuse."""
        raise self._refused("chords need")

    def sent(self, joins: Collection[str]) -> None:
        """There is nothing to send."""

    def unsent(self, age: float) -> Mapping[str, Message]:
        """Know nothing."""
        return {}

    def joined(self, join: str) -> Joined | None:
        """Know nothing."""
        return None

    def widen(self, join: str, by: int) -> None:
        """Refuse."""
        raise self._refused("chords need")

    def close_joins(self, joins: Collection[str]) -> None:
        """There is nothing to close."""

    def put_group(self, group: str, payload: bytes, expires: float) -> None:
        """Refuse."""
        raise self._refused("saved groups need")

    def get_group(self, group: str) -> bytes | None:
        """Know nothing."""
        return None

    def forget_group(self, group: str) -> None:
        """There is nothing to delete."""

    def _refused(self, what: str) -> BackendError:
        return BackendError(f"{what} a result store that keeps what all can read: {self.instead}")
