"""Storing outcomes, and telling those who wait for them.

A datagram carries the outcomes themselves as MessagePack, so that a client that
waits reads nothing from the file; what is large or unsure is only named in it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from chervil.drivers.sqlite.database import Database, Link, blob
from chervil.drivers.sqlite.wake import Places
from chervil.exceptions import OperationalError
from chervil.wire.message import Outcome

_ROWS = 20
_ROW = "(?, ?, ?, ?)"
_HEAD = "INSERT INTO results (task_id, status, payload, expires) VALUES "
_TAIL = (
    " ON CONFLICT (task_id) DO UPDATE SET status = excluded.status, "
    "payload = excluded.payload, expires = excluded.expires "
    "WHERE status <> 'SUCCESS' OR (expires > 0 AND expires <= ?)"
)
_PUT = _HEAD + _ROW + _TAIL
_PUT_MANY = _HEAD + ", ".join([_ROW] * _ROWS) + _TAIL

#: Payload bytes up to which an outcome travels in a datagram, and per datagram.
_SMALL = 8192
_DATAGRAM = 49152
#: Outcomes in one datagram.
_PER_DATAGRAM = 400
_FIND_AT_ONCE = 500

#: An outcome as it travels; without the payload: read it from the file.
Told = tuple[str, str, bytes | None, float]
#: Datagrams and the names of the sockets that they go to.
News = list[tuple[list[str], bytes]]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Told]).decode


def put(link: Link, outcomes: Sequence[Outcome], now: float) -> bool:
    """Store them, inside a transaction; False when some gave way to a SUCCESS."""
    written = 0
    whole = len(outcomes) - len(outcomes) % _ROWS
    for start in range(0, whole, _ROWS):
        values: list[Any] = []
        for outcome in outcomes[start : start + _ROWS]:
            payload = blob(outcome.payload)
            values += (outcome.task_id, outcome.status, payload, outcome.expires)
        values.append(now)
        written += link.execute(_PUT_MANY, values).rowcount
    for outcome in outcomes[whole:]:
        payload = blob(outcome.payload)
        written += link.execute(
            _PUT, (outcome.task_id, outcome.status, payload, outcome.expires, now)
        ).rowcount
    return written == len(outcomes)


def get(link: Link, ids: Collection[str], now: float) -> list[Outcome]:
    """Read what is stored and has not expired."""
    find = "SELECT task_id, status, payload, expires FROM results WHERE task_id "
    alive = " AND (expires <= 0 OR expires > ?)"
    if len(ids) == 1:
        (only,) = ids
        rows = link.execute(find + "= ?" + alive, (only, now)).fetchall()
        return [Outcome(*row) for row in rows]
    wanted = list(ids)
    found: list[Outcome] = []
    for start in range(0, len(wanted), _FIND_AT_ONCE):
        part = msgspec.json.encode(wanted[start : start + _FIND_AT_ONCE]).decode()
        rows = link.execute(
            find + "IN (SELECT value FROM json_each(?))" + alive, (part, now)
        ).fetchall()
        found.extend(Outcome(*row) for row in rows)
    return found


def news(link: Link, outcomes: Sequence[Outcome], sure: bool) -> News:
    """Whom to tell what when the transaction is committed.

    :param sure: the outcomes were stored as they are here.
    """
    found: News = []
    by_address: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.reply_to:
            by_address.setdefault(outcome.reply_to, []).append(outcome)
    for address, theirs in by_address.items():
        rows = link.execute("SELECT name FROM listeners WHERE address = ?", (address,)).fetchall()
        if rows:
            names = [name for (name,) in rows]
            found.extend((names, datagram) for datagram in _datagrams(theirs, sure))
    rows = link.execute("SELECT name FROM listeners WHERE foreign_ids").fetchall()
    if rows:
        found.append(([name for (name,) in rows], b""))
    return found


def _datagrams(outcomes: Sequence[Outcome], sure: bool) -> list[bytes]:
    found: list[bytes] = []
    told: list[Told] = []
    size = 0
    for outcome in outcomes:
        payload = outcome.payload if sure and len(outcome.payload) <= _SMALL else None
        told.append((outcome.task_id, outcome.status, payload, outcome.expires))
        size += len(outcome.task_id) + len(payload or b"")
        if size > _DATAGRAM or len(told) >= _PER_DATAGRAM:
            found.append(_encode(told))
            told, size = [], 0
    if told:
        found.append(_encode(told))
    return found


def read_news(datagram: bytes) -> list[Told]:
    """What a datagram tells; nothing when it is of another kind."""
    try:
        return _decode(datagram)
    except msgspec.MsgspecError:
        return []


def forget_listeners(database: Database, places: Places, names: Sequence[str]) -> None:
    """Remove those at whose sockets nobody listens.

    A consumer that lives although its socket cannot be reached from here stays.
    """
    dead = [name for name in names if not name.startswith("c-") or places.is_dead(name)]
    if not dead:
        return

    def work(link: Link) -> None:
        for table in ("wants", "listeners"):
            link.executemany(f"DELETE FROM {table} WHERE name = ?", [(name,) for name in dead])

    try:
        database.write(work)
    except OperationalError:
        return  # somebody else will notice
    for name in dead:
        if not name.startswith("c-"):  # the lock stays until the claims are taken back
            places.remove(name)
