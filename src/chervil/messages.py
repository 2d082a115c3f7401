"""From a call to its message.

:meth:`MessageBuilder.build` serves every call. What is the same for all plain calls
of one task is kept in a :class:`Plan`, with which a message costs a few microseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from chervil import clock, signals
from chervil.context import Context, current_request
from chervil.exceptions import MessageTooLarge
from chervil.identity import origin
from chervil.ids import new_id
from chervil.options import (
    ACCEPTED,
    CHECKS,
    check,
    check_compression,
    check_serializer,
    delay_of,
    expiry_of,
)
from chervil.wire.celery_v2 import encode_body, saferepr
from chervil.wire.envelope import encode_head
from chervil.wire.message import Message

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.routing import Route
    from chervil.task import Task

_OURS = frozenset(CHECKS) | ACCEPTED
_MODES: dict[Any, int] = {"persistent": 2, "transient": 1}


class Plan(msgspec.Struct, gc=False):
    """What all plain calls of a task have in common."""

    #: ``Settings.version`` that it was made for.
    version: int
    #: False: calls differ, so that each has to be built on its own.
    plain: bool = False
    #: All headers in Celery's order; id, root_id and the two reprs are to be filled in.
    headers: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    serializer: str = ""
    compression: str | None = None
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    priority: int = 0
    reply_to: str = ""
    #: Bytes; 0 is no limit.
    max_size: int = 0
    #: The encoded head with places for what differs from call to call.
    head: HeadTemplate | None = None

    def message(self, args: Any, kwargs: Any) -> Message:
        """The message of a call without options."""
        headers = self.headers.copy()
        task_id = new_id()
        headers["id"] = headers["root_id"] = task_id
        headers["argsrepr"] = argsrepr = saferepr(args)
        kwargsrepr = "{}"
        if kwargs:
            headers["kwargsrepr"] = kwargsrepr = saferepr(kwargs)
        data, content_type, encoding, compressed = encode_body(
            args, kwargs, None, self.serializer, self.compression
        )
        if compressed is not None:
            headers["compression"] = compressed
        if self.max_size and len(data) > self.max_size:
            raise too_large(headers, len(data), self.max_size)
        return Message(
            headers,
            data,
            content_type,
            encoding,
            self.queue,
            self.priority,
            0.0,
            self.reply_to,
            self.exchange,
            self.routing_key,
            self.properties,
            None if self.head is None else self.head.fill(task_id, argsrepr, kwargsrepr),
        )


class HeadTemplate:
    """The head of a task's messages, encoded once.

    Encoding a head costs more than all else that a call does; what differs between
    two calls of one task are the id, which it has three times, and two texts.

    :raises ValueError: the head of that message does not have them in that order.
    """

    _ID, _ARGS, _KWARGS = "\x02id\x03", "\x02args\x03", "\x02kwargs\x03"

    def __init__(self, message: Message) -> None:
        headers = {
            **message.headers,
            "id": self._ID,
            "root_id": self._ID,
            "argsrepr": self._ARGS,
            "kwargsrepr": self._KWARGS,
        }
        encoded = encode_head(msgspec.structs.replace(message, headers=headers, head=None))
        marks = {_json(self._ID): "i", _json(self._ARGS): "a", _json(self._KWARGS): "k"}
        pattern = re.compile(b"|".join(re.escape(mark) for mark in marks))
        if [marks[mark] for mark in pattern.findall(encoded)] != [*"iiaki"]:
            raise ValueError(f"cannot make a template of the head {encoded!r}")
        self._template = pattern.sub(b"%b", encoded.replace(b"%", b"%%"))

    def fill(self, task_id: str, argsrepr: str, kwargsrepr: str) -> bytes | None:
        """The head of one call; None when a text is not plain enough to be put in."""
        try:
            quoted = b'"%b"' % task_id.encode()
            return self._template % (quoted, quoted, _json(argsrepr), _json(kwargsrepr), quoted)
        except (ValueError, TypeError):  # lone surrogates
            return None


_json = msgspec.json.Encoder().encode


class MessageBuilder:
    """Builds the messages of one app."""

    def __init__(self, app: Chervil) -> None:
        self._app = app

    def plan(self, task: Task[Any, Any]) -> Plan:
        """The plan for the calls of a task that give no options.

        :raises ImproperlyConfigured: an option of the task is wrong.
        """
        app, conf = self._app, self._app.conf
        own = task.send_options()
        check(own, task.name)
        check_serializer(conf.task_serializer, "task_serializer")
        check_compression(conf.task_compression, "task_compression")
        if app.router.depends_on_arguments(task.name):
            return Plan(conf.version)
        route = app.router.route(task.name, None, (), {}, task)
        options = {**own, **route.options}
        if (
            len(route.queues) > 1
            or options.get("expires") is not None
            or not set(route.options) <= {"serializer", "compression", "priority"}
        ):
            return Plan(conf.version)
        plan = Plan(
            version=conf.version,
            plain=True,
            headers=_headers(task.name, "", options, None, None),
            properties=self._properties(options, None),
            serializer=options.get("serializer") or conf.task_serializer,
            compression=options.get("compression") or conf.task_compression,
            queue=route.queue,
            exchange=route.exchange,
            routing_key=route.routing_key,
            priority=route.priority or 0,
            reply_to=app.address,
            max_size=conf.task_max_size,
        )
        if plan.compression is None:  # which has a header of its own
            plan.head = HeadTemplate(plan.message((), {}))
        return plan

    def message(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        task: Task[Any, Any] | None = None,
        inherit: bool = True,
    ) -> Message:
        """The message of one call for one queue; parameters and errors as in :meth:`build`."""
        return self.build(name, args, kwargs, options, task, inherit)[0]

    def build(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        task: Task[Any, Any] | None = None,
        inherit: bool = True,
    ) -> list[Message]:
        """The message of one call, once for each queue that it belongs into.

        :param options: those of ``apply_async``, together with ``link``, ``task_id``...
        :param task: the task, when it is known here; its own options count.
        :param inherit: take parent, root and perhaps priority from the task that is
            running.
        :raises ImproperlyConfigured: an option is wrong.
        :raises EncodeError: the arguments cannot be serialized.
        :raises MessageTooLarge: more bytes than ``task_max_size``.
        """
        app, conf = self._app, self._app.conf
        args = () if args is None else args
        kwargs = {} if kwargs is None else kwargs
        options = {k: v for k, v in options.items() if v is not None} if options else {}
        check(options, name)
        if inherit:
            self._inherit(options)
        route = app.router.route(name, options, args, kwargs, task)
        own = task.send_options() if task is not None else {}
        options = {**own, **route.options, **options}
        now, zone = clock.now(), app.zone
        eta, due = delay_of(options, zone, now, name)
        expires, expiration = expiry_of(options.get("expires"), zone, now, name)
        headers = _headers(name, options.get("task_id") or new_id(), options, eta, expires)
        headers["argsrepr"] = options.get("argsrepr") or saferepr(args)
        headers["kwargsrepr"] = options.get("kwargsrepr") or saferepr(kwargs)
        properties = self._properties(options, expiration)
        embed = embed_of(options)
        if signals.before_task_publish.receivers:
            self._before(name, (args, kwargs, embed), headers, properties, route, options)
        data, content_type, encoding, compressed = encode_body(
            args,
            kwargs,
            embed,
            options.get("serializer") or conf.task_serializer,
            options.get("compression") or conf.task_compression,
        )
        if compressed is not None:
            headers["compression"] = compressed
        if conf.task_max_size and len(data) > conf.task_max_size:
            raise too_large(headers, len(data), conf.task_max_size)
        message = Message(
            headers=headers,
            body=data,
            content_type=content_type,
            content_encoding=encoding,
            queue=route.queue,
            priority=route.priority or 0,
            due=due,
            reply_to=options.get("reply_to", app.address),
            exchange=route.exchange,
            routing_key=route.routing_key,
            properties=properties,
        )
        if len(route.queues) == 1:
            return [message]
        return [msgspec.structs.replace(message, queue=queue) for queue in route.queues]

    def _inherit(self, options: dict[str, Any]) -> None:
        parent = running_request()
        if parent is None:
            return
        options.setdefault("root_id", parent.root_id or parent.id)
        options.setdefault("parent_id", parent.id)
        if self._app.conf.task_inherit_parent_priority and "priority" not in options:
            priority = (parent.delivery_info or {}).get("priority")
            if priority is not None:
                options["priority"] = priority

    def _properties(self, options: Mapping[str, Any], expiration: str | None) -> dict[str, Any]:
        stamps = options.get("stamped_headers") or ()
        properties = {
            key: value for key, value in options.items() if key not in _OURS and key not in stamps
        }
        mode: Any = options.get("delivery_mode") or self._app.conf.task_default_delivery_mode
        mode = _MODES.get(mode, mode)
        if mode != 2:  # drivers and readers take 2 for granted
            properties["delivery_mode"] = mode
        if expiration is not None:
            properties["expiration"] = expiration
        return properties

    def _before(
        self,
        name: str,
        body: tuple[Any, Any, Any],
        headers: dict[str, Any],
        properties: dict[str, Any],
        route: Route,
        options: Mapping[str, Any],
    ) -> None:
        properties.setdefault("correlation_id", headers["id"])
        signals.before_task_publish.send(
            sender=name,
            body=body,
            exchange=route.exchange,
            routing_key=route.routing_key,
            headers=headers,
            properties=properties,
            declare=[],
            retry_policy=options.get("retry_policy") or self._app.conf.task_publish_retry_policy,
        )


def _headers(
    name: str, task_id: str, options: Mapping[str, Any], eta: str | None, expires: str | None
) -> dict[str, Any]:
    """The headers of task protocol 2, in Celery's order."""
    stamped = options.get("stamped_headers")
    stamps = options.get("stamps") or {key: options.get(key) for key in stamped or ()}
    headers = {
        "lang": "py",
        "task": name,
        "id": task_id,
        "shadow": options.get("shadow"),
        "eta": eta,
        "expires": expires,
        "group": options.get("group_id"),
        "group_index": options.get("group_index"),
        "retries": options.get("retries") or 0,
        "timelimit": [options.get("time_limit"), options.get("soft_time_limit")],
        "root_id": options.get("root_id") or task_id,
        "parent_id": options.get("parent_id"),
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": origin(),
        "ignore_result": options.get("ignore_result"),
        "replaced_task_nesting": options.get("replaced_task_nesting") or 0,
        "stamped_headers": list(stamped) if stamped is not None else None,
        "stamps": stamps,
    }
    extra = options.get("headers")
    if extra:
        headers.update(extra)
    return headers


def embed_of(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is to happen after the task, for the body; None for nothing."""
    link, link_error = options.get("link"), options.get("link_error")
    chain, chord = options.get("chain"), options.get("chord")
    if not link and not link_error and chord is None and chain is None:
        return None
    return {
        "callbacks": _listed(link),
        "errbacks": _listed(link_error),
        "chain": chain,
        "chord": chord,
    }


def _listed(value: Any) -> list[Any] | None:
    if not value:
        return None
    return list(value) if isinstance(value, (list, tuple)) else [value]


def running_request() -> Context | None:
    """The request of the task that runs here, behind direct calls of others."""
    request = current_request.get()
    while request is not None and request.id is None:
        request = request.outer
    return request


def too_large(headers: Mapping[str, Any], size: int, limit: int) -> MessageTooLarge:
    """The error for a body over ``task_max_size``."""
    return MessageTooLarge(
        f"the message of {headers['task']}[{headers['id']}] has {size:,} bytes, more than "
        f"task_max_size ({limit:,}); pass a reference to the data instead"
    )
