"""A process's ear at the result store."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Sequence

from chervil import clock
from chervil.drivers.sqlite import outcomes
from chervil.drivers.sqlite.database import Database, Link
from chervil.drivers.sqlite.wake import WAKE, Ear, Places
from chervil.exceptions import BackendError
from chervil.states import READY_STATES
from chervil.wire.message import Outcome

#: Seconds between looks whether something was stored without a datagram arriving:
#: the first interval, and the longest, which it grows to while that never happens.
_FIRST_CHECK = 0.25
_LAST_CHECK = 2.0
#: Seconds that nobody may have waited for others' tasks before stores are told
#: that they need not knock for them.
_UNFLAG = 5.0


class SqliteListener:
    """See :class:`chervil.drivers.contracts.Listener`."""

    def __init__(self, database: Database, places: Places, address: str) -> None:
        self.address = address
        self._store = database
        self._places = places
        self._database = Database(database.location, BackendError)
        #: Watched ids to a mark of what was last reported.
        self._watched: dict[str, object] = {}
        #: Those of them that others sent.
        self._foreign: set[str] = set()
        self._flagged = False
        self._flag_used = 0.0
        self._check = _FIRST_CHECK
        self._closed = False
        self._pid = os.getpid()
        self._database.read(Link.changed)  # the file must exist before its sockets do
        self._ear = Ear(places, "l")
        try:
            self._database.write(
                lambda link: link.execute(
                    "INSERT INTO listeners (name, address) VALUES (?, ?)", (self._ear.name, address)
                )
            )
        except BaseException:
            self._ear.close()
            raise

    def watch(self, ids: Collection[str], sent_here: bool) -> bool:
        """See :meth:`chervil.drivers.contracts.Listener.watch`."""
        for task_id in ids:
            self._watched.setdefault(task_id, None)
        if not sent_here:
            self._foreign.update(ids)
            self._flag_used = time.monotonic()
            if not self._flagged:
                self._flag(True)
        return False

    def unwatch(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.unwatch`."""
        for task_id in ids:
            self._watched.pop(task_id, None)
            self._foreign.discard(task_id)

    def _flag(self, wanted: bool) -> None:
        self._store.write(
            lambda link: link.execute(
                "UPDATE listeners SET foreign_ids = ? WHERE name = ?", (wanted, self._ear.name)
            )
        )
        self._flagged = wanted

    def wait(self, timeout: float) -> Sequence[Outcome]:
        """See :meth:`chervil.drivers.contracts.Listener.wait`."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            watching = bool(self._watched)
            heard = self._ear.wait(min(left, self._check) if watching else left)
            if self._closed:
                return []
            found = self._understand(heard) if heard else self._look_again(watching)
            if found or WAKE in heard or time.monotonic() >= deadline:
                return found

    def _understand(self, heard: Sequence[bytes]) -> list[Outcome]:
        """What datagrams tell of watched tasks."""
        found: list[Outcome] = []
        others: list[Outcome] = []
        unsure: set[str] = set()
        for datagram in heard:
            if not datagram:  # something of others was stored
                unsure.update(self._foreign.copy())
                continue
            for task_id, status, payload, expires in outcomes.read_news(datagram):
                if task_id not in self._watched:
                    if payload is not None and status in READY_STATES:
                        others.append(Outcome(task_id, status, payload, expires))
                elif payload is None:
                    unsure.add(task_id)
                else:
                    found.append(Outcome(task_id, status, payload, expires))
        found = self._fresh(found)
        if unsure:
            found += self._read(unsure)
        return found + others

    def _look_again(self, watching: bool) -> list[Outcome]:
        """Find what was stored without a datagram arriving."""
        idle = self._flagged and not self._foreign
        if idle and time.monotonic() - self._flag_used > _UNFLAG:
            self._flag(False)
        if not watching:
            return []
        changed = self._database.read(Link.changed)
        found = self._read(list(self._watched)) if changed else []
        self._check = _FIRST_CHECK if found else min(self._check * 1.5, _LAST_CHECK)
        return found

    def _read(self, ids: Collection[str]) -> list[Outcome]:
        return self._fresh(self._database.read(lambda link: outcomes.get(link, ids, clock.now())))

    def _fresh(self, found: Iterable[Outcome]) -> list[Outcome]:
        """Leave out what was reported before."""
        fresh: list[Outcome] = []
        watched = self._watched
        for outcome in found:
            mark = (outcome.status, hash(outcome.payload))
            if outcome.task_id in watched and watched[outcome.task_id] != mark:
                watched[outcome.task_id] = mark
                fresh.append(outcome)
        return fresh

    def wake(self) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.wake`."""
        self._ear.wake()

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Listener.close`."""
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():
            return
        try:
            outcomes.forget_listeners(self._store, self._places, [self._ear.name])
        finally:
            self._ear.wake()  # a wait in another thread ends
            self._ear.close()
            self._database.close()
