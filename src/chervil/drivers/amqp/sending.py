"""Storing messages: what is sent, what the server said to it, and what becomes of the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from chervil import clock
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.pool import PUBLISHING
from chervil.drivers.amqp.properties import decode_properties, frames, of_message
from chervil.drivers.amqp.reading import Content
from chervil.drivers.amqp.topology import Topology
from chervil.drivers.amqp.trouble import NOT_FOUND, Refused
from chervil.drivers.contracts import Queue
from chervil.exceptions import DecodeError, OperationalError, PublishError
from chervil.wire.message import Message

#: Seconds to wait before a refused message is sent again.
_PAUSES: Final = (0.02, 0.1, 0.3)
#: A message that is due within so many seconds is sent at once.
_SOON: Final = 0.001


class Parcel(msgspec.Struct, gc=False):
    """A message that is ready to be sent."""

    #: For messages to people.
    id: str
    queue: str
    exchange: str
    routing_key: str
    properties: bytes
    body: bytes
    #: Seconds to wait in the broker.
    delay: float = 0.0


def parcels(messages: Iterable[Message], now: float) -> list[Parcel]:
    """What is sent for these messages.

    A message for several queues of one exchange comes once for each of them: the exchange
    does that itself, so that one is sent, unless it has to wait first.

    :raises EncodeError: a header or property has no form in AMQP.
    """
    found: list[Parcel] = []
    sent: set[tuple[str, str, str]] = set()
    for message in messages:
        delay = message.due - now if message.due else 0.0
        if delay > _SOON:
            properties = of_message(message, delayed=True)
            found.append(Parcel(message.id, message.queue, "", "", properties, message.body, delay))
            continue
        exchange, key = message.exchange, message.queue
        if exchange:
            key = message.routing_key
            copy = (message.id, exchange, key)
            if copy in sent:
                continue
            sent.add(copy)
        found.append(
            Parcel(message.id, message.queue, exchange, key, of_message(message), message.body)
        )
    return found


def store(
    link: Link,
    topology: Topology,
    items: Sequence[Parcel],
    definition: Callable[[str], Queue] | None,
) -> None:
    """Send parcels and wait for the confirmations; declare what is needed for that.

    What was declared before and is gone is declared again, once. What a queue refuses is
    sent again after short pauses: a new quorum queue does so until it has a leader.

    :raises OperationalError: (of the link's class) nothing is known to be stored.
    :raises PublishError: some are not; it names them.
    :raises Refused: the server did not let us declare something.
    """
    left = list(items)
    mended = False
    pauses = iter(_PAUSES)
    while True:
        _prepare(link, topology, left, definition)
        left, trouble = _attempt(link, topology, left, len(items))
        if not left:
            return
        pause = next(pauses, None) if trouble.full else None
        if trouble.mends and not mended:
            mended = True
            topology.forget()
        elif pause is not None:
            time.sleep(pause)
        else:
            raise trouble.error(link, left, len(items))


class _Trouble(msgspec.Struct):
    """Why parcels were not stored."""

    #: They lead nowhere: declaring everything again may help.
    mends: bool = False
    refused: Refused | None = None
    full: bool = False

    def error(self, link: Link, left: Sequence[Parcel], total: int) -> OperationalError:
        if self.refused is not None:
            why = str(link.refused(self.refused))
        elif self.full:
            why = f"RabbitMQ at {link.server.name} refused them: a queue is full, or has no leader"
        else:
            why = f"RabbitMQ at {link.server.name} has nowhere to put them"
        places = ", ".join(sorted({_place(parcel) for parcel in left})[:5])
        return PublishError(
            f"{len(left)} of {total} messages were not stored, for {places}: {why}",
            tuple(parcel.id for parcel in left),
        )


def _place(parcel: Parcel) -> str:
    if parcel.exchange:
        return f"exchange {parcel.exchange!r} with routing key {parcel.routing_key!r}"
    return f"queue {parcel.queue!r}"


def _prepare(
    link: Link,
    topology: Topology,
    items: Sequence[Parcel],
    definition: Callable[[str], Queue] | None,
) -> None:
    known = topology.known
    unknown = {parcel.queue for parcel in items if parcel.queue not in known}
    if unknown:
        topology.find(link, sorted(unknown), definition)
    late = [parcel for parcel in items if parcel.delay]
    if late:
        topology.delay(link, [p.queue for p in late], [p.delay for p in late])


def _attempt(
    link: Link, topology: Topology, items: Sequence[Parcel], total: int
) -> tuple[list[Parcel], _Trouble]:
    """Send; those that are not stored, and why."""
    channel = link.ready(PUBLISHING, confirm=True)
    packed = [_pack(parcel, topology, link.session.frame_max) for parcel in items]
    try:
        failures = link.publish(packed, channel)
    except Refused as exc:
        left = [items[place] for place in sorted(link.unconfirmed())]
        return left, _Trouble(mends=exc.code == NOT_FOUND, refused=exc)
    except OperationalError as exc:
        left = [items[place] for place in sorted(link.unconfirmed())]
        if len(left) == total:
            raise
        raise PublishError(
            f"{len(left)} of {total} messages were not stored: {exc}",
            tuple(parcel.id for parcel in left),
        ) from exc
    if not failures:
        return [], _Trouble()
    left = [items[place] for place in failures.refused]
    if failures.returned:
        left += _returned(items, failures.returned)
    return left, _Trouble(mends=bool(failures.returned), full=bool(failures.refused))


def _pack(parcel: Parcel, topology: Topology, frame_max: int) -> bytes:
    exchange, key = parcel.exchange, parcel.routing_key
    if parcel.delay:
        exchange, key = topology.delays.address(parcel.queue, parcel.delay)
    return frames(parcel.properties, parcel.body, exchange, key, frame_max, PUBLISHING)


def _returned(items: Sequence[Parcel], contents: Iterable[Content]) -> list[Parcel]:
    """Which of the parcels came back."""
    if len(items) == 1:
        return list(items)
    ids = set()
    for content in contents:
        try:
            ids.add(decode_properties(content.header).get("correlation_id"))
        except DecodeError:
            return list(items)
    return [parcel for parcel in items if parcel.id in ids]


def delay_until(due: float) -> float:
    """Seconds from now until a Unix time, at least 0."""
    return max(0.0, due - clock.now())
