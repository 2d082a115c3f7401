"""A task: a function, and how it is run and retried. How it is called: ``calls.py``."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, cast

from chervil import clock, states
from chervil.calls import Calls
from chervil.composing import Composing
from chervil.context import Context, current_app, current_request, pop_request, push_request
from chervil.exceptions import ImproperlyConfigured, OperationalError
from chervil.options import check_limits
from chervil.replacing import Replacing
from chervil.result import AsyncResult as Result
from chervil.retries import Retries
from chervil.signatures import (
    call_checker,
    is_coroutine_function,
    positional_count,
    takes_anything,
)
from chervil.taskoptions import FROM_CONFIG, HOOKS, SENT_WITH, FromConfig, checked
from chervil.wire import outcomes
from chervil.wire.message import Outcome
from chervil.wire.times import now_text

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.drivers.contracts import ResultStore

P = ParamSpec("P")
R = TypeVar("R")


class Task(Calls[P, R], Retries[R], Composing[R], Replacing):
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

    OperationalError: ClassVar[type[Exception]] = OperationalError

    #: What a worker calls to run it: ``run``, or the task's own ``__call__``.
    call: Callable[..., Any]
    #: Which of the hooks are the task's own.
    hooks: frozenset[str] = frozenset()
    #: ``run`` is a coroutine function: calling it gives a coroutine.
    is_async: bool = False

    #: ``run`` takes the task as its first argument.
    _bound = False
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
        self.is_async = is_coroutine_function(self.run)
        if type(self).__call__ is Task.__call__:
            self.call = self.run
        else:
            self.call = self._call_through
        self.hooks = self._own_hooks()
        self._checker = self._make_checker()
        self._names_shadows = (
            "shadow_name" in vars(self) or type(self).shadow_name is not Task.shadow_name
        )
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
        return call_checker(function, skip_first=self._bound)

    @property
    def function(self) -> Callable[..., Any]:
        """The function that the task was made from, or the method ``run``."""
        return cast("Callable[..., Any]", getattr(self, "__wrapped__", None) or self.run)

    @property
    def takes_error(self) -> bool:
        """As an errback it takes (request, exception, traceback) instead of the id alone."""
        return positional_count(self.function, skip_first=self._bound) > 1

    def send_options(self) -> dict[str, Any]:
        """The options that the task itself gives to each of its calls."""
        own, cls = vars(self), type(self)
        options = {}
        for name in SENT_WITH:
            value = own.get(name)
            if value is None:
                value = getattr(cls, name)  # None for what would come from the settings
            if value is not None:
                options[name] = value
        options["ignore_result"] = self.ignore_result
        return options

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
                setattr(self, name, checked(name, value, f"{self.name} (task_annotations)"))
        check_limits(self.soft_time_limit, self.time_limit, f"task {self.name} (task_annotations)")
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
        if self.is_async:
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

    # --- telling others

    def update_state(
        self,
        task_id: str | None = None,
        state: str | None = None,
        meta: Any = None,
        **kwargs: Any,
    ) -> None:
        """Store a state of one's own while the task runs, such as its progress.

        :param task_id: of another task than the one that is running.
        :param state: any text; clients see it as ``result.state``.
        :param meta: what clients see as ``result.info``; must be serializable.
        :raises ImproperlyConfigured: no task is running and no id was given, or no state.
        """
        request = self.request
        task_id = task_id or request.id
        if not task_id:
            raise ImproperlyConfigured(
                f"update_state of {self.name}: no task is running here; give task_id="
            )
        if not isinstance(state, str) or not state:
            raise ImproperlyConfigured(
                f"update_state of {self.name}: state must be text, such as 'PROGRESS', "
                f"not {state!r}"
            )
        if request.reporter is not None:
            request.reporter(task_id, state, meta)
        elif not request.is_eager or self.store_eager_result:
            self.store_outcome(task_id, state, meta)

    def store_outcome(
        self, task_id: str, state: str, value: Any, traceback: str | None = None
    ) -> None:
        """Write a state into the result store.

        :raises BackendError: it was not stored.
        """
        conf = self.app.conf
        payload = outcomes.encode(
            task_id=task_id,
            status=state,
            result=value,
            traceback=traceback,
            date_done=now_text() if state in states.READY_STATES else None,
            serializer=conf.result_serializer,
            compression=conf.result_compression,
        )
        expires = clock.now() + conf.result_expires if conf.result_expires else 0.0
        reply_to = self.request.reply_to if self.request.id == task_id else None
        self.backend.put([Outcome(task_id, state, payload, expires, reply_to or "")])

    def add_trail(self, result: Result[Any]) -> Result[Any]:
        """Remember something as sent by the run that is going on."""
        if self.trail:
            self.request.children.append(result)
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> Result[R]:
        """The result of a call of this task, by its id."""
        return Result(task_id, None, self.name, self.app, **kwargs)

    # --- Python

    @property
    def __signal_id__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.name, type(self).__module__)

    def __repr__(self) -> str:
        if self._app is None:
            return f"<unbound task {self.name or type(self).__name__}>"
        return f"<@task: {self.name} of {self._app.main or 'an app'}>"


for _name in FROM_CONFIG:
    setattr(Task, _name, FromConfig(_name))

if TYPE_CHECKING:

    class AsyncTask(Task[P, R]):
        """A task whose function is ``async def``: calling it gives a coroutine."""

        def __call__(  # type: ignore[override]
            self, *args: P.args, **kwargs: P.kwargs
        ) -> Coroutine[Any, Any, R]: ...

else:
    #: Only type checkers tell them apart.
    AsyncTask = Task


def _annotation_of(item: Any, task: Task[Any, Any]) -> dict[str, Any]:
    """What one entry of ``task_annotations`` says about a task."""
    if hasattr(item, "annotate"):
        return dict(item.annotate(task) or {})
    return {**(item.get("*") or {}), **(item.get(task.name) or {})}


def _unpickled(name: str, module: str) -> Task[Any, Any]:
    tasks = current_app().tasks
    if name not in tasks and module not in sys.modules:
        __import__(module)
    return tasks[name]
