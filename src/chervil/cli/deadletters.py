"""Dead letters as the commands see them: read, described, chosen."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from chervil.exceptions import ChervilError

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.drivers.contracts import Broker, DeadLetter

#: How many are read from the broker at once.
PAGE = 500


class Letter(msgspec.Struct):
    """A dead letter with what its head says."""

    raw: Any
    task: str
    task_id: str
    headers: dict[str, Any]

    @property
    def key(self) -> str:
        return str(self.raw.key)

    @property
    def died(self) -> str:
        """Local time with seconds."""
        moment = dt.datetime.fromtimestamp(self.raw.died_at).astimezone()
        return moment.isoformat(sep=" ", timespec="seconds")


class Choice(msgspec.Struct, frozen=True):
    """Which letters are meant; what is given must all be true of a letter."""

    #: Keys or task ids; of a task id the first 8 characters are enough.
    keys: Sequence[str] = ()
    queue: str | None = None
    task: str | None = None
    #: Part of the reason, in any case.
    reason: str | None = None

    @property
    def narrows(self) -> bool:
        """Whether this leaves anything out."""
        return bool(self.keys or self.queue or self.task or self.reason)

    def takes(self, letter: Letter) -> bool:
        if self.keys and not any(
            letter.key == key or _begins(letter.task_id, key) for key in self.keys
        ):
            return False
        if self.task and letter.task != self.task:
            return False
        return not self.reason or self.reason.lower() in letter.raw.reason.lower()


def _begins(task_id: str, text: str) -> bool:
    # A short number is the key of a letter, not the beginning of an id.
    return len(text) >= 8 and task_id.startswith(text)


def read(letter: DeadLetter) -> Letter:
    """Read the head; what cannot be read (it may be why the letter is dead) stays empty."""
    try:
        headers = json.loads(letter.head).get("headers") or {}
    except (ValueError, AttributeError):
        headers = {}
    if not isinstance(headers, dict):
        headers = {}
    return Letter(letter, str(headers.get("task", "?")), str(headers.get("id", "?")), headers)


def find(broker: Broker, choice: Choice) -> Iterator[Letter]:
    """The letters that are meant, oldest first."""
    after = ""
    while True:
        page = broker.dead(choice.queue, PAGE, after)
        for raw in page:
            letter = read(raw)
            if choice.takes(letter):
                yield letter
        if len(page) < PAGE:
            return
        after = page[-1].key


def summary(letter: Letter) -> dict[str, Any]:
    """For ``dead list --json``."""
    return {
        "key": letter.key,
        "task": letter.task,
        "id": letter.task_id,
        "queue": letter.raw.queue,
        "reason": letter.raw.reason,
        "deliveries": letter.raw.deliveries,
        "died": letter.died,
    }


def details(app: Chervil, letter: Letter) -> dict[str, Any]:
    """All that is known of a letter; its arguments are decoded if the app accepts them."""
    args, kwargs, problem = arguments(app, letter)
    found = {**summary(letter), "args": args, "kwargs": kwargs, "headers": letter.headers}
    if problem:
        found["undecodable"] = problem
    found["detail"] = letter.raw.detail
    return found


def arguments(app: Chervil, letter: Letter) -> tuple[Any, Any, str]:
    """``args`` and ``kwargs``, and why they could not be decoded.

    The texts in the headers (``argsrepr``, ``kwargsrepr``) stand in for
    arguments that cannot be, or must not be, decoded.
    """
    from chervil.wire import envelope
    from chervil.wire.celery_v2 import decode_body
    from chervil.wire.serializers import accept_types

    try:
        message = envelope.decode(letter.raw.head, letter.raw.body)
        args, kwargs, _ = decode_body(
            message.body,
            message.content_type,
            message.content_encoding,
            message.headers.get("compression"),
            accept_types(app.conf.accept_content),
        )
    except (ChervilError, ValueError, KeyError, TypeError) as exc:
        headers = letter.headers
        return headers.get("argsrepr"), headers.get("kwargsrepr"), str(exc)
    return args, kwargs, ""
