"""What queues hold, and the messages that were given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chervil.drivers.contracts import DeadLetter, Depth
from chervil.drivers.redis.link import Argument, Link, Refused
from chervil.drivers.redis.names import Names
from chervil.drivers.redis.scripts import load
from chervil.exceptions import DecodeError
from chervil.wire.envelope import decode_head

_DEPTHS = load("depths.lua")
_LETTERS = load("letters.lua")

#: Letters that one call of the script takes.
_AT_ONCE = 500


def depths(
    link: Link, names: Names, queues: Sequence[str] | None, now: float
) -> Mapping[str, Depth]:
    """What these queues hold, or all that are known."""
    suffixes: list[Argument] = list(names.suffixes)
    wanted = [names.check(queue) for queue in dict.fromkeys(queues or ())]
    rows = link.script(_DEPTHS, (), names.prefix, len(suffixes), *suffixes, *wanted)
    return {row[0].decode(): _depth(row, now) for row in rows}


def _depth(row: Sequence[Any], now: float) -> Depth:
    _, ready, delayed, claimed, dead, *next_ones = row
    since = [_since(message) for message in next_ones]
    oldest = max((now - moment for moment in since if moment is not None), default=0.0)
    return Depth(ready, delayed, claimed, dead, max(0.0, oldest))


def _since(message: bytes) -> float | None:
    """Unix time in seconds since when a message has been ready, if it tells."""
    if message.startswith(b'{"chervil"'):
        try:
            return int(message[: message.index(b"]")].rpartition(b",")[2]) / 1000
        except ValueError:
            return None
    try:
        task_id = decode_head(message).id
        # A UUID of version 7 begins with the time (RFC 9562, section 5.7).
        return int(task_id[:8] + task_id[9:13], 16) / 1000 if task_id[14:15] == "7" else None
    except (DecodeError, ValueError):
        return None


def purge(link: Link, names: Names, queue: str) -> int:
    """Delete the ready and delayed messages of a queue; how many."""
    lists, delayed = names.lists_of(queue), names.delayed(queue)
    commands: list[Sequence[Argument]] = [("MULTI",)]
    commands += [("LLEN", key) for key in lists]
    commands += [("ZCARD", delayed), ("UNLINK", *lists, delayed), ("EXEC",)]
    answers = link.pipeline(commands)
    for answer in answers:
        if isinstance(answer, Exception):
            raise Refused(str(answer))
    return sum(answers[-1][:-1])


# --- dead letters ----------------------------------------------------------------------


def dead(link: Link, names: Names, queue: str | None, limit: int, after: str) -> list[DeadLetter]:
    """List them, oldest first, behind the key ``after``."""
    found: list[DeadLetter] = []
    order = names.own("dead" if queue is None else f"dead.{queue}")
    least: bytes = f"({_number(after) or 0}".encode()
    while len(found) < limit:
        numbers = link.call(
            "ZRANGEBYSCORE", order, least, "+inf", "LIMIT", 0, min(limit - len(found), _AT_ONCE)
        )
        if not numbers:
            break
        least = b"(" + numbers[-1]
        answers = link.pipeline([("HGETALL", names.own(f"letter.{int(n)}")) for n in numbers])
        for number, answer in zip(numbers, answers, strict=True):
            if isinstance(answer, Exception):
                raise Refused(str(answer))
            if answer:
                found.append(_letter(number.decode(), answer))
    return found


def _letter(key: str, answer: Sequence[bytes]) -> DeadLetter:
    fields = dict(zip(answer[::2], answer[1::2], strict=True))
    return DeadLetter(
        key=key,
        queue=fields[b"queue"].decode(),
        head=fields[b"envelope"],
        body=None,
        reason=fields[b"reason"].decode("utf-8", "replace"),
        detail=fields[b"detail"].decode("utf-8", "replace"),
        deliveries=int(fields[b"deliveries"]),
        died_at=float(fields[b"died_at"]),
    )


def take(link: Link, names: Names, how: str, keys: Sequence[str], now: float) -> int:
    """Replay or drop letters; how many."""
    numbers: list[Argument] = [n for n in map(_number, dict.fromkeys(keys)) if n is not None]
    found = 0
    for start in range(0, len(numbers), _AT_ONCE):
        part = numbers[start : start + _AT_ONCE]
        found += link.script(_LETTERS, (), names.prefix, repr(now), how, *part)
    return found


def _number(key: str) -> int | None:
    """The number that a key stands for; what is no key of ours stands for nothing."""
    return int(key) if key.isascii() and key.isdigit() and len(key) < 16 else None
