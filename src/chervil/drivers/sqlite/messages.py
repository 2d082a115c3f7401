"""The statements that move messages between the tables, inside a transaction.

Numbers of messages are handled as runs, pairs of the first and last of numbers
without a gap: what was claimed together was mostly sent together, and one
statement a run costs a fraction of one a message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from chervil import clock
from chervil.drivers.contracts import Depth
from chervil.drivers.sqlite.database import Link, blob
from chervil.exceptions import ImproperlyConfigured, MessageTooLarge
from chervil.wire.envelope import encode_head
from chervil.wire.message import Message

#: SQLite's own limit for a row is 1,000,000,000 bytes; some are for its columns.
MAX_SIZE = 999_000_000

#: Rows in one INSERT: it saves a quarter of the time of one statement a row.
_ROWS = 20
_INSERT = "INSERT INTO messages (queue, rank, head, body) VALUES (?, ?, ?, ?)"
_INSERT_MANY = _INSERT + ", (?, ?, ?, ?)" * (_ROWS - 1)
WANTING = "SELECT name FROM wants WHERE queue = ?"
_READY = "INSERT INTO ready (queue, rank, id, deliveries, since) "
_DELAYED = "INSERT INTO delayed (queue, due, id, rank, deliveries) "
_CLAIMED = "FROM claims CROSS JOIN messages ON messages.id = claims.id "

#: Delayed messages that are made ready in one go.
_PROMOTE = 1000
_LARGEST = 2**63 - 1
#: Bodies above this take the way that checks sizes.
_SMALL = 1 << 20

Runs = Sequence[tuple[int, int]]


class Packed(NamedTuple):
    """A message as it is stored."""

    queue: str
    rank: int
    head: bytes | bytearray
    body: bytes | bytearray
    due: float


def pack(message: Message) -> Packed:
    """Turn a message into its row.

    :raises EncodeError: a header has no JSON form.
    :raises MessageTooLarge: SQLite cannot store it.
    """
    head, body = encode_head(message), message.body
    if len(head) + len(body) > MAX_SIZE:
        raise MessageTooLarge(
            f"the message of task {message.id} has {len(head) + len(body)} bytes; "
            f"SQLite stores up to {MAX_SIZE}"
        )
    return Packed(message.queue, -message.priority, blob(head), blob(body), message.due)


def number_queues(link: Link, names: Iterable[str]) -> None:
    """Make sure that the link knows the numbers of these queues; not in a transaction."""
    known = link.queues
    for name in names:
        if name not in known:
            known[name] = _number(link, name)


def _number(link: Link, name: str) -> int:
    try:
        name.encode()
    except UnicodeEncodeError as exc:
        raise ImproperlyConfigured(f"{name!r} cannot be the name of a queue: {exc}") from None
    find = "SELECT id FROM queues WHERE name = ?"
    row = link.execute(find, (name,)).fetchone()
    if row is None:
        link.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (name,))
        row = link.execute(find, (name,)).fetchone()
    return int(row[0])


def runs(ids: list[int]) -> Runs:
    """The runs that these different numbers make; sorts them."""
    if not ids:
        return ()
    ids.sort()
    first, last = ids[0], ids[-1]
    if last - first == len(ids) - 1:
        return ((first, last),)
    found: list[tuple[int, int]] = []
    last = first
    for number in ids[1:]:
        if number != last + 1:
            found.append((first, last))
            first = number
        last = number
    found.append((first, last))
    return found


# --- in --------------------------------------------------------------------------


def is_usual(message: Message) -> bool:
    """Whether :func:`insert_one` can store it: due now, small, its head encoded."""
    return message.due <= 0 and message.head is not None and len(message.body) < _SMALL


def insert_one(message: Message, link: Link) -> list[tuple[str]]:
    """Store one usual message with as few steps as possible; the sockets of the
    consumers that should look.

    :raises KeyError: the link does not know the number of the queue.
    """
    execute, head = link.execute, message.head
    assert head is not None
    queue, rank = link.queues[message.queue], -message.priority
    row = (queue, rank, bytearray(head), bytearray(message.body))
    number = execute(_INSERT, row).lastrowid
    execute(_READY + "VALUES (?, ?, ?, 0, ?)", (queue, rank, number, clock.now()))
    return execute(WANTING, (queue,)).fetchall()


def insert(link: Link, packed: Sequence[Packed], now: float) -> set[int]:
    """Store messages; the numbers of the queues whose consumers should look."""
    first = _insert_rows(link, packed)
    numbers = link.queues
    if not any(row.due > now for row in packed):
        link.execute(
            _READY + "SELECT queue, rank, id, 0, ? FROM messages WHERE id BETWEEN ? AND ?",
            (now, first, first + len(packed) - 1),
        )
        return {numbers[row.queue] for row in packed}
    ready: list[tuple[int, int, int, float]] = []
    delayed: list[tuple[int, float, int, int]] = []
    for number, row in enumerate(packed, first):
        if row.due > now:
            delayed.append((numbers[row.queue], row.due, number, row.rank))
        else:
            ready.append((numbers[row.queue], row.rank, number, now))
    earlier = _earlier(link, [(queue, due) for queue, due, _, _ in delayed])
    link.executemany(_READY + "VALUES (?, ?, ?, 0, ?)", ready)
    link.executemany(_DELAYED + "VALUES (?, ?, ?, ?, 0)", delayed)
    return earlier.union(row[0] for row in ready)


def _insert_rows(link: Link, packed: Sequence[Packed]) -> int:
    """Store the rows under numbers without a gap; the first one."""
    numbers = link.queues
    count = len(packed)
    whole = count - count % _ROWS
    cursor: sqlite3.Cursor | None = None
    for start in range(0, whole, _ROWS):
        values: list[object] = []
        for queue, rank, head, body, _ in packed[start : start + _ROWS]:
            values += (numbers[queue], rank, head, body)
        cursor = link.execute(_INSERT_MANY, values)
    for queue, rank, head, body, _ in packed[whole:]:
        cursor = link.execute(_INSERT, (numbers[queue], rank, head, body))
    assert cursor is not None
    assert cursor.lastrowid is not None
    return cursor.lastrowid - count + 1


def _earlier(link: Link, dues: Iterable[tuple[int, float]]) -> set[int]:
    """The queues of which nobody knows yet that something is due so early."""
    first: dict[int, float] = {}
    for queue, due in dues:
        first[queue] = min(due, first.get(queue, due))
    return {queue for queue, due in first.items() if is_earliest(link, queue, due)}


def is_earliest(link: Link, queue: int, due: float) -> bool:
    """Whether nothing in the queue is due before that time."""
    known = next_due(link, queue)
    return known is None or due < known


# --- out -------------------------------------------------------------------------


def next_due(link: Link, queue: int) -> float | None:
    """The Unix time at which the queue's next delayed message is due."""
    row = link.execute("SELECT min(due) FROM delayed WHERE queue = ?", (queue,)).fetchone()
    return row[0]  # type: ignore[no-any-return]


def promote(link: Link, queue: int, now: float) -> float | None:
    """Make ready what is due, a bounded number; when the next one is due."""
    due = next_due(link, queue)
    if due is None or due > now:
        return due
    last = link.execute(
        "SELECT due, id FROM delayed WHERE queue = ? AND due <= ? "
        "ORDER BY due, id LIMIT 1 OFFSET ?",
        (queue, now, _PROMOTE - 1),
    ).fetchone() or (now, _LARGEST)
    chosen = "FROM delayed WHERE queue = ? AND (due, id) <= (?, ?)"
    link.execute(_READY + "SELECT queue, rank, id, deliveries, due " + chosen, (queue, *last))
    link.execute("DELETE " + chosen, (queue, *last))
    return next_due(link, queue)


def claim(
    link: Link, queue: int, owner: int, limit: int
) -> list[tuple[int, int, int, bytes, bytes]]:
    """Claim the first messages: id, rank, deliveries before this one, head, body."""
    rows = link.execute(
        "SELECT ready.id, ready.rank, ready.deliveries, messages.head, messages.body "
        "FROM ready CROSS JOIN messages ON messages.id = ready.id "
        "WHERE ready.queue = ? ORDER BY ready.rank, ready.id LIMIT ?",
        (queue, limit),
    ).fetchall()
    if rows:
        # They are the front of the queue, so the last one's place names them all.
        last, rank = rows[-1][:2]
        link.execute(
            "INSERT INTO claims (id, owner, deliveries) SELECT id, ?, deliveries + 1 "
            "FROM ready WHERE queue = ? AND (rank, id) <= (?, ?)",
            (owner, queue, rank, last),
        )
        link.execute(
            "DELETE FROM ready WHERE queue = ? AND (rank, id) <= (?, ?)", (queue, rank, last)
        )
    return rows


# --- back, and away ----------------------------------------------------------------


def acknowledge(link: Link, owner: int, gone: Runs) -> int:
    """Delete claimed messages; how many were this owner's."""
    found = link.executemany(
        f"DELETE FROM claims WHERE id BETWEEN ? AND ? AND owner = {owner:d}", gone
    ).rowcount
    link.executemany("DELETE FROM messages WHERE id BETWEEN ? AND ?", gone)
    return found


def requeue(link: Link, owner: int, number: int, now: float, uncounted: int) -> int:
    """Put a claimed message back at its old place; 1 if it was this owner's."""
    link.execute(
        _READY + "SELECT queue, rank, claims.id, deliveries - ?, ? " + _CLAIMED + "WHERE "
        "claims.id = ? AND owner = ?",
        (uncounted, now, number, owner),
    )
    return _release(link, owner, number)


def defer(link: Link, owner: int, number: int, until: float, uncounted: int) -> int:
    """Put a claimed message among the delayed ones; 1 if it was this owner's."""
    link.execute(
        _DELAYED + "SELECT queue, ?, claims.id, rank, deliveries - ? " + _CLAIMED + "WHERE "
        "claims.id = ? AND owner = ?",
        (until, uncounted, number, owner),
    )
    return _release(link, owner, number)


def bury(link: Link, owner: int, number: int, now: float, reason: str, detail: str) -> int:
    """Move a claimed message to the dead letters; 1 if it was this owner's."""
    link.execute(
        "INSERT INTO dead_letters (queue, rank, deliveries, died_at, reason, detail, head, body) "
        "SELECT queue, rank, deliveries, ?, ?, ?, head, body " + _CLAIMED + "WHERE "
        "claims.id = ? AND owner = ?",
        (now, _storable(reason), _storable(detail), number, owner),
    )
    return acknowledge(link, owner, ((number, number),))


def _storable(text: str) -> str:
    """Tracebacks may contain what is no character, such as half of a pair."""
    return text.encode("utf-8", "backslashreplace").decode()


def _release(link: Link, owner: int, number: int) -> int:
    return link.execute("DELETE FROM claims WHERE id = ? AND owner = ?", (number, owner)).rowcount


def give_back(link: Link, owner: int, now: float, uncounted: int) -> dict[int, int]:
    """Make everything ready again that an owner had claimed; how many by queue."""
    found = dict(
        link.execute(
            "SELECT queue, count(*) " + _CLAIMED + "WHERE owner = ? GROUP BY queue", (owner,)
        ).fetchall()
    )
    if found:
        link.execute(
            _READY + "SELECT queue, rank, claims.id, deliveries - ?, ? " + _CLAIMED + "WHERE "
            "owner = ?",
            (uncounted, now, owner),
        )
        link.execute("DELETE FROM claims WHERE owner = ?", (owner,))
    return found


# --- looking and tidying -----------------------------------------------------------


def purge(link: Link, queue: str, limit: int) -> int:
    """Delete up to ``limit`` messages that wait, ready or delayed; how many."""
    row = link.execute("SELECT id FROM queues WHERE name = ?", (queue,)).fetchone()
    if row is None:
        return 0
    total = 0
    for table, place in (("ready", "rank"), ("delayed", "due")):
        rows = link.execute(
            f"SELECT {place}, id FROM {table} WHERE queue = ? ORDER BY {place}, id LIMIT ?",
            (row[0], limit - total),
        ).fetchall()
        if rows:
            link.execute(
                f"DELETE FROM {table} WHERE queue = ? AND ({place}, id) <= (?, ?)",
                (row[0], *rows[-1]),
            )
            gone = runs([number for _, number in rows])
            link.executemany("DELETE FROM messages WHERE id BETWEEN ? AND ?", gone)
            total += len(rows)
    return total


def depths(link: Link, queues: Sequence[str] | None, now: float) -> dict[str, Depth]:
    """What these queues hold, or all that are known."""
    names = dict(link.execute("SELECT id, name FROM queues").fetchall())
    if queues is not None:
        names = {number: name for number, name in names.items() if name in set(queues)}
    among = f"WHERE queue IN ({', '.join(map(str, names))}) GROUP BY queue"
    ready = _by_queue(link, "SELECT queue, count(*), min(since) FROM ready " + among)
    # What is due is ready, though nobody has moved it yet.
    delayed = _by_queue(
        link, "SELECT queue, count(*), sum(due <= ?), min(due) FROM delayed " + among, now
    )
    claimed = _by_queue(link, "SELECT queue, count(*) " + _CLAIMED + among)
    dead = _by_queue(link, "SELECT queue, count(*) FROM dead_letters " + among)
    found = {}
    for number, name in names.items():
        waiting, since = ready.get(number, (0, now))
        later, due, first = delayed.get(number, (0, 0, now))
        found[name] = Depth(
            ready=waiting + due,
            delayed=later - due,
            claimed=claimed.get(number, (0,))[0],
            dead=dead.get(number, (0,))[0],
            oldest=max(0.0, now - min(since, first)),
        )
    return found


def _by_queue(link: Link, query: str, *values: float) -> dict[int, tuple[Any, ...]]:
    return {row[0]: row[1:] for row in link.execute(query, values).fetchall()}
