"""The head of a message (everything but the body) as JSON, and kombu's whole envelope.

Drivers that store head and body apart use :func:`encode_head`; the ones that write
what a Celery worker reads from a Redis list use :func:`encode_full` (source of the
form: celery/kombu ``kombu/transport/virtual/base.py``).
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from typing import Any, Final

import msgspec

from chervil.exceptions import DecodeError
from chervil.wire import jsoncodec
from chervil.wire.message import Message
from chervil.wire.saferepr import saferepr


def _envelope(message: Message) -> dict[str, Any]:
    headers = message.headers
    return {
        "content-encoding": message.content_encoding,
        "content-type": message.content_type,
        "headers": headers,
        "properties": {
            "correlation_id": headers.get("id"),
            "reply_to": message.reply_to,
            "delivery_mode": 2,
            **message.properties,
            "delivery_info": {
                "exchange": message.exchange,
                "routing_key": message.routing_key or message.queue,
            },
            "priority": message.priority,
        },
    }


def encode_head(message: Message) -> bytes:
    """The head alone; the body is stored next to it.

    :raises EncodeError: a header or property has no JSON form.
    """
    if message.head is not None:
        return message.head
    return jsoncodec.dumps(_envelope(message))


def encode_full(message: Message) -> bytes:
    """Head and body in one JSON object, the body as base64, with a new delivery tag.

    :raises EncodeError: a header or property has no JSON form.
    """
    whole = _envelope(message)
    whole["body"] = base64.b64encode(message.body).decode("ascii")
    whole["properties"]["body_encoding"] = "base64"
    whole["properties"]["delivery_tag"] = str(uuid.uuid4())
    return jsoncodec.dumps(whole)


# --- the view that the worker's hub takes ------------------------------------------------


class Headers(msgspec.Struct, gc=False):
    """The headers that decide what happens to a message before it is run."""

    #: Empty in a message of task protocol 1, where the body names the task.
    task: str = ""
    id: str = ""
    #: Display name for logs and events.
    shadow: str | None = None
    #: ISO 8601 text, see :func:`chervil.wire.times.parse_time`.
    eta: str | None = None
    expires: str | None = None
    retries: int = 0
    #: Hard limit, soft limit; seconds.
    timelimit: tuple[float | None, float | None] | None = None
    ignore_result: bool | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    #: Content type of the body's compression.
    compression: str | None = None
    redelivered: bool = False
    stamps: dict[str, Any] = {}


class DeliveryInfo(msgspec.Struct, gc=False):
    """Where the message was sent."""

    exchange: str = ""
    routing_key: str = ""


class Properties(msgspec.Struct, gc=False):
    """The properties that the hub needs."""

    correlation_id: str | None = None
    reply_to: str | None = None
    priority: int = 0
    delivery_info: DeliveryInfo = msgspec.field(default_factory=DeliveryInfo)
    #: As celery-node spells it.
    replyTo: str | None = None


class Head(msgspec.Struct, gc=False):
    """What the hub reads of the JSON that :func:`encode_head` or kombu wrote."""

    headers: Headers = msgspec.field(default_factory=Headers)
    properties: Properties = msgspec.field(default_factory=Properties)
    content_type: str = msgspec.field(name="content-type", default="application/json")
    content_encoding: str = msgspec.field(name="content-encoding", default="utf-8")

    @property
    def task(self) -> str:
        """The task name; empty in a message of task protocol 1."""
        return self.headers.task

    @property
    def id(self) -> str:
        """The task id; may be empty in a message of task protocol 1."""
        return self.headers.id

    @property
    def retries(self) -> int:
        """How often it was retried before."""
        return self.headers.retries

    @property
    def eta(self) -> str | None:
        """The time before which it must not run, as ISO 8601 text."""
        return self.headers.eta

    @property
    def expires(self) -> str | None:
        """The time after which it must not run, as ISO 8601 text."""
        return self.headers.expires

    @property
    def timelimit(self) -> tuple[float | None, float | None]:
        """Hard limit, soft limit; seconds."""
        return self.headers.timelimit or (None, None)

    @property
    def compression(self) -> str | None:
        """Content type of the body's compression, if any."""
        return self.headers.compression

    @property
    def reply_to(self) -> str:
        """Address of the client that waits; empty when nobody said."""
        return self.properties.reply_to or self.properties.replyTo or ""

    @property
    def priority(self) -> int:
        """As given by the caller."""
        return self.properties.priority


_decode_head: Final = msgspec.json.Decoder(Head).decode


def decode_head(data: bytes) -> Head:
    """Read the typed view; unknown keys are ignored, missing ones get defaults.

    :raises DecodeError: not JSON, a value of the wrong type, or a task without an id.
    """
    try:
        head = _decode_head(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        head = _decode_head_leniently(data)
    if head.headers.task and not head.headers.id:
        raise DecodeError(f"a message for the task {head.headers.task!r:.200} without an id")
    return head


def glance(data: bytes) -> Head | None:
    """The typed view of a head that :func:`decode` can surely read as a whole; None where
    that may take patience or fail."""
    if not data.isascii() or b"__type__" in data:
        return None
    try:
        head = _decode_head(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return head if head.headers.task and head.headers.id else None


def _decode_head_leniently(data: bytes) -> Head:
    """For what some clients write: null for the default, 3.0 or "3" for 3, NaN..."""
    try:
        whole = _known(json.loads(data), Head)
        for key, cls in (("headers", Headers), ("properties", Properties)):
            if isinstance(whole, dict) and key in whole:
                whole[key] = _known(whole[key], cls)
        return msgspec.convert(whole, Head, strict=False)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise DecodeError(
            f"not the head of a message: {exc}; it starts with {data[:80]!r}"
        ) from exc


def _known(found: Any, cls: type[msgspec.Struct]) -> Any:
    """Without nulls, and without keys that the class has no field for, which may be odd."""
    if not isinstance(found, dict):
        return found
    fields = cls.__struct_encode_fields__
    return {key: found[key] for key in fields if found.get(key) is not None}


# --- the whole message -------------------------------------------------------------------------


def decode(head: bytes, body: bytes | None = None, queue: str = "") -> Message:
    """Read a head and its body, or (``body`` None) kombu's whole envelope.

    ``due`` is left at 0: whether the ``eta`` header still matters is for the caller to
    say, who knows the time zone of naive ones.

    :param queue: the queue it is from; the routing key when empty.
    :raises DecodeError: a part is missing or of the wrong type.
    """
    if body is not None and b"__type__" not in head:
        try:
            return _usual(_decode_usual(head), body, queue)
        except (msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError):
            pass  # Not as :func:`encode_head` writes it: read it with more patience.
    return _decode_any(head, body, queue)


class _Usual(msgspec.Struct, gc=False):
    """A head as :func:`encode_head` writes it."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: str = msgspec.field(name="content-type")
    content_encoding: str = msgspec.field(name="content-encoding")


_decode_usual = msgspec.json.Decoder(_Usual).decode


def _usual(whole: _Usual, body: bytes, queue: str) -> Message:
    """The message of a usual head; this runs once for every task.

    :raises KeyError: something is missing.
    :raises TypeError: something is not of the usual type.
    """
    properties = whole.properties
    info = properties.pop("delivery_info")
    reply_to = properties.pop("reply_to")
    priority = properties.pop("priority")
    exchange, routing_key = info["exchange"], info["routing_key"]
    if (
        type(reply_to) is not str
        or type(priority) is not int
        or type(exchange) is not str
        or type(routing_key) is not str
        or type(properties["correlation_id"]) is not str
        or "delivery_tag" in properties
        or "body_encoding" in properties
    ):
        raise TypeError
    return Message(
        whole.headers,
        body,
        whole.content_type,
        whole.content_encoding,
        queue or routing_key,
        priority,
        0.0,
        reply_to,
        exchange,
        routing_key,
        properties,
    )


def _decode_any(head: bytes, body: bytes | None, queue: str) -> Message:
    whole = jsoncodec.loads(head)
    if not isinstance(whole, dict):
        raise DecodeError(f"the head of a message is a map, this is {saferepr(whole, 120)}")
    headers = _map_in(whole, "headers")
    properties = _map_in(whole, "properties")
    info = _map_in(properties, "delivery_info")
    encoding = properties.pop("body_encoding", None)
    properties.pop("delivery_info", None)
    properties.pop("delivery_tag", None)
    for ours, theirs in (("reply_to", "replyTo"), ("correlation_id", "correlationId")):
        other = properties.pop(theirs, None)
        if properties.get(ours) is None:
            properties[ours] = other
    if body is None:
        body = _body_in(whole, encoding)
    routing_key = _text_in(info, "routing_key", "")
    return Message(
        headers=headers,
        body=body,
        content_type=_text_in(whole, "content-type", "application/json"),
        content_encoding=_text_in(whole, "content-encoding", "utf-8"),
        queue=queue or routing_key,
        priority=_priority_in(properties),
        reply_to=_text_in(properties, "reply_to", ""),
        exchange=_text_in(info, "exchange", ""),
        routing_key=routing_key,
        properties={
            key: value
            for key, value in properties.items()
            if key not in ("reply_to", "priority")
            and (value is not None or key != "correlation_id")
        },
    )


def _map_in(whole: dict[str, Any], key: str) -> dict[str, Any]:
    found = whole.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DecodeError(f"{key} of a message are a map, these are {saferepr(found, 120)}")
    return found


def _text_in(whole: dict[str, Any], key: str, default: str) -> str:
    found = whole.get(key)
    if found is None:
        return default
    if not isinstance(found, str):
        raise DecodeError(f"{key} of a message is text, this is {saferepr(found, 120)}")
    return found


def _priority_in(properties: dict[str, Any]) -> int:
    found = properties.get("priority")
    try:
        return int(found or 0)
    except (TypeError, ValueError, OverflowError) as exc:
        raise DecodeError(f"priority is a whole number, this is {saferepr(found, 80)}") from exc


def _body_in(whole: dict[str, Any], encoding: Any) -> bytes:
    body = _text_in(whole, "body", "")
    try:
        if encoding == "base64":
            return base64.b64decode(body, validate=True)
        return body.encode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError) as exc:
        raise DecodeError(f"the body is not base64 as it says: {exc}") from exc
