"""What the brokers and stores of one name in this process have in common.

Rules: everything is read and changed under ``lock``; sockets are knocked at
after it was released. A space lives as long as anything that uses it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from chervil.drivers.contracts import DeadLetter, Depth
from chervil.drivers.memory.joins import Joins
from chervil.exceptions import ImproperlyConfigured
from chervil.wire.envelope import encode_head
from chervil.wire.message import Message, Outcome

if TYPE_CHECKING:
    from chervil.drivers.memory.consumer import MemoryConsumer
    from chervil.drivers.memory.fanout import MemoryMailbox
    from chervil.drivers.memory.listener import MemoryListener


class Entry(msgspec.Struct, gc=False):
    """A message that is stored."""

    #: Its place among messages of the same rank.
    number: int
    task_id: str
    queue: str
    #: The priority with its sign changed: smaller goes first.
    rank: int
    head: bytes
    body: bytes
    due: float = 0.0
    deliveries: int = 0
    #: Unix time from which on it waits.
    since: float = 0.0


class Line:
    """The messages of one queue that are not claimed."""

    __slots__ = ("delayed", "ready")

    def __init__(self) -> None:
        self.ready: list[tuple[int, int, Entry]] = []
        self.delayed: list[tuple[float, int, Entry]] = []


class Space:
    """Queues, claims, dead letters and results of one name."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.numbers = count(1)
        self.lines: dict[str, Line] = {}
        self.consumers: dict[int, MemoryConsumer] = {}
        self.dead: dict[int, tuple[Entry, DeadLetter]] = {}
        self.revoked: dict[str, float] = {}
        self.results: dict[str, Outcome] = {}
        self.expiries: list[tuple[float, str]] = []
        self.listeners: list[MemoryListener] = []
        self.joins = Joins()
        self.groups: dict[str, tuple[float, bytes]] = {}
        self.mailboxes: list[MemoryMailbox] = []

    # --- all of these are called with the lock held

    def line(self, queue: str) -> Line:
        """A queue, which is made when it is new."""
        line = self.lines.get(queue)
        if line is None:
            line = self.lines[queue] = Line()
        return line

    def pack(self, messages: Iterable[Message]) -> list[Entry]:
        """Turn messages into entries, which may fail; needs no lock."""
        return [
            Entry(
                0,
                str(message.headers.get("id", "")),
                message.queue,
                -message.priority,
                encode_head(message),
                message.body,
                message.due,
            )
            for message in messages
        ]

    def insert(self, entries: Sequence[Entry], now: float) -> set[str]:
        """Store entries; the queues whose consumers should look."""
        changed: set[str] = set()
        for entry in entries:
            entry.number = next(self.numbers)
            if entry.due > now:
                if self.delay(entry, entry.due):
                    changed.add(entry.queue)
            else:
                self.make_ready(entry, now)
                changed.add(entry.queue)
        return changed

    def make_ready(self, entry: Entry, now: float) -> None:
        """Let it be claimed."""
        entry.since = now
        heappush(self.line(entry.queue).ready, (entry.rank, entry.number, entry))

    def delay(self, entry: Entry, due: float) -> bool:
        """Let it be claimed later; whether it is the next one that is due."""
        line = self.line(entry.queue)
        heappush(line.delayed, (due, entry.number, entry))
        return line.delayed[0][2] is entry

    def promote(self, queue: str, now: float) -> float | None:
        """Make ready what is due; when the next one is due."""
        delayed = self.line(queue).delayed
        while delayed and delayed[0][0] <= now:
            due, _, entry = heappop(delayed)
            self.make_ready(entry, due)
        return delayed[0][0] if delayed else None

    def bury(self, entry: Entry, reason: str, detail: str, now: float) -> None:
        """Move it to the dead letters."""
        key = next(self.numbers)
        letter = DeadLetter(
            str(key), entry.queue, entry.head, entry.body, reason, detail, entry.deliveries, now
        )
        self.dead[key] = (entry, letter)

    def put(self, outcomes: Sequence[Outcome], now: float) -> list[MemoryListener]:
        """Store outcomes; the listeners that have news."""
        told: list[MemoryListener] = []
        for outcome in outcomes:
            known = self.results.get(outcome.task_id)
            if known is not None and known.status == "SUCCESS" and not 0 < known.expires <= now:
                continue
            self.results[outcome.task_id] = outcome
            if outcome.expires > 0:
                heappush(self.expiries, (outcome.expires, outcome.task_id))
            for listener in self.listeners:
                if listener.note(outcome):
                    told.append(listener)
        return told

    def depth(self, queue: str, now: float) -> Depth:
        """What a queue holds."""
        self.promote(queue, now)
        line = self.line(queue)
        since = min((entry.since for _, _, entry in line.ready), default=now)
        return Depth(
            ready=len(line.ready),
            delayed=len(line.delayed),
            claimed=sum(
                entry.queue == queue
                for consumer in self.consumers.values()
                for entry in consumer.held.values()
            ),
            dead=sum(letter.queue == queue for _, letter in self.dead.values()),
            oldest=max(0.0, now - since),
        )

    def consumers_of(self, queues: Iterable[str]) -> list[MemoryConsumer]:
        """Who should be woken when these queues have changed."""
        wanted = set(queues)
        return [c for c in self.consumers.values() if not wanted.isdisjoint(c.names)]


_spaces: weakref.WeakValueDictionary[str, Space] = weakref.WeakValueDictionary()
_spaces_lock = threading.Lock()


def space_of(url: str, options: Mapping[str, Any] | None) -> Space:
    """The space of ``memory://name``; the same one for the same name.

    :raises ImproperlyConfigured: there are options, or the URL is another one's.
    """
    scheme, _, name = url.partition(":")
    if scheme.lower() != "memory" or "?" in name:
        raise ImproperlyConfigured(f"{url!r} is not of the form memory:// or memory://name")
    if options:
        names = ", ".join(map(repr, sorted(options)))
        raise ImproperlyConfigured(f"{url!r} has no options, but was given {names}")
    name = name.strip("/")
    with _spaces_lock:
        space = _spaces.get(name)
        if space is None:
            space = _spaces[name] = Space()
        return space


# --- a child gets a copy of each space; no thread may be halfway through a change ----

_held: list[Any] = []


def _before_fork() -> None:
    _spaces_lock.acquire()
    _held.append(_spaces_lock)
    for space in list(_spaces.values()):
        space.lock.acquire()
        _held.append(space.lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
