"""From functions to tasks: what ``@app.task`` and ``@shared_task`` have in common."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from chervil.exceptions import ImproperlyConfigured
from chervil.models import Models
from chervil.task import Task
from chervil.taskoptions import checked

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.task import AsyncTask

P = ParamSpec("P")
R = TypeVar("R")

_Exceptions = type[BaseException] | tuple[type[BaseException], ...] | list[type[BaseException]]


class FunctionDecorator(Protocol):
    """Makes a task of a function."""

    @overload
    def __call__(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fun: Callable[P, R], /) -> Task[P, R]: ...


class BoundDecorator(Protocol):
    """Makes a task of a function whose first parameter is the task."""

    @overload
    def __call__(
        self, fun: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, fun: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


class TaskDecorator(Protocol):
    """``app.task`` and ``shared_task``, for type checkers."""

    @overload
    def __call__(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, fun: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[True],
        base: type[Task[Any, Any]] | None = None,
        name: str | None = None,
        typing: bool | None = None,
        max_retries: int | None = 3,
        default_retry_delay: float = 180,
        autoretry_for: _Exceptions = (),
        dont_autoretry_for: _Exceptions = (),
        retry_kwargs: Mapping[str, Any] = ...,
        retry_backoff: bool | float = False,
        retry_backoff_max: float = 600,
        retry_jitter: bool = True,
        rate_limit: str | float | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        ignore_result: bool | None = None,
        store_errors_even_if_ignored: bool | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        acks_late: bool | None = None,
        acks_on_failure_or_timeout: bool | None = None,
        reject_on_worker_lost: bool | None = None,
        track_started: bool | None = None,
        throws: _Exceptions = (),
        priority: int | None = None,
        queue: Any = None,
        expires: float | dt.datetime | dt.timedelta | None = None,
        max_deliveries: int | None = None,
        pydantic: bool = False,
        pydantic_strict: bool = False,
        pydantic_context: Mapping[str, Any] | None = None,
        pydantic_dump_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> BoundDecorator: ...

    @overload
    def __call__(
        self,
        *,
        bind: Literal[False] = False,
        base: type[Task[Any, Any]] | None = None,
        name: str | None = None,
        typing: bool | None = None,
        max_retries: int | None = 3,
        default_retry_delay: float = 180,
        autoretry_for: _Exceptions = (),
        dont_autoretry_for: _Exceptions = (),
        retry_kwargs: Mapping[str, Any] = ...,
        retry_backoff: bool | float = False,
        retry_backoff_max: float = 600,
        retry_jitter: bool = True,
        rate_limit: str | float | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        ignore_result: bool | None = None,
        store_errors_even_if_ignored: bool | None = None,
        serializer: str | None = None,
        compression: str | None = None,
        acks_late: bool | None = None,
        acks_on_failure_or_timeout: bool | None = None,
        reject_on_worker_lost: bool | None = None,
        track_started: bool | None = None,
        throws: _Exceptions = (),
        priority: int | None = None,
        queue: Any = None,
        expires: float | dt.datetime | dt.timedelta | None = None,
        max_deliveries: int | None = None,
        pydantic: bool = False,
        pydantic_strict: bool = False,
        pydantic_context: Mapping[str, Any] | None = None,
        pydantic_dump_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> FunctionDecorator: ...


#: Options that are looked at here and are no attributes of the task. ``shared`` and
#: ``lazy`` are Celery's and have no meaning: tasks are made at once, for their app.
_HERE = frozenset(
    {
        "base",
        "bind",
        "name",
        "shared",
        "lazy",
        "pydantic",
        "pydantic_strict",
        "pydantic_context",
        "pydantic_dump_kwargs",
    }
)


def from_function(
    app: Chervil, fun: Callable[..., Any], options: Mapping[str, Any]
) -> Task[Any, Any]:
    """Make a task of a function and register it; the one that is there already if it is the same.

    :raises ImproperlyConfigured: an option has a wrong value.
    :raises AlreadyRegistered: another function has this name.
    :raises TypeError: it is no function.
    """
    if not callable(fun):
        raise TypeError(
            "@app.task takes a function, and options by name only: @app.task(name=...); "
            f"this is {fun!r}"
        )
    if isinstance(fun, Task):
        raise TypeError(f"{fun!r} is a task already")
    title = getattr(fun, "__name__", type(fun).__name__)
    options = {key: checked(key, value, title) for key, value in options.items()}
    base = options.get("base") or app.Task
    if not isinstance(base, type) or not issubclass(base, Task):
        raise ImproperlyConfigured(f"task {title}: base={base!r} must be a subclass of Task")
    bind = bool(options.get("bind"))
    run, models = fun, None
    if options.get("pydantic"):
        models = Models(
            fun,
            bool(options.get("pydantic_strict")),
            options.get("pydantic_context"),
            options.get("pydantic_dump_kwargs"),
        )
        run = models.wrap()
    module = getattr(fun, "__module__", None)
    attributes: dict[str, Any] = {
        **{key: value for key, value in options.items() if key not in _HERE},
        "name": options.get("name") or app.gen_task_name(title, module),
        "run": run if bind else staticmethod(run),
        "__wrapped__": staticmethod(fun),
        "__name__": title,
        "__doc__": getattr(fun, "__doc__", None),
        "__module__": module,
        "__qualname__": getattr(fun, "__qualname__", title),
        "_bound": bind,
        "_models": models,
    }
    # A class of its own, as in Celery, so that functions given as options become methods.
    task: Task[Any, Any] = type(title, (base,), attributes)()
    return app.register_task(task)
