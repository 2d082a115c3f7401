"""Sending a request to nodes and gathering their answers."""

from __future__ import annotations

import select
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chervil import clock
from chervil.exceptions import DecodeError, ImproperlyConfigured
from chervil.wire.notes import Note
from chervil.wire.serializers import accept_types

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.drivers.contracts import Mailbox

Replies = list[dict[str, Any]]


class Asking:
    """What :class:`chervil.control.Control` is made on."""

    def __init__(self, app: Chervil) -> None:
        self.app = app
        #: Lamport's.
        self._clock = 0

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | str | None = None,
        connection: object = None,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        channel: object = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra: Any,
    ) -> Replies | None:
        """Send a command to nodes.

        :param extra: more arguments of the command.
        :returns: with ``reply``, an answer of each node, ``{"name@host": answer}``, as soon
            as all have answered who listen, where the broker knows how many these are;
            else when ``timeout`` seconds are over.
        :raises BrokerUnavailable: it was not sent.
        :raises ImproperlyConfigured: the broker has no remote control.
        """
        return self._tell(
            command,
            {**(arguments or {}), **extra},
            destination,
            reply=reply,
            timeout=timeout,
            limit=limit,
            callback=callback,
            pattern=pattern,
            matcher=matcher,
        )

    def _tell(
        self,
        command: str,
        arguments: Mapping[str, Any],
        destination: Sequence[str] | str | None,
        *,
        stored: bool = False,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
        connection: object = None,
        channel: object = None,
        **extra: Any,
    ) -> Replies | None:
        """:meth:`broadcast`; ``stored``: the broker has it already, nodes need not."""
        if not self.app.broker.features.fanout:
            if stored:  # nodes will find it there
                return [] if reply else None
            raise ImproperlyConfigured(f"{command}: the broker of this app has no remote control")
        nodes = [destination] if isinstance(destination, str) else destination
        request: dict[str, Any] = {
            "method": command,
            "arguments": {**arguments, **extra},
            "destination": list(nodes) if nodes is not None else None,
            "pattern": pattern,
            "matcher": matcher,
        }
        if not reply:
            self._send(request, timeout, stored)
            return None
        most = limit or (len(nodes) if nodes else None)
        return self._gather(request, timeout, stored, most, callback)[0]

    def ask(
        self, command: str, arguments: Mapping[str, Any], timeout: float = 1.0
    ) -> tuple[Replies, bool]:
        """Ask all nodes; the answers, and whether all who listen have answered."""
        request = {"method": command, "arguments": arguments, "destination": None}
        return self._gather(request, timeout, False, None, None)

    def _send(self, request: dict[str, Any], timeout: float, stored: bool) -> int | None:
        app = self.app
        self._clock += 1
        headers: dict[str, Any] = {"clock": self._clock, "expires": clock.now() + timeout}
        if stored:
            headers["stored"] = 1
        note = Note.of(request, app.conf.task_serializer, **headers)
        return app.broker.fanout().broadcast(f"{app.conf.control_exchange}.pidbox", note)

    def _gather(
        self,
        request: dict[str, Any],
        timeout: float,
        stored: bool,
        limit: int | None,
        callback: Callable[[dict[str, Any]], object] | None,
    ) -> tuple[Replies, bool]:
        """Send a request and gather the answers; whether all have answered."""
        exchange, key = f"reply.{self.app.conf.control_exchange}.pidbox", str(uuid.uuid4())
        ticket = request["ticket"] = str(uuid.uuid4())
        request["reply_to"] = {"exchange": exchange, "routing_key": key}
        replies: Replies = []
        deadline = time.monotonic() + timeout
        mailbox = self.app.broker.fanout().answers(exchange, key)
        try:
            told = self._send(request, timeout, stored)
            enough = min((n for n in (limit, told) if n is not None), default=None)
            while enough is None or len(replies) < enough:
                if not _ready(mailbox, max(0.0, deadline - time.monotonic())):
                    break
                for answer in mailbox.receive():
                    value = self._reply_in(answer, ticket)
                    if value is not None:
                        replies.append(value)
                        if callback is not None:
                            callback(value)
        finally:
            mailbox.close()
        return replies, told is not None and len(replies) >= told

    def _reply_in(self, note: Note, ticket: str) -> dict[str, Any] | None:
        """An answer to this request."""
        if note.headers.get("ticket", ticket) != ticket:
            return None
        seen = note.headers.get("clock")
        if isinstance(seen, int):
            self._clock = max(self._clock, seen)
        accept = accept_types([*self.app.conf.accept_content, "json"])
        try:
            value = note.value(accept)
        except DecodeError:
            return None
        return value if isinstance(value, dict) else None


def _ready(mailbox: Mailbox, seconds: float) -> bool:
    """Whether something arrives within that time."""
    poll = select.poll()
    poll.register(mailbox.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))
