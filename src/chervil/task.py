"""A task: a function, and how it is sent, run and retried."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, cast

from chervil import signals, states
from chervil.canvas.signature import Signature, maybe_signature
from chervil.context import Context, current_app, current_request, pop_request, push_request
from chervil.exceptions import ImproperlyConfigured, MaxRetriesExceededError, OperationalError, Retry
from chervil.execution import Ending, execute
from chervil.identity import host_name
from chervil.ids import new_id
from chervil.publish import Plan, running_request
from chervil.result import AsyncResult, EagerResult
from chervil.signatures import call_checker, is_coroutine_function, signature_text, takes_anything
from chervil.taskoptions import FROM_CONFIG, HOOKS, SENT_WITH, FromConfig
from chervil.wire import outcomes, serializers
from chervil.wire.message import Message, Outcome
from chervil.wire.times import now_text

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.drivers.contracts import ResultStore
    from chervil.models import Models

P = ParamSpec("P")
R = TypeVar("R")

#: Positional arguments, keyword arguments, or both as a signature, for ``apply_many``.
Call = tuple[Any, ...] | list[Any] | Mapping[str, Any]


class Task(Generic[P, R]):
    """A task that can be sent to workers.

    Made by :meth:`chervil.app.Chervil.task` from a function, or written as a
    subclass with a method ``run`` and given to
    :meth:`~chervil.app.Chervil.register_task`. What is an attribute here can be an
    option there.
    """

    #: Unique name; made from module and function when it is not given.
    name: str = cast("str", None)
    #: Check arguments against the function's parameters before sending; None: as the app says.
    typing: bool | None = None
    #: How often :meth:`retry` may be called; None: any number of times.
    max_retries: int | None = 3
    #: Seconds until a retry that says nothing else.
    default_retry_delay: float = 3 * 60
    #: Exceptions that mean a retry, and some of them that do not.
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    #: Arguments of :meth:`retry` for ``autoretry_for``.
    retry_kwargs: Mapping[str, Any] = {}
    #: Seconds before the first automatic retry, doubled for each further one; True: 1.
    retry_backoff: bool | float = False
    #: Seconds between automatic retries at most.
    retry_backoff_max: float = 600
    #: Choose delays by chance between 0 and what the backoff says.
    retry_jitter: bool = True
    #: Seconds, see ``task_time_limit`` and ``task_soft_time_limit``.
    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: Exceptions that are no news: logged without a traceback.
    throws: tuple[type[BaseException], ...] = ()
    queue: Any = None
    exchange: Any = None
    routing_key: str | None = None
    delivery_mode: int | str | None = None
    #: Seconds (or a time) after which the task is not run any more.
    expires: float | dt.datetime | dt.timedelta | None = None
    #: Remember what the task sends while it runs, as ``children`` of its result.
    trail: bool = True
    send_events: bool = True
    resultrepr_maxsize: int = 1024

    if TYPE_CHECKING:
        # From the settings unless the task says otherwise; see taskoptions.FROM_CONFIG.
        serializer: str
        compression: str | None
        rate_limit: str | float | None
        priority: int | None
        track_started: bool
        acks_late: bool
        acks_on_failure_or_timeout: bool
        reject_on_worker_lost: bool
        max_deliveries: int
        ignore_result: bool
        store_eager_result: bool
        store_errors_even_if_ignored: bool

    MaxRetriesExceededError: ClassVar[type[Exception]] = MaxRetriesExceededError
    OperationalError: ClassVar[type[Exception]] = OperationalError

    #: What a worker calls to run it: ``run``, or the task's own ``__call__``.
    call: Callable[..., Any]
    #: Which of the hooks are the task's own.
    hooks: frozenset[str] = frozenset()
    #: ``run`` is a coroutine function.
    is_coroutine: bool = False

    _app: Chervil | None = None
    _plan: Plan | None = None
    _checker: Callable[..., Any] | None = None
    _models: Models | None = None
    _default_request: Context | None = None
    _annotated = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in FROM_CONFIG:
            if name in vars(cls) and vars(cls)[name] is None:
                delattr(cls, name)  # None: ask the settings

    # --- an app's task

    def bind(self, app: Chervil) -> None:
        """Make it a task of this app; done by ``register_task``."""
        self._app = app
        self.is_coroutine = is_coroutine_function(self.run)
        if type(self).__call__ is Task.__call__:
            self.call = self.run
        else:
            self.call = self._call_through
        self.hooks = self._own_hooks()
        self._checker = self._make_checker()
        self._plan = None
        self.on_bound(app)

    @classmethod
    def on_bound(cls, app: Chervil) -> None:
        """Called when the task became one of an app; for subclasses."""

    def _own_hooks(self) -> frozenset[str]:
        return frozenset(
            name
            for name in HOOKS
            if name in vars(self) or getattr(type(self), name) is not getattr(Task, name)
        )

    def _make_checker(self) -> Callable[..., Any] | None:
        typing = self._app.strict_typing if self.typing is None and self._app else self.typing
        function = self.function
        if not typing or takes_anything(function):
            return None
        return call_checker(function, skip_first=self._skips_self)

    @property
    def function(self) -> Callable[..., Any]:
        """The function that the task was made from, or the method ``run``."""
        return cast("Callable[..., Any]", getattr(self, "__wrapped__", None) or self.run)

    @property
    def _skips_self(self) -> bool:
        """Whether the first parameter of :attr:`function` is the task."""
        return "__wrapped__" in dir(self) and bool(getattr(self, "_bound", False))

    def annotate(self) -> None:
        """Apply ``task_annotations``; done when the app is finalized."""
        if self._annotated:
            return
        self._annotated = True
        annotations = self.app.conf.task_annotations
        if not annotations:
            return
        for item in annotations if isinstance(annotations, (list, tuple)) else [annotations]:
            for name, value in _annotation_of(item, self).items():
                if callable(value) and not isinstance(value, type):
                    value = value.__get__(self)
                setattr(self, name, value)
        self.hooks = self._own_hooks()
        self._plan = None

    @property
    def app(self) -> Chervil:
        """The app it belongs to; the current one before it is registered."""
        return self._app if self._app is not None else current_app()

    @property
    def backend(self) -> ResultStore:
        """The app's result store."""
        return self.app.backend

    @property
    def request(self) -> Context:
        """The request of the run that is going on."""
        request = current_request.get()
        while request is not None:
            if request.task == self.name:
                return request
            request = request.outer
        if self._default_request is None:
            self._default_request = Context()
        return self._default_request

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Pretend that the task runs with such a request; for tests."""
        push_request(*args, **{"task": self.name, **kwargs})

    def pop_request(self) -> None:
        """End what :meth:`push_request` began."""
        pop_request()

    # --- running

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The task's own code; subclasses have one, functions become one."""
        raise NotImplementedError(f"task {self.name}: define a method 'run'")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, as if it were no task."""
        request = current_request.get()
        if (
            request is not None
            and not request._protected
            and not request.called_directly
            and request.task == self.name
        ):  # a subclass's own __call__ goes on to this one, inside a worker
            request._protected = 1
            return cast("R", self.run(*args, **kwargs))
        if self.is_coroutine:
            return cast("R", self._call_coroutine(args, kwargs))
        push_request(task=self.name, args=args, kwargs=kwargs, headers=None)
        try:
            return cast("R", self.run(*args, **kwargs))
        finally:
            pop_request()

    async def _call_coroutine(self, args: Any, kwargs: Any) -> Any:
        push_request(task=self.name, args=args, kwargs=kwargs, headers=None)
        try:
            return await self.run(*args, **kwargs)
        finally:
            pop_request()

    def _call_through(self, *args: Any, **kwargs: Any) -> Any:
        """Run through the subclass's own ``__call__``, which may call the one above."""
        request = current_request.get()
        if request is not None:
            request._protected = 0
        return self(*args, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before the task runs; for subclasses."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called when the task has ended without an exception; for subclasses."""

    def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Called when the task has failed; for subclasses."""

    def on_retry(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Called when the task is to be run again; for subclasses."""

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Called after the task has ended in whatever way; for subclasses."""

    # --- sending

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments.

        :raises TypeError: the function does not take them.
        :raises EncodeError: they cannot be serialized.
        :raises BrokerUnavailable: the task was not stored.
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
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
        :param options: ``countdown`` (seconds), ``eta`` (datetime), ``expires`` (seconds,
            timedelta or datetime), ``queue``, ``exchange``, ``routing_key``, ``priority``
            (0 to 255, larger is sooner), ``headers`` (dict), ``serializer``,
            ``compression``, ``retry`` (bool), ``retry_policy`` (dict),
            ``ignore_result`` (bool), ``time_limit`` and ``soft_time_limit`` (seconds),
            ``argsrepr`` and ``kwargsrepr``, ``reply_to``, ``add_to_parent`` (bool); names
            that are not known become properties of the message.
        :raises TypeError: the function does not take these arguments.
        :raises ImproperlyConfigured: an option is wrong.
        :raises EncodeError: the arguments cannot be serialized.
        :raises BrokerUnavailable: the task was not stored.
        """
        args = () if args is None else args
        kwargs = {} if kwargs is None else kwargs
        app = self._app or self._adopt()
        conf = app.conf
        if self._checker is not None:
            self._check_call(args, kwargs)
        if (
            options
            or task_id is not None
            or producer is not None
            or link is not None
            or link_error is not None
            or shadow is not None
            or conf.task_always_eager
            or self._needs_care(conf.version)
        ):
            options.update(
                task_id=task_id,
                producer=producer,
                link=link,
                link_error=link_error,
                shadow=shadow,
            )
            return self._send_carefully(args, kwargs, options)
        plan = self._plan
        assert plan is not None
        message = plan.message(args, kwargs)
        app.publisher.send((message,))
        result: AsyncResult[R] = AsyncResult(message.headers["id"], None, self.name, app)
        result._sent_from = plan.reply_to
        if plan.ignores_result:
            result.ignored = True
        return result
