"""Messages of task protocol 1, in which everything is in a map in the body.

They are turned into messages of protocol 2 when they arrive, so that the rest of
the program knows only one kind (source of the fields: celery/celery
``celery/app/amqp.py``, ``as_task_v1``, and ``celery/worker/strategy.py``).
"""

from __future__ import annotations

from typing import Any

from chervil.exceptions import DecodeError
from chervil.wire import celery_v2
from chervil.wire.message import Message
from chervil.wire.saferepr import saferepr


def is_v1(headers: dict[str, Any]) -> bool:
    """Whether these headers leave the task to the body."""
    return not headers.get("task")


def upgrade(message: Message, accept: frozenset[str] | None = None) -> Message:
    """Turn a message of protocol 1 into one of protocol 2; others are returned as they are.

    A message with the headers of protocol 2 and the map of protocol 1 as its body needs
    no upgrade: :func:`chervil.wire.celery_v2.decode_body` reads it.

    :param accept: content types to be read at all; None trusts the sender.
    :raises ContentDisallowed: the content type is not in ``accept``.
    :raises DecodeError: the body is no such map.
    """
    if not is_v1(message.headers):
        return message
    how = message.headers.get("compression")
    body = celery_v2.load_body(
        message.body, message.content_type, message.content_encoding, how, accept
    )
    if not isinstance(body, dict):
        raise DecodeError(
            "the headers name no task, and the body is not the map of task protocol 1 but "
            f"{saferepr(body, 120)}"
        )
    headers = headers_of(body, message.headers)
    args, kwargs, embed = celery_v2.split_body(body)
    headers["argsrepr"] = saferepr(tuple(args))
    headers["kwargsrepr"] = saferepr(kwargs)
    new = celery_v2.encode_body(args, kwargs, embed, message.content_type, how)
    return Message(
        headers=headers,
        body=new.data,
        content_type=new.content_type,
        content_encoding=new.content_encoding,
        queue=message.queue,
        priority=message.priority,
        due=message.due,
        reply_to=message.reply_to,
        exchange=message.exchange,
        routing_key=message.routing_key,
        properties=message.properties,
    )


def headers_of(body: dict[Any, Any], others: dict[str, Any]) -> dict[str, Any]:
    """The headers of protocol 2 for the map of protocol 1.

    :param others: headers that the message had; kept.
    :raises DecodeError: the map lacks the task name or the id.
    """
    for key in ("task", "id"):
        if not isinstance(body.get(key), str) or not body[key]:
            raise DecodeError(f"a message of task protocol 1 without {key}: {saferepr(body, 200)}")
    group = body.get("group")
    return {
        **others,
        "lang": "py",
        "task": body["task"],
        "id": body["id"],
        "shadow": None,
        "eta": _with_offset(body.get("eta"), body.get("utc")),
        "expires": _with_offset(body.get("expires"), body.get("utc")),
        "group": body.get("taskset") if group is None else group,
        "group_index": body.get("group_index"),
        "retries": body.get("retries") or 0,
        "timelimit": body.get("timelimit") or [None, None],
        "root_id": body["id"],
        "parent_id": None,
        "ignore_result": None,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _with_offset(text: Any, utc: Any) -> Any:
    """``utc`` says that times without an offset are meant in UTC."""
    if not utc or not isinstance(text, str) or "T" not in text:
        return text
    clock = text.partition("T")[2]
    if clock.endswith(("Z", "z")) or "+" in clock or "-" in clock:
        return text
    return text + "+00:00"
