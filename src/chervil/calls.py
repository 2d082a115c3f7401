"""The ways to call a task: ``delay`` and its relatives, one at a time, in bulk, awaited, eager."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from chervil import signals, states
from chervil.canvas.signature import Signature, maybe_signature
from chervil.context import Context, current_request
from chervil.eager import EagerResult
from chervil.exceptions import ImproperlyConfigured, Retry
from chervil.execution import Ending, execute
from chervil.identity import host_name
from chervil.ids import new_id
from chervil.messages import Plan, embed_of, running_request
from chervil.options import check_call_limits
from chervil.result import AsyncResult
from chervil.signatures import signature_text
from chervil.wire import serializers
from chervil.wire.message import Message

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.models import Models
    from chervil.task import Task

P = ParamSpec("P")
R = TypeVar("R")

#: For ``apply_many``: positional arguments, keyword arguments, or both as a signature.
Call = tuple[Any, ...] | list[Any] | Mapping[str, Any]


class Calls(Generic[P, R]):
    """What all tasks have for being called; part of :class:`chervil.task.Task`."""

    if TYPE_CHECKING:
        name: str
        trail: bool
        ignore_result: bool
        store_eager_result: bool

        @property
        def app(self) -> Chervil: ...

    _app: Chervil | None = None
    _plan: Plan | None = None
    _checker: Callable[..., Any] | None = None
    _models: Models | None = None
    #: ``shadow_name`` is the task's own.
    _names_shadows = False

    # --- one call

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments.

        :raises TypeError: the function does not take them.
        :raises EncodeError: they cannot be serialized.
        :raises BrokerUnavailable: the task was not stored.
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send the task, with options.

        :param args: positional arguments.
        :param kwargs: keyword arguments.
        :param task_id: use this id instead of a new one.
        :param producer: an open broker to send with instead of the app's.
        :param link: signature, or list of them, to send with the result on success.
        :param link_error: signature, or list of them, to send on failure.
        :param shadow: name to show in logs and events instead of the task's.
        :param options: ``countdown`` (seconds), ``eta`` (datetime; naive: in the app's
            ``timezone``), ``expires`` (seconds, timedelta or datetime), ``queue``,
            ``exchange``, ``routing_key``, ``priority`` (0 to 255, larger is sooner),
            ``headers`` (dict), ``serializer``, ``compression``, ``retry`` (bool),
            ``retry_policy`` (dict), ``ignore_result`` (bool), ``time_limit`` and
            ``soft_time_limit`` (seconds), ``argsrepr`` and ``kwargsrepr``, ``reply_to``,
            ``add_to_parent`` (bool). Names that are not known become properties of the
            message.
        :raises TypeError: wrong arguments; with ``pydantic=True`` also ValidationError.
        :raises ImproperlyConfigured: an option is wrong; nothing was sent.
        :raises EncodeError: the arguments cannot be serialized.
        :raises BrokerUnavailable: the task was not stored.
        """
        app = self._app or self._adopted()
        plan = self._plan
        if (
            options
            or plan is None
            or not plan.plain
            or plan.version != app.conf.version
            or (type(args) is not tuple and type(args) is not list)
            or type(kwargs) is not dict
            or task_id is not None
            or producer is not None
            or link is not None
            or link_error is not None
            or shadow is not None
            or signals.before_task_publish.receivers
            or signals.after_task_publish.receivers
            or current_request.get() is not None
        ):
            options.update(
                task_id=task_id, producer=producer, link=link, link_error=link_error, shadow=shadow
            )
            return self._send(args, kwargs, options)
        if self._checker is not None:
            try:
                self._checker(*args, **kwargs)
            except TypeError as exc:
                raise self._wrong_call(exc) from None
        message = plan.message(args, kwargs)
        app.publisher.send((message,))
        return self._sent(message)

    def _send(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: dict[str, Any]
    ) -> AsyncResult[R]:
        """Send one call, whatever its options."""
        args, kwargs = self._checked(args, kwargs)
        app = self.app
        if app.conf.task_always_eager:
            return self._apply_as_sent(args, kwargs, options)
        messages = self._built(args, kwargs, options)
        bodies = [(args, kwargs, embed_of(options))] * len(messages)
        app.publisher.send(messages, options, bodies)
        return self._sent(messages[0], options.get("add_to_parent"))

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """:meth:`delay` for coroutines; calls of the same time are stored together."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """:meth:`apply_async` for coroutines; ``retry`` and ``producer`` have no effect."""
        args, kwargs = self._checked(args, kwargs)
        app = self.app
        if app.conf.task_always_eager:
            return self._apply_as_sent(args, kwargs, options)
        plan = None if options else self._plain_plan()
        messages = [plan.message(args, kwargs)] if plan else self._built(args, kwargs, options)
        await app.publisher.asend(messages)
        return self._sent(messages[0], options.get("add_to_parent"))

    # --- many calls

    def apply_many(self, calls: Iterable[Call], **options: Any) -> list[AsyncResult[R]]:
        """Send many calls in one batch, which is stored as a whole where the broker can.

        :param calls: for each call a tuple or list (positional arguments), a dict
            (keyword arguments) or a signature of this task (with options of its own).
        :param options: those of :meth:`apply_async`, for all calls.
        :returns: one result for each call, in their order.
        :raises TypeError: a call has wrong arguments; nothing was sent.
        :raises PublishError: some were not stored; it names them.
        """
        if self.app.conf.task_always_eager:
            return [self._apply_call(call, options) for call in calls]
        results, messages = self._prepared(calls, options)
        if messages:
            self.app.publisher.send(messages, options or None)
        return results

    async def aapply_many(self, calls: Iterable[Call], **options: Any) -> list[AsyncResult[R]]:
        """:meth:`apply_many` for coroutines."""
        if self.app.conf.task_always_eager:
            return [self._apply_call(call, options) for call in calls]
        results, messages = self._prepared(calls, options)
        if messages:
            await self.app.publisher.asend(messages)
        return results

    def _prepared(
        self, calls: Iterable[Call], options: Mapping[str, Any]
    ) -> tuple[list[AsyncResult[R]], list[Message]]:
        results: list[AsyncResult[R]] = []
        messages: list[Message] = []
        plan = None if options else self._plain_plan()
        for call in calls:
            if plan is not None and type(call) is tuple:
                if self._checker is not None:
                    try:
                        self._checker(*call)
                    except TypeError as exc:
                        raise self._wrong_call(exc, len(messages)) from None
                message = plan.message(call, {})
                messages.append(message)
            else:
                args, kwargs, own = self._call_of(call, options)
                args, kwargs = self._checked(args, kwargs)
                built = self._built(args, kwargs, own)
                messages.extend(built)
                message = built[0]
            results.append(self._sent(message, options.get("add_to_parent")))
        return results, messages

    def _call_of(
        self, call: Call, options: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any], dict[str, Any]]:
        """Arguments and options of one of many calls."""
        if isinstance(call, Signature):
            if call["task"] != self.name:
                raise ImproperlyConfigured(
                    f"apply_many of {self.name} got a signature of {call['task']}"
                )
            return call.args, call.kwargs, {**call.options, **options}
        if isinstance(call, Mapping):
            return (), call, dict(options)
        if isinstance(call, (tuple, list)):
            return call, {}, dict(options)
        raise TypeError(
            f"apply_many of {self.name}: a call is a tuple or list of positional arguments, a "
            f"dict of keyword arguments or a signature, not {call!r:.100}"
        )

    # --- parts of a call

    def _adopted(self) -> Chervil:
        """A task that no app has yet becomes one of the current app."""
        app = self.app
        app.register_task(cast("Task[Any, Any]", self))
        return app

    def _plain_plan(self) -> Plan | None:
        """The plan, when a call without options may use it; made again when out of date."""
        app = self._app or self._adopted()
        plan = self._plan
        if plan is None or plan.version != app.conf.version:
            app.finalize(auto=True)
            plan = self._plan = app.publisher.plan(cast("Task[Any, Any]", self))
            if self._models is not None or self._names_shadows:
                plan.plain = False
        if (
            not plan.plain
            or signals.before_task_publish.receivers
            or signals.after_task_publish.receivers
            or current_request.get() is not None
        ):
            return None
        return plan

    def _checked(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Arguments that the function takes, in a form that can be sent.

        :raises TypeError: it does not take them.
        """
        if args is None:
            args = ()
        elif not isinstance(args, (tuple, list)):
            raise TypeError(f"{self.name}: args must be a list or tuple, not {args!r:.100}")
        if kwargs is None:
            kwargs = {}
        elif not isinstance(kwargs, Mapping):
            raise TypeError(f"{self.name}: kwargs must be a dict, not {kwargs!r:.100}")
        if self._checker is not None:
            try:
                self._checker(*args, **kwargs)
            except TypeError as exc:
                raise self._wrong_call(exc) from None
        if self._models is not None:
            first = (self,) if cast("Task[Any, Any]", self)._bound else ()
            args, kwargs = self._models.outgoing(first, args, kwargs)
        return args, kwargs

    def _wrong_call(self, exc: TypeError, number: int | None = None) -> TypeError:
        task = cast("Task[Any, Any]", self)
        text = signature_text(task.function, skip_first=task._bound)
        which = "" if number is None else f"call number {number}: "
        return TypeError(f"{which}{exc}; the task is {self.name}{text}")

    def _built(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> list[Message]:
        plan = None if options.keys() - _EMPTY or any(options.values()) else self._plain_plan()
        if plan is not None:
            return [plan.message(args, kwargs)]
        task = cast("Task[Any, Any]", self)
        check_call_limits(options, task)
        if self._names_shadows and not options.get("shadow"):
            options = {**options, "shadow": task.shadow_name(args, kwargs, options)}
        return self.app.publisher.build(self.name, args, kwargs, options, task)

    def messages_of(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> list[Message]:
        """The message of one call, once for each queue that it belongs into.

        :raises TypeError: the function does not take these arguments.
        """
        args, kwargs = self._checked(args, kwargs)
        return self._built(args, kwargs, options)

    def _sent(self, message: Message, add_to_parent: bool | None = None) -> AsyncResult[R]:
        """The result of a call that was sent."""
        headers = message.headers
        result: AsyncResult[R] = AsyncResult(headers["id"], None, self.name, self._app)
        result._sent_from = message.reply_to
        if headers["ignore_result"]:
            result.ignored = True
        if current_request.get() is not None and add_to_parent is not False:
            note_child(self.app, result)
        return result

    def shadow_name(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> str | None:
        """The name to show for a call in logs and events; for subclasses."""
        return None

    # --- here and now

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: dict[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the task in this process, with hooks, signals and retries (without delays).

        :param throw: raise the task's exception here; None: ``task_eager_propagates``.
        :param options: those of :meth:`apply_async`, if they concern more than the message.
        """
        app, task = self.app, cast("Task[Any, Any]", self)
        app.finalize(auto=True)
        request = Context(
            id=task_id or new_id(),
            task=self.name,
            args=list(args or ()),
            kwargs=dict(kwargs or {}),
            retries=retries or 0,
            is_eager=True,
            called_directly=False,
            logfile=logfile,
            loglevel=loglevel or 0,
            hostname=host_name(),
            callbacks=_signatures(link),
            errbacks=_signatures(link_error),
            headers=headers,
            ignore_result=options.get("ignore_result", self.ignore_result),
            root_id=options.get("root_id"),
            parent_id=options.get("parent_id"),
            group=options.get("group_id"),
            group_index=options.get("group_index"),
            delivery_info={
                "is_eager": True,
                "exchange": options.get("exchange"),
                "routing_key": options.get("routing_key"),
                "priority": options.get("priority"),
            },
            _protected=1,
        )
        request.outer = current_request.get()
        ending = self._run_with_retries(request)
        if self.store_eager_result and not request.ignore_result:
            task.store_outcome(request.id or "", ending.status, ending.value, ending.traceback)
        propagate = app.conf.task_eager_propagates if throw is None else throw
        if ending.status == states.FAILURE:
            if propagate or not isinstance(ending.value, Exception):
                raise ending.value
            for errback in request.errbacks or ():
                maybe_signature(errback, app).apply_async((request.id,))
        elif ending.status == states.SUCCESS:
            for callback in request.callbacks or ():
                maybe_signature(callback, app).apply_async((ending.value,))
        return EagerResult(
            request.id or "", ending.value, ending.status, ending.traceback, self.name, app
        )

    def _run_with_retries(self, request: Context) -> Ending:
        while True:
            ending = execute(cast("Task[Any, Any]", self), request, request.args, request.kwargs)
            retry = ending.value
            if not isinstance(retry, Retry) or retry.sig is None:
                return ending
            request.update(
                args=list(retry.sig["args"]),
                kwargs=dict(retry.sig["kwargs"]),
                retries=request.retries + 1,
            )

    def _apply_as_sent(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> EagerResult[R]:
        """Run at once, with arguments that have been through the serializer."""
        given = {key: value for key, value in options.items() if value is not None}
        task = cast("Task[Any, Any]", self)
        name = given.get("serializer") or task.serializer
        content_type, encoding, data = serializers.dumps((args, kwargs), name)
        args, kwargs = serializers.loads(data, content_type, encoding, None)
        given.pop("retries", None)
        return self.apply(args, kwargs, retries=options.get("retries"), **given)

    def _apply_call(self, call: Call, options: Mapping[str, Any]) -> AsyncResult[R]:
        args, kwargs, own = self._call_of(call, options)
        return self._send(args, kwargs, own)


#: What ``apply_async`` adds to the options by itself.
_EMPTY = frozenset({"task_id", "producer", "link", "link_error", "shadow"})


def note_child(app: Chervil, result: AsyncResult[Any]) -> None:
    """Remember something as sent by the task that is running, unless that has no trail."""
    parent = running_request()
    if parent is not None and parent.task is not None:
        task = app.tasks.get(parent.task)
        if task is None or task.trail:
            parent.children.append(result)


def _signatures(value: Any) -> list[Any] | None:
    if not value:
        return None
    return list(value) if isinstance(value, (list, tuple)) else [value]
