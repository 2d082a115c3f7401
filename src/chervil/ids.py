"""Ids for tasks: UUIDs of version 7, as text.

Their first 48 bits are the time in milliseconds (RFC 9562, section 5.7), so that
ids that were made together lie together in an index. The other 74 bits are from
the operating system, drawn in blocks because asking for each id costs more than
everything else.
"""

from __future__ import annotations

import os
import time

_BLOCK = 256  # ids per draw: 2,560 bytes

# Set the version and the variant in a byte and keep its random bits.
_VERSION = bytes(0x70 | (byte & 0x0F) for byte in range(256))
_VARIANT = bytes(0x80 | (byte & 0x3F) for byte in range(256))

_SHAPE = b"....-....-............ "
_PLACES = tuple(place for place, byte in enumerate(_SHAPE) if byte == ord("."))

# list.pop and list.extend are atomic, so threads need no lock: none gets an entry
# that another one got.
_tails: list[str] = []
_prefix: tuple[int, str] = (0, "")


def _draw(count: int) -> list[str]:
    """Everything behind the time, for that many ids.

    One strided copy for each character of an id serves all of them, which takes a
    third of the time of cutting and joining strings one id after the other.
    """
    noise = bytearray(os.urandom(10 * count))
    noise[0::10] = noise[0::10].translate(_VERSION)
    noise[2::10] = noise[2::10].translate(_VARIANT)
    digits = noise.hex().encode()
    lines = bytearray(_SHAPE * count)
    width = len(_SHAPE)
    for source, target in enumerate(_PLACES):
        lines[target::width] = digits[source::20]
    return lines.decode().split()


def _time_prefix(milliseconds: int) -> str:
    global _prefix
    text = f"{milliseconds:012x}"
    prefix = f"{text[:8]}-{text[8:]}-"
    _prefix = (milliseconds, prefix)
    return prefix


def new_id() -> str:
    """A new id, such as ``018f3f0c-4a5b-7c3d-9e1f-2a3b4c5d6e7f``."""
    milliseconds = int(time.time() * 1000)
    known, prefix = _prefix
    if known != milliseconds:
        prefix = _time_prefix(milliseconds)
    try:
        return prefix + _tails.pop()
    except IndexError:
        tails = _draw(_BLOCK)
        tail = tails.pop()
        _tails.extend(tails)
        return prefix + tail


def new_ids(count: int) -> list[str]:
    """Several new ids at once."""
    prefix = _time_prefix(int(time.time() * 1000))
    return [prefix + tail for tail in _draw(count)]


# A child must not give out what its parent gives out too.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tails.clear)
