"""Messages that were given up: kept until somebody replays or drops them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chervil.drivers.contracts import DeadLetter
from chervil.drivers.sqlite.database import Link


def find(link: Link, queue: str | None, limit: int, after: str) -> list[DeadLetter]:
    """List them, oldest first, behind the key ``after``."""
    (first,) = _numbers([after]) or (0,)
    rows = link.execute(
        "SELECT dead_letters.id, queues.name, head, body, reason, detail, deliveries, died_at "
        "FROM dead_letters CROSS JOIN queues ON queues.id = dead_letters.queue "
        "WHERE dead_letters.id > ? AND (? IS NULL OR queues.name = ?) "
        "ORDER BY dead_letters.id LIMIT ?",
        (first, queue, queue, limit),
    ).fetchall()
    return [DeadLetter(str(number), *rest) for number, *rest in rows]


def replay(link: Link, keys: Sequence[str], now: float) -> tuple[int, set[int]]:
    """Put them back on their queues as new messages; how many, and which queues."""
    found = 0
    queues: set[int] = set()
    for number in _numbers(keys):
        row = link.execute(
            "INSERT INTO messages (queue, rank, head, body) SELECT queue, rank, head, body "
            "FROM dead_letters WHERE id = ? RETURNING id, queue, rank",
            (number,),
        ).fetchall()
        for message, queue, rank in row:
            link.execute(
                "INSERT INTO ready (queue, rank, id, deliveries, since) VALUES (?, ?, ?, 0, ?)",
                (queue, rank, message, now),
            )
            queues.add(queue)
            found += 1
        link.execute("DELETE FROM dead_letters WHERE id = ?", (number,))
    return found, queues


def drop(link: Link, keys: Sequence[str]) -> int:
    """Delete them; how many."""
    return link.executemany(
        "DELETE FROM dead_letters WHERE id = ?", [(number,) for number in _numbers(keys)]
    ).rowcount


def _numbers(keys: Iterable[str]) -> list[int]:
    """The numbers that keys stand for; what is no key of ours stands for nothing."""
    return [int(key) for key in keys if key.isascii() and key.isdigit() and len(key) < 19]
