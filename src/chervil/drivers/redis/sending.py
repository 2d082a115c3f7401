"""Messages as they lie in lists, and the arguments by which scripts store them."""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final

from chervil.drivers.redis.link import Argument
from chervil.drivers.redis.names import Names
from chervil.exceptions import MessageTooLarge
from chervil.wire.envelope import encode_full, encode_head
from chervil.wire.message import Message

#: Largest string of a server (``proto-max-bulk-len``), less room for what is put in front.
LARGEST: Final = 512 * 1024 * 1024 - 1024
#: Body bytes that fit into it as base64, with a head of a MiB.
MAX_SIZE: Final = (LARGEST - 1024 * 1024) // 4 * 3

#: How an envelope begins, and what it has before the delivery tag, its last value.
_START: Final = b'{"body":"'
_TAG: Final = b',"body_encoding":"base64","delivery_tag":"'
_TAG_SIZE: Final = 32
_TAG_END: Final = _TAG_SIZE + len(b'"}}')
_TAG_AT: Final = -_TAG_END - len(_TAG)

#: Delivery tags: random for this process, and counted, for drawing each costs a system call.
_tags = count()
_tag_start = b""


def _new_tags() -> None:
    global _tag_start
    _tag_start = os.urandom(_TAG_SIZE // 4).hex().encode()


_new_tags()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_tags)

#: Envelopes in one group: a script can hand some thousand arguments to a command.
_GROUP: Final = 1000


def envelope(message: Message, now: float) -> bytes:
    """kombu's envelope, with the body as base64 and a new delivery tag.

    :param now: Unix time in seconds, for messages whose ids are older than they are.
    :raises EncodeError: a header or property has no JSON form.
    :raises MessageTooLarge: Redis cannot store it.
    """
    head = encode_head(message)
    if head[:1] == b"{" and head[-2:] == b"}}":  # the properties are last
        body = b2a_base64(message.body, newline=False)
        tag = _tag_start, next(_tags)
        whole = b'%b%b",%b%b%b%016x"}}' % (_START, body, head[1:-2], _TAG, *tag)
    else:
        whole = encode_full(message)
    if len(whole) > LARGEST:
        raise MessageTooLarge(
            f"the message of task {message.id} has {len(whole)} bytes in its envelope; Redis "
            f"stores up to {LARGEST}"
        )
    if message.headers.get("retries"):
        whole = b'{"chervil":[0,%d],%b' % (now * 1000, whole[1:])
    return whole


def parts(envelope: bytes) -> tuple[bytes, bytes | None]:
    """Head and body of an envelope that :func:`envelope` wrote; another one as it is.

    Readers of the head then need not go through the body, nor decode it twice.
    """
    if envelope[:9] == _START and envelope[_TAG_AT:-_TAG_END] == _TAG:
        end = envelope.find(b'"', 9)
        if envelope[end + 1 : end + 2] == b",":
            try:
                body = a2b_base64(envelope[9:end])
            except ValueError:  # whoever runs it finds out and reports it
                return envelope, None
            return b"{%b}}" % envelope[end + 2 : _TAG_AT], body
    return envelope, None


def one_group(
    messages: Sequence[Message], names: Names, now: float
) -> tuple[bytes, list[bytes]] | None:
    """The list and the envelopes of messages that all go to one list now; else None."""
    first = messages[0]
    queue, priority = first.queue, first.priority
    for message in messages:
        if message.due > now or message.queue != queue or message.priority != priority:
            return None
    return names.list_of(queue, priority), [envelope(message, now) for message in messages]


def groups(messages: Iterable[Message], names: Names, now: float) -> tuple[int, list[Argument]]:
    """What scripts take messages as: how many groups, and the groups (see ``common.lua``)."""
    at_once: dict[bytes, list[bytes]] = {}
    arguments: list[Argument] = []
    count = 0
    for message in messages:
        key = names.list_of(message.queue, message.priority)
        data = envelope(message, now)
        if message.due > now:
            eta = 1 if message.headers.get("eta") else 0
            arguments += (key, repr(message.due), message.queue, eta, 1, data)
            count += 1
            continue
        group = at_once.setdefault(key, [])
        group.append(data)
        if len(group) == _GROUP:
            arguments += (key, b"", b"", 0, _GROUP, *at_once.pop(key))
            count += 1
    for key, group in at_once.items():
        arguments += (key, b"", b"", 0, len(group), *group)
    return count + len(at_once), arguments
