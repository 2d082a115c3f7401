"""What has arrived of chords, in an SQLite file.

The arrivals of one exchange at the same join, which under load are many, are counted
with one update.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from chervil.drivers.chords import Arrival, Joined, pack, unpack
from chervil.drivers.sqlite.database import Link, blob
from chervil.wire.message import Message

#: Seconds after which a join that nothing arrives at any more is given up.
KEPT: Final = 90 * 86400.0
#: The same for one whose body was sent.
CLOSED_KEPT: Final = 86400.0

_NOTE = (
    "INSERT INTO joins (name, size, expires) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
    "size = max(size, excluded.size), expires = iif(closed, expires, excluded.expires) "
    "RETURNING id, fired, closed"
)
_ADD = "INSERT OR IGNORE INTO arrivals (join_id, member, place, value) VALUES (?, ?, ?, ?)"
_COUNT = (
    "UPDATE joins SET arrived = arrived + ? WHERE id = ? "
    "RETURNING size > 0 AND arrived >= size + wider"
)


def arrive(
    link: Link, arrivals: Iterable[Arrival], now: float, again: bool = False
) -> list[Arrival]:
    """Record arrivals, inside a transaction; those that fire.

    :param again: also those that have fired before; and triggers are kept.
    """
    by_join: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        by_join.setdefault(arrival.join, []).append(arrival)
    fired: list[Arrival] = []
    for name, members in by_join.items():
        size = max(arrival.size for arrival in members)
        row = link.execute(_NOTE, (name, size, now + KEPT)).fetchone()
        number, first, closed = row
        if closed:
            continue
        if first is not None:
            fired += [arrival for arrival in members if again and arrival.member == first]
            continue
        last = _add(link, number, members)
        if last is not None:
            link.execute("UPDATE joins SET fired = ? WHERE id = ?", (last.member, number))
            if again:
                row = (number, now, blob(pack(last.trigger)))
                link.execute("INSERT OR REPLACE INTO triggers VALUES (?, ?, ?)", row)
            fired.append(last)
    return fired


def _add(link: Link, number: int, members: Sequence[Arrival]) -> Arrival | None:
    """Add members to a join; the one that fires, if one does."""
    added = link.executemany(
        _ADD, [(number, a.member, a.index, blob(a.value)) for a in members]
    ).rowcount
    (whole,) = link.execute(_COUNT, (max(added, 0), number)).fetchone()
    failed = next((arrival for arrival in members if arrival.failed), None)
    return failed or (members[-1] if whole else None)


def joined(link: Link, name: str) -> Joined | None:
    """What has arrived at a join."""
    row = link.execute("SELECT id, fired, closed FROM joins WHERE name = ?", (name,)).fetchone()
    if row is None or row[2]:
        return None
    rows = link.execute(
        "SELECT value FROM arrivals WHERE join_id = ? ORDER BY place, id", (row[0],)
    ).fetchall()
    return Joined(row[1] is not None, [value for (value,) in rows])


def widen(link: Link, name: str, by: int, now: float) -> None:
    """Let a join wait for more."""
    link.execute(
        "INSERT INTO joins (name, wider, expires) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET wider = wider + excluded.wider",
        (name, by, now + KEPT),
    )


def close(link: Link, names: Collection[str], now: float) -> None:
    """Forget what arrived, inside a transaction."""
    for name in names:
        (number,) = link.execute(
            "INSERT INTO joins (name, closed, expires) VALUES (?, 1, ?) ON CONFLICT (name) "
            "DO UPDATE SET closed = 1, expires = excluded.expires RETURNING id",
            (name, now + CLOSED_KEPT),
        ).fetchone()
        link.execute("DELETE FROM arrivals WHERE join_id = ?", (number,))
        link.execute("DELETE FROM triggers WHERE join_id = ?", (number,))


def sent(link: Link, names: Iterable[str]) -> None:
    """Keep their triggers no longer, inside a transaction."""
    link.executemany(
        "DELETE FROM triggers WHERE join_id = (SELECT id FROM joins WHERE name = ?)",
        [(name,) for name in names],
    )


def some_unsent(link: Link, since: float) -> bool:
    """Whether :func:`unsent` would find something; takes no write lock."""
    return bool(
        link.execute("SELECT 1 FROM triggers WHERE since <= ? LIMIT 1", (since,)).fetchone()
    )


def unsent(link: Link, since: float, now: float, most: int) -> dict[str, Message]:
    """Triggers that were not sent since then, inside a transaction."""
    rows = link.execute(
        "SELECT join_id, name, message FROM triggers JOIN joins ON joins.id = join_id "
        "WHERE since <= ? ORDER BY since LIMIT ?",
        (since, most),
    ).fetchall()
    link.executemany(
        "UPDATE triggers SET since = ? WHERE join_id = ?", [(now, number) for number, _, _ in rows]
    )
    return {name: unpack(message) for _, name, message in rows}


def expire(link: Link, now: float, most: int) -> int:
    """Forget joins at which nothing happens any more, inside a transaction."""
    rows = link.execute(
        "SELECT id FROM joins WHERE expires <= ? ORDER BY expires LIMIT ?", (now, most)
    ).fetchall()
    for table, column in (("arrivals", "join_id"), ("triggers", "join_id"), ("joins", "id")):
        link.executemany(f"DELETE FROM {table} WHERE {column} = ?", rows)
    link.execute("DELETE FROM groups WHERE expires > 0 AND expires <= ?", (now,))
    return len(rows)


def something_expired(link: Link, now: float) -> bool:
    """Whether :func:`expire` would find something; takes no write lock."""
    row = link.execute(
        "SELECT EXISTS (SELECT 1 FROM joins WHERE expires <= ?) OR EXISTS "
        "(SELECT 1 FROM groups WHERE expires > 0 AND expires <= ?)",
        (now, now),
    ).fetchone()
    return bool(row[0])
