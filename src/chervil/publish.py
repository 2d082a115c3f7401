"""From a call to messages, and from messages to the broker.

``Publisher.message`` builds any message. What is the same for all plain calls of
one task is kept in a :class:`Plan`, with which a message costs a few microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from chervil import clock, signals
from chervil.context import Context, current_request
from chervil.exceptions import (
    ImproperlyConfigured,
    MessageTooLarge,
    OperationalError,
    PublishError,
)
from chervil.groupcommit import GroupCommit
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
from chervil.wire.message import Message

if TYPE_CHECKING:
    import asyncio

    from chervil.app import Chervil
    from chervil.drivers.contracts import Broker
    from chervil.routing import Route
    from chervil.task import Task

_OURS = frozenset(CHECKS) | ACCEPTED
_MODES = {"persistent": 2, "transient": 1}


class Plan(msgspec.Struct, gc=False):
    """What all plain calls of a task have in common."""

    #: ``Settings.version`` that it was made for.
    version: int
    #: All headers in Celery's order; id, root_id and the two reprs are to be filled in.
    headers: dict[str, Any]
    properties: dict[str, Any]
    serializer: str
    compression: str | None
    queue: str
    exchange: str
    routing_key: str
    priority: int
    reply_to: str
    max_size: int

    def message(self, args: Any, kwargs: Any) -> Message:
        """The message of a call without options."""
        headers = self.headers.copy()
        headers["id"] = headers["root_id"] = new_id()
        headers["argsrepr"] = saferepr(args)
        headers["kwargsrepr"] = saferepr(kwargs) if kwargs else "{}"
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
        )


def too_large(headers: Mapping[str, Any], size: int, limit: int) -> MessageTooLarge:
    """The error for a body over ``task_max_size``."""
    return MessageTooLarge(
        f"the message of {headers['task']}[{headers['id']}] has {size:,} bytes, more than "
        f"task_max_size ({limit:,}); pass a reference to the data instead"
    )


class Publisher:
    """Builds and sends the messages of one app."""

    def __init__(self, app: Chervil) -> None:
        self._app = app
        self._commit = GroupCommit(self.send)

    # --- building

    def plan(self, task: Task[Any, Any]) -> Plan | None:
        """A plan for the calls of a task; None when each call has to be looked at."""
        app, conf = self._app, self._app.conf
        options = task.send_options()
        check(options, task.name)
        serializer = options.get("serializer") or conf.task_serializer
        check_serializer(serializer, task.name)
        compression = options.get("compression") or conf.task_compression
        check_compression(compression, task.name)
        if options.get("expires") is not None or app.router.depends_on_arguments(task.name):
            return None
        route = app.router.route(task.name, dict(options), (), {}, task)
        headers = self._headers(task.name, "", {**options, **route.options}, None, None)
        return Plan(
            version=conf.version,
            headers=headers,
            properties=self._properties(options, None),
            serializer=serializer,
            compression=compression,
            queue=route.queue,
            exchange=route.exchange,
            routing_key=route.routing_key,
            priority=_priority(route, options),
            reply_to=app.address,
            max_size=conf.task_max_size,
        )

    def message(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        task: Task[Any, Any] | None = None,
        inherit: bool = True,
    ) -> Message:
        """Build the message of one call, with everything that can be said about it.

        :param options: those of ``apply_async``, together with ``link``, ``task_id``...
        :param task: the task, when it is known here; routers get it.
        :param inherit: take parent, root and perhaps priority from the task that is
            running.
        :raises ImproperlyConfigured: an option is wrong; nothing was sent.
        :raises EncodeError: the arguments cannot be serialized.
        :raises MessageTooLarge: more bytes than ``task_max_size``.
        """
        app, conf = self._app, self._app.conf
        args = () if args is None else args
        kwargs = {} if kwargs is None else kwargs
        options = dict(options or {})
        check(options, name)
        if inherit:
            self._inherit(options)
        route = app.router.route(name, options, args, kwargs, task)
        options = {**options, **route.options}
        now, zone = clock.now(), app.zone
        eta, due = delay_of(options, zone, now, name)
        expires, expiration = expiry_of(options.get("expires"), zone, now, name)
        task_id = options.get("task_id") or new_id()
        headers = self._headers(name, task_id, options, eta, expires)
        headers["argsrepr"] = options.get("argsrepr") or saferepr(args)
        headers["kwargsrepr"] = options.get("kwargsrepr") or saferepr(kwargs)
        properties = self._properties(options, expiration)
        embed = _embed(options)
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
        reply_to = options.get("reply_to")
        return Message(
            headers=headers,
            body=data,
            content_type=content_type,
            content_encoding=encoding,
            queue=route.queue,
            priority=_priority(route, options),
            due=due,
            reply_to=app.address if reply_to is None else reply_to,
            exchange=route.exchange,
            routing_key=route.routing_key,
            properties=properties,
        )

    def _inherit(self, options: dict[str, Any]) -> None:
        parent = running_request()
        if parent is None:
            return
        if options.get("root_id") is None:
            options["root_id"] = parent.root_id or parent.id
        if options.get("parent_id") is None:
            options["parent_id"] = parent.id
        if self._app.conf.task_inherit_parent_priority and options.get("priority") is None:
            options["priority"] = (parent.delivery_info or {}).get("priority")

    def _headers(
        self,
        name: str,
        task_id: str,
        options: Mapping[str, Any],
        eta: str | None,
        expires: str | None,
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

    def _properties(self, options: Mapping[str, Any], expiration: str | None) -> dict[str, Any]:
        stamps = options.get("stamped_headers") or ()
        properties = {
            key: value
            for key, value in options.items()
            if key not in _OURS and key not in stamps and value is not None
        }
        mode = options.get("delivery_mode") or self._app.conf.task_default_delivery_mode
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

    # --- sending

    def send(
        self,
        messages: Sequence[Message],
        options: Mapping[str, Any] | None = None,
        bodies: Sequence[Any] = (),
    ) -> None:
        """Store messages in the broker, trying again within ``publish_timeout``.

        :param options: ``retry``, ``retry_policy``, ``producer`` and ``connection`` of
            ``apply_async``.
        :param bodies: for ``after_task_publish``: (args, kwargs, embed) of each message.
        :raises BrokerUnavailable: none were stored.
        :raises PublishError: some were not; it names them.
        """
        broker = self._app.broker
        if options:
            broker = _broker_of(options) or broker
        try:
            broker.publish(messages)
        except OperationalError as exc:
            self._try_again(broker, messages, exc, options or {})
        if signals.after_task_publish.receivers:
            _after(messages, bodies)

    def _try_again(
        self,
        broker: Broker,
        messages: Sequence[Message],
        error: OperationalError,
        options: Mapping[str, Any],
    ) -> None:
        conf = self._app.conf
        retry = options.get("retry")
        if not (conf.task_publish_retry if retry is None else retry):
            raise error
        policy = {**conf.task_publish_retry_policy, **(options.get("retry_policy") or {})}
        most, attempt = policy["max_retries"], 0
        # The driver's own attempts have used up some of the time already.
        deadline = clock.monotonic() + conf.publish_timeout
        while most is None or attempt < most:
            pause = policy["interval_start"] + policy["interval_step"] * attempt
            pause = min(pause, policy["interval_max"])
            if clock.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
            attempt += 1
            if isinstance(error, PublishError) and error.failed:
                failed = set(error.failed)
                messages = [message for message in messages if message.id in failed]
            try:
                broker.publish(messages)
            except OperationalError as exc:
                error = exc
            else:
                return
        raise error

    async def asend(self, messages: Sequence[Message]) -> None:
        """:meth:`send` for coroutines, together with what others send at the same time."""
        import asyncio  # whoever calls this has it already

        await self.submit(messages, asyncio.get_running_loop())

    def submit(
        self, messages: Sequence[Message], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[None]:
        """Have messages stored by the publisher thread; see :class:`GroupCommit`."""
        return self._commit.submit(messages, loop)

    def reset(self) -> None:
        """In the child after a fork: the parent's thread is not here."""
        self._commit.reset()

    def close(self) -> None:
        """Send what is waiting, and stop the publisher thread."""
        self._commit.close()


def running_request() -> Context | None:
    """The request of the task that runs here, behind direct calls of others."""
    request = current_request.get()
    while request is not None and request.id is None:
        request = request.outer
    return request


def _embed(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is to happen after the task, for the body; None for nothing."""
    link, link_error = options.get("link"), options.get("link_error")
    chain, chord = options.get("chain"), options.get("chord")
    if not (link or link_error or chain or chord or chain == []):
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


def _priority(route: Route, options: Mapping[str, Any]) -> int:
    priority = route.priority
    if priority is None:
        priority = options.get("priority")
    return priority or 0


def _broker_of(options: Mapping[str, Any]) -> Broker | None:
    """An open broker that was given as ``producer`` or ``connection``."""
    for key in ("producer", "publisher", "connection"):
        given = options.get(key)
        if given is not None:
            if not hasattr(given, "publish") or not hasattr(given, "declare"):
                raise ImproperlyConfigured(
                    f"{key}={given!r}: must be a broker, such as app.broker; leave it out to "
                    "use the app's own"
                )
            broker: Broker = given
            return broker
    return None


def _after(messages: Sequence[Message], bodies: Sequence[Any]) -> None:
    for number, message in enumerate(messages):
        signals.after_task_publish.send(
            sender=message.headers["task"],
            body=bodies[number] if number < len(bodies) else None,
            exchange=message.exchange,
            routing_key=message.routing_key,
            headers=message.headers,
            properties=message.properties,
        )
