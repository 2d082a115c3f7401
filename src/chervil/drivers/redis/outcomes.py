"""Results as they lie under their keys: the document alone, as Celery clients read it.

The status is read from the document's beginning. Where it is not to be seen there
(pickled, compressed, of other programs) it lies beside it, under a key of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from zlib import crc32

from chervil.drivers.redis.link import Argument, Link
from chervil.drivers.redis.names import Names
from chervil.wire.message import Outcome
from chervil.wire.outcomes import status_in, status_of

#: Keys that are read with one command.
_AT_ONCE = 500


def arguments(outcomes: Iterable[Outcome], now: float) -> list[Argument]:
    """What scripts take outcomes as (see ``store`` in ``storing.lua``)."""
    found: list[Argument] = []
    for outcome in outcomes:
        payload = outcome.payload
        life: Argument = b""
        if outcome.expires > 0:
            life = max(1, int((outcome.expires - now) * 1000))
        mark: Argument = b""
        if status_in(payload) != outcome.status:
            mark = f"{crc32(payload)}:{outcome.status}"
        found += (outcome.task_id, life, mark, outcome.reply_to, payload)
    return found


def get(link: Link, names: Names, prefix: bytes, ids: Collection[str]) -> list[Outcome]:
    """Read what is stored.

    :raises Refused: the server does not let us.
    """
    found: list[Outcome] = []
    wanted = list(ids)
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        payloads = link.call("MGET", *[prefix + task_id.encode() for task_id in part])
        found += understand(link, names, zip(part, payloads, strict=True))
    return found


def understand(
    link: Link, names: Names, payloads: Iterable[tuple[str, bytes | None]]
) -> list[Outcome]:
    """Outcomes from documents; reads the statuses that the documents do not show."""
    found: list[Outcome] = []
    unclear: list[tuple[str, bytes]] = []
    for task_id, payload in payloads:
        if payload is None:
            continue
        status = status_in(payload)
        if status is None:
            unclear.append((task_id, payload))
        else:
            found.append(Outcome(task_id, status, payload))
    if unclear:
        marks = link.call("MGET", *[names.own(f"status.{task_id}") for task_id, _ in unclear])
        found += _marked(unclear, marks)
    return found


def _marked(
    unclear: Sequence[tuple[str, bytes]], marks: Sequence[bytes | None]
) -> Iterable[Outcome]:
    for (task_id, payload), mark in zip(unclear, marks, strict=True):
        digest, _, status = (mark or b"").partition(b":")
        if status and int(digest) == crc32(payload):
            yield Outcome(task_id, status.decode(), payload)
        else:  # of another program, which has overwritten ours or was alone
            yield Outcome(task_id, status_of(payload), payload)
