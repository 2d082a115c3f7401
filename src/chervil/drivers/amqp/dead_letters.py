"""Messages that were given up: the queue ``chervil.dead``.

They keep their headers and bodies, and have a few headers of ours that say what happened.
A message that the server itself put there (a queue with ``x-dead-letter-exchange: ""`` and
``x-dead-letter-routing-key: chervil.dead``) is shown with what the server noted.

A queue can only be looked at by taking messages out. So whoever looks holds a lock, a queue
that is exclusive to its connection, and gives back what it took by closing the channel:
a classic queue then has them where they were.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from chervil import clock
from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.delays import Call
from chervil.drivers.amqp.heads import envelope, times_delivered
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.pool import ASKING
from chervil.drivers.amqp.properties import decode_properties, encode_properties, is_history
from chervil.drivers.amqp.reading import Content
from chervil.drivers.amqp.sending import Parcel
from chervil.drivers.amqp.trouble import NOT_FOUND, RESOURCE_LOCKED, Refused
from chervil.drivers.contracts import DeadLetter, Queue
from chervil.exceptions import BrokerUnavailable, DecodeError
from chervil.ids import new_id
from chervil.wire import jsoncodec

if TYPE_CHECKING:
    from chervil.drivers.amqp.broker import AmqpBroker

QUEUE: Final = Queue("chervil.dead", queue_arguments={"x-queue-type": "classic"})
_LOCK: Final = "chervil.dead.lock"
_LOOKING: Final = 3
#: Messages that are taken out by one write.
_AT_ONCE: Final = 100
#: With more of them, they are not counted for each queue.
_MOST_COUNTED: Final = 1000
#: Characters of a traceback that are kept; a header must fit into one frame.
_LONGEST_DETAIL: Final = 40_000
_LOCK_SECONDS: Final = 3.0
_OURS: Final = "chervil-dead-"


def parcel(
    properties: Mapping[str, Any], body: bytes, queue: str, reason: str, detail: str, times: int
) -> Parcel:
    """The dead letter that is made of a message.

    :param properties: as they arrived.
    :param times: how often it was delivered.
    """
    headers = {k: v for k, v in (properties.get("headers") or {}).items() if not is_history(k)}
    headers |= {
        _OURS + "key": new_id(),
        _OURS + "queue": queue,
        _OURS + "reason": _storable(reason),
        _OURS + "detail": _storable(detail[-_LONGEST_DETAIL:]),
        _OURS + "deliveries": times,
        _OURS + "at": clock.now(),
    }
    kept = {key: value for key, value in properties.items() if key != "expiration"}
    encoded = encode_properties({**kept, "headers": headers, "delivery_mode": 2})
    task_id = str(properties.get("correlation_id") or headers.get("id") or "")
    return Parcel(task_id, QUEUE.name, "", QUEUE.name, encoded, body)


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class DeadLetters:
    """What a broker does with the queue of dead letters."""

    def __init__(self, broker: AmqpBroker) -> None:
        self._broker = broker

    def counts(self, link: Link) -> Mapping[str, int] | None:
        """How many there are of each queue; None when they are too many to be counted."""
        total = _total(link)
        if not total:
            return {}
        if total > _MOST_COUNTED:
            return None
        with self._all(link) as contents:
            return Counter(_letter(content).queue for content in contents)

    def find(self, queue: str | None, limit: int, after: str) -> Sequence[DeadLetter]:
        """The oldest of a queue, or of all, behind the one with that key."""
        found: list[DeadLetter] = []
        if limit <= 0:
            return found
        passed = not after
        with self._broker.pool.link() as link, self._all(link) as contents:
            for content in contents:
                letter = _letter(content)
                if not passed:
                    passed = letter.key == after
                elif queue is None or letter.queue == queue:
                    found.append(letter)
                    if len(found) == limit:
                        break
        return found

    def replay(self, keys: Collection[str]) -> int:
        """Put them back on their queues."""
        return self._take(keys, self._send_again)

    def drop(self, keys: Collection[str]) -> int:
        """Delete them."""
        return self._take(keys, lambda chosen: None)

    def _take(self, keys: Collection[str], then: Callable[[list[Content]], None]) -> int:
        wanted = set(keys)
        if not wanted:
            return 0
        chosen: list[Content] = []
        with self._broker.pool.link() as link, self._all(link) as contents:
            for content in contents:
                letter = _letter(content)
                if letter.key in wanted:
                    wanted.discard(letter.key)
                    chosen.append(content)
                    if not wanted:
                        break
            then(chosen)
            tags = [content.fields()[0] for content in chosen]
            link.send_parts(m.pack(_LOOKING, m.BASIC_ACK, tag, False) for tag in tags)
        return len(chosen)

    def _send_again(self, chosen: list[Content]) -> None:
        self._broker.send([_again(content) for content in chosen])

    @contextmanager
    def _all(self, link: Link) -> Iterator[Iterator[Content]]:
        """All dead letters, for a ``with`` block; those that are not acknowledged stay."""
        with _locked(link):
            link.ready(_LOOKING)
            try:
                yield _contents(link)
            finally:
                if link.open:
                    link.close_channel(_LOOKING)


def _total(link: Link) -> int:
    try:
        call: Call = (m.QUEUE_DECLARE, QUEUE.name, True, False, False, False, False, {})
        return int(link.calls(link.ready(ASKING), [call])[0][1])
    except Refused as exc:
        if exc.code != NOT_FOUND:
            raise
        return 0


def _contents(link: Link) -> Iterator[Content]:
    left = _total(link)
    while left > 0:
        found = link.get_some(_LOOKING, QUEUE.name, min(left, _AT_ONCE))
        yield from found
        if not found:
            return
        left -= len(found)


@contextmanager
def _locked(link: Link) -> Iterator[None]:
    """Keep others of this kind away.

    :raises BrokerUnavailable: somebody else has been looking for seconds.
    """
    deadline = clock.monotonic() + _LOCK_SECONDS
    while True:
        try:
            link.call(
                link.ready(ASKING), m.QUEUE_DECLARE, _LOCK, False, False, True, True, False, {}
            )
            break
        except Refused as exc:
            if exc.code != RESOURCE_LOCKED:
                raise
            if clock.monotonic() > deadline:
                raise BrokerUnavailable(
                    "somebody else is looking at the dead letters; try again"
                ) from None
            time.sleep(0.02)
    try:
        yield
    finally:
        if link.open:
            link.call(link.ready(ASKING), m.QUEUE_DELETE, _LOCK, False, False, False)


def _letter(content: Content) -> DeadLetter:
    try:
        properties = decode_properties(content.header)
    except DecodeError:
        properties = {}
    headers = properties.get("headers") or {}
    queue, reason, times = "", "", 1 + times_delivered(headers)
    if _OURS + "key" not in headers:
        queue = str(headers.get("x-first-death-queue", ""))
        reason = str(headers.get("x-first-death-reason", ""))
    rest = {k: v for k, v in headers.items() if not k.startswith(_OURS)}
    own_queue = str(headers.get(_OURS + "queue", queue))
    return DeadLetter(
        key=str(headers.get(_OURS + "key") or _fingerprint(content)),
        queue=own_queue,
        head=jsoncodec.dumps(envelope({**properties, "headers": rest}, "", own_queue)),
        body=content.body,
        reason=str(headers.get(_OURS + "reason", reason)),
        detail=str(headers.get(_OURS + "detail", "")),
        deliveries=int(headers.get(_OURS + "deliveries", times)),
        died_at=_died_at(headers),
    )


def _died_at(headers: Mapping[str, Any]) -> float:
    at = headers.get(_OURS + "at")
    if isinstance(at, float):
        return at
    deaths = headers.get("x-death")
    try:
        return float(deaths[0]["time"].timestamp())  # type: ignore[index]
    except (TypeError, LookupError, AttributeError):
        return 0.0


def _fingerprint(content: Content) -> str:
    return "x-" + hashlib.sha256(content.header + content.body).hexdigest()[:32]


def _again(content: Content) -> Parcel:
    """The message as it was before it was given up."""
    properties = decode_properties(content.header)
    letter = _letter(content)
    headers = {
        key: value
        for key, value in (properties.get("headers") or {}).items()
        if not key.startswith(_OURS) and not is_history(key)
    }
    encoded = encode_properties({**properties, "headers": headers})
    task_id = str(properties.get("correlation_id") or "")
    return Parcel(task_id, letter.queue, "", letter.queue, encoded, content.body)
