"""Tasks that must not run, remembered until they expire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from chervil.drivers.contracts import Delivery
from chervil.drivers.sqlite.database import Link
from chervil.exceptions import DecodeError
from chervil.wire.envelope import decode_head

#: Rows that are deleted in one go.
_EXPIRE = 1000


def add(link: Link, ids: Iterable[str], expires: float) -> None:
    """Remember these tasks until a Unix time; a later one stays."""
    link.executemany(
        "INSERT INTO revoked (task_id, expires) VALUES (?, ?) ON CONFLICT (task_id) "
        "DO UPDATE SET expires = max(expires, excluded.expires)",
        [(task_id, expires) for task_id in ids],
    )


def mark(link: Link, claimed: Sequence[Delivery], now: float) -> None:
    """Mark the deliveries of tasks that were revoked."""
    if not link.execute("SELECT 1 FROM revoked LIMIT 1").fetchone():
        return
    by_id: dict[str, list[Delivery]] = {}
    for delivery in claimed:
        try:
            task_id = decode_head(delivery.head).id
        except DecodeError:  # whoever runs it finds out and reports it
            continue
        by_id.setdefault(task_id, []).append(delivery)
    rows = link.execute(
        "SELECT task_id FROM revoked WHERE expires > ? AND task_id IN "
        "(SELECT value FROM json_each(?))",
        (now, msgspec.json.encode(list(by_id)).decode()),
    ).fetchall()
    for (task_id,) in rows:
        for delivery in by_id[task_id]:
            delivery.revoked = True


def held(link: Link, ids: Iterable[str]) -> set[str]:
    """Those of these tasks whose messages somebody has claimed."""
    wanted = set(ids)
    found: set[str] = set()
    rows = link.execute("SELECT m.head FROM claims c JOIN messages m ON m.id = c.id")
    for (head,) in rows.fetchall():
        try:
            found.add(decode_head(bytes(head)).id)
        except DecodeError:
            continue
    return wanted & found


def known(link: Link, now: float, limit: int) -> list[str]:
    """Tasks that are remembered now."""
    rows = link.execute("SELECT task_id FROM revoked WHERE expires > ? LIMIT ?", (now, limit))
    return [task_id for (task_id,) in rows.fetchall()]


def expire(link: Link, now: float) -> int:
    """Forget what has expired, a bounded number; how many."""
    return link.execute(
        "DELETE FROM revoked WHERE task_id IN "
        "(SELECT task_id FROM revoked WHERE expires <= ? LIMIT ?)",
        (now, _EXPIRE),
    ).rowcount
