"""Ends that a task did not come to by itself, and whether anything waits for them."""

from __future__ import annotations

from typing import Any

import msgspec

from chervil import states
from chervil.drivers.contracts import Delivery, Settlement
from chervil.exceptions import DecodeError
from chervil.pools.frames import Verdict
from chervil.wire import envelope
from chervil.wire.outcomes import exception_to_dict

_JSON = ("application/json", "application/x-json")


class Final(Settlement, gc=False):
    """A settlement after which the task never runs again."""

    error: BaseException | None = None
    #: FAILURE or REVOKED.
    status: str = states.FAILURE


class _Embed(msgspec.Struct, gc=False):
    callbacks: Any = None
    errbacks: Any = None
    chain: Any = None
    chord: Any = None


#: Arguments stay as they are: they may be large, and nobody asked for them.
_decode = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw, _Embed | None]).decode


def something_waits(delivery: Delivery) -> bool:
    """Whether an errback, a later step or a chord hangs on a message.

    Of bodies in other forms than JSON nothing is known here, so it may.
    """
    try:
        message = envelope.decode(delivery.head, delivery.body)
    except DecodeError:
        return False
    if message.content_type not in _JSON or message.headers.get("compression"):
        return True
    try:
        embed = _decode(message.body)[2]
    except msgspec.MsgspecError:
        return True
    return embed is not None and bool(embed.errbacks or embed.chain or embed.chord)


def verdict_of(final: Final, quiet: bool) -> Verdict:
    """What an executor is told of an end."""
    return Verdict(final.status, exception_to_dict(final.error or Exception()), quiet)
