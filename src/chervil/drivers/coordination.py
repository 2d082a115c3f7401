"""What must hold across nodes: leases, records, and writes that only the holder may make.

The same rules as in :mod:`chervil.drivers.contracts` hold: everything is in batches, a
call returns when what it did is stored, and any thread may use the object.

A *table* is a set of records under one name, such as the periodic tasks of an app. Each
record has a version, which never comes twice in its table, so that who has read one can
replace just that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from chervil.drivers.contracts import Broker
from chervil.wire.message import Message

#: For ``Record.version``: whatever is there, or nothing.
ANY = -1
#: For ``Record.version``: it must not be there.
NEW = 0


class Grant(msgspec.Struct, frozen=True):
    """Who holds a lease."""

    owner: str
    #: Grows each time that the lease changes hands; a write that carries it is refused
    #: when somebody else has had the lease since.
    token: int
    #: Seconds that are left of it.
    remaining: float


class Record(msgspec.Struct, frozen=True):
    """A value that is kept under a key."""

    key: str
    data: bytes
    #: Of what is stored; for what is to be stored, the one that it replaces.
    version: int = ANY


class Firing(msgspec.Struct, frozen=True):
    """A record that is replaced, and messages that are sent by just that."""

    record: Record
    #: Stored in the broker, which must be this very store (:meth:`Coordinator.shares`).
    publish: Sequence[Message] = ()
    #: Kept here until somebody says that they are :meth:`Coordinator.sent`.
    pending: Sequence[Message] = ()


class Watch(Protocol):
    """Tells of changes to a table; belongs to one thread, except ``wake``."""

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; True when the table may have changed.

        :raises OperationalError: the store is lost; close it and make another.
        """
        ...

    def wake(self) -> None:
        """End a ``wait`` early. From any thread or signal handler."""
        ...

    def close(self) -> None:
        """Doing it again changes nothing."""
        ...


class Coordinator(Protocol):
    """State that all nodes share.

    Each method raises :class:`~chervil.exceptions.OperationalError` when the store does
    not answer; nothing is known to be stored then.
    """

    # --- leases, on the clock of the store

    def acquire(self, name: str, owner: str, seconds: float) -> Grant:
        """Take a lease that nobody holds, or renew the own one; who holds it now."""
        ...

    def release(self, name: str, token: int) -> None:
        """Give it up, if it is still that one."""
        ...

    def holder(self, name: str) -> Grant | None:
        """Who holds it."""
        ...

    # --- records

    def put(self, table: str, records: Sequence[Record]) -> Sequence[int]:
        """Store records; their new versions, 0 where another one than the given one is
        there. Each is on its own: one that is refused stops no other."""
        ...

    def get(self, table: str, keys: Sequence[str] | None = None) -> Sequence[Record]:
        """The records of these keys, or all; those that there are, in any order."""
        ...

    def delete(self, table: str, keys: Sequence[str]) -> int:
        """Delete; how many there were."""
        ...

    def changes(self, table: str) -> int:
        """A number that grows with every ``put`` and ``delete`` that changed something."""
        ...

    def watch(self, table: str) -> Watch:
        """Be told of every ``put`` and ``delete`` from now on."""
        ...

    # --- what only the holder of a lease may do

    def fire(self, table: str, lease: str, token: int, firings: Sequence[Firing]) -> Sequence[int]:
        """Replace records and send their messages, as the holder of a lease.

        Record and messages of one firing are stored together or not at all. Watches
        are not told.

        :returns: the new versions; 0 where the record is another one by now, so that
            nothing of that firing was stored.
        :raises LeaseLost: somebody else has had the lease; nothing was stored.
        """
        ...

    def pending(self, table: str, limit: int = 1000) -> Sequence[Message]:
        """Messages that are to be sent still, the oldest among the first."""
        ...

    def sent(self, table: str, ids: Sequence[str]) -> None:
        """The broker has these messages."""
        ...

    def shares(self, broker: Broker) -> bool:
        """Whether ``fire`` can store messages in that broker."""
        ...

    def close(self) -> None:
        """Release connections; the object can be used again afterwards."""
        ...
