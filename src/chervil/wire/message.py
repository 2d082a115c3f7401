"""The message as the code sees it, whatever the broker.

A :class:`Message` is what a client publishes; the headers are the map of
Celery's task protocol 2 and the body is the serialized (and perhaps
compressed) ``[args, kwargs, embed]``. Drivers store the two apart: the *head*
(JSON of headers, properties and content type) and the *body* (opaque bytes).
"""

from __future__ import annotations

from typing import Any

import msgspec


class Message(msgspec.Struct, gc=False):
    """One task on its way to a queue."""

    headers: dict[str, Any]
    body: bytes
    content_type: str
    content_encoding: str
    #: Queue to store it in.
    queue: str
    #: As given by the caller; which is served first, the broker says (``Features.priority``).
    priority: int = 0
    #: Unix time in seconds before which it must not be claimed; 0 means now.
    due: float = 0.0
    #: Address of the client that waits for the result.
    reply_to: str = ""
    exchange: str = ""
    routing_key: str = ""
    #: Everything else that belongs into the message properties
    #: (``correlation_id``, ``delivery_mode``, ``expiration``, ``app_id``...).
    properties: dict[str, Any] = {}
    #: The encoded head (see ``chervil.wire.envelope``), where who built the message
    #: could write it for less; whoever changes another field sets it to None.
    head: bytes | None = None

    @property
    def id(self) -> str:
        """The task id."""
        return str(self.headers["id"])


class Outcome(msgspec.Struct, gc=False):
    """A task's state as a result store keeps it."""

    task_id: str
    #: One of ``chervil.states`` or a custom state.
    status: str
    #: The encoded result document (see ``chervil.wire.outcomes``).
    payload: bytes
    #: Unix time in seconds after which it may be deleted; 0 means never.
    expires: float = 0.0
    #: Address of the client that waits for it; empty when nobody said.
    reply_to: str = ""
