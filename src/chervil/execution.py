"""Running one task: the steps around the user's function.

Both the workers and eager calls go through :func:`execute` (or
:func:`aexecute` on an event loop), so that hooks, signals and retries are the
same everywhere. Nothing here talks to a broker or a result store: what has to
be stored is in the :class:`Ending`.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from time import monotonic
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import msgspec

from chervil import signals, states
from chervil.backoff import exponential_backoff
from chervil.context import Context, current_request
from chervil.coroutines import run_coroutine
from chervil.exceptions import Ignore, Reject, Retry, TaskPredicate, WorkerTerminate

if TYPE_CHECKING:
    from chervil.task import Task


#: Where the files are whose frames lead to a task: this package and the event loop.
_MACHINERY = (
    os.path.join(os.path.dirname(__file__), ""),
    os.path.join(os.path.dirname(os.__file__), "asyncio", ""),
)


class Ending(msgspec.Struct):
    """How a run of a task ended."""

    #: SUCCESS, FAILURE, RETRY, IGNORED or REJECTED.
    status: str
    #: The result, or the exception.
    value: Any
    #: Text of the traceback, for FAILURE and RETRY.
    traceback: str | None
    #: Seconds.
    runtime: float


class ErrorInfo:
    """What ``on_failure`` and ``on_retry`` get as ``einfo``."""

    def __init__(self, exception: BaseException, text: str) -> None:
        self.exception = exception
        self.type = type(exception)
        self.traceback = text

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ErrorInfo: {self.exception!r}>"


def execute(
    task: Task[Any, Any], request: Context, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Ending:
    """Run the task in this thread.

    :param request: holds the same arguments; it is not looked at unless a hook, a signal
        or the task does, since to read it may cost something (``context.Unread``).

    A coroutine function runs on this thread's own event loop. Never raises for
    anything that the task does: ``BaseException`` is a failure like any other.

    :raises WorkerTerminate: the worker that runs it here is to end at once.
    """
    token = current_request.set(request)
    began = monotonic()
    try:
        _before(task, request)
        value = task.call(*args, **kwargs)
        if type(value) is CoroutineType:
            value = run_coroutine(value)
    except WorkerTerminate:
        current_request.reset(token)
        raise
    except BaseException as exc:
        ending = _raised(task, request, exc, began)
    else:
        ending = Ending(states.SUCCESS, value, None, monotonic() - began)
    try:
        _after(task, request, ending)
    finally:
        current_request.reset(token)
    return ending


async def aexecute(
    task: Task[Any, Any],
    request: Context,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    supervise: Callable[[Coroutine[Any, Any, Any]], Any] | None = None,
) -> Ending:
    """As :func:`execute`, for a coroutine function, on the running event loop.

    :param supervise: wraps the coroutine in the awaitable that is awaited in
        its stead; a pool interrupts tasks through it.
    """
    token = current_request.set(request)
    began = monotonic()
    try:
        _before(task, request)
        value = task.call(*args, **kwargs)
        if type(value) is CoroutineType:
            value = await (supervise(value) if supervise else value)
    except BaseException as exc:
        ending = _raised(task, request, exc, began)
    else:
        ending = Ending(states.SUCCESS, value, None, monotonic() - began)
    try:
        _after(task, request, ending)
    finally:
        current_request.reset(token)
    return ending


def _before(task: Task[Any, Any], request: Context) -> None:
    if signals.task_prerun.receivers:
        signals.task_prerun.send(
            sender=task, task_id=request.id, task=task, args=request.args, kwargs=request.kwargs
        )
    if "before_start" in task.hooks:
        task.before_start(request.id or "", request.args, request.kwargs)


def _raised(task: Task[Any, Any], request: Context, exc: BaseException, began: float) -> Ending:
    """The ending that an exception means, after automatic retries."""
    if task.autoretry_for and not isinstance(exc, TaskPredicate):
        exc = _autoretry(task, request, exc)
    runtime = monotonic() - began
    if isinstance(exc, Ignore):
        return Ending(states.IGNORED, exc, None, runtime)
    if isinstance(exc, Reject):
        return Ending(states.REJECTED, exc, None, runtime)
    status = states.RETRY if isinstance(exc, Retry) else states.FAILURE
    return Ending(status, exc, format_traceback(exc), runtime)


def _autoretry(task: Task[Any, Any], request: Context, exc: BaseException) -> BaseException:
    """What ``autoretry_for`` turns an exception into."""
    if not isinstance(exc, task.autoretry_for) or isinstance(exc, task.dont_autoretry_for):
        return exc
    options = dict(task.retry_kwargs)
    if task.retry_backoff:
        options["countdown"] = exponential_backoff(
            factor=1 if task.retry_backoff is True else task.retry_backoff,
            retries=request.retries,
            maximum=task.retry_backoff_max,
            full_jitter=task.retry_jitter,
        )
    try:
        task.retry(exc=exc, **options)
    except BaseException as outcome:
        return outcome
    return exc


def _after(task: Task[Any, Any], request: Context, ending: Ending) -> None:
    """Hooks and signals; an error in one is logged and changes nothing."""
    status = ending.status
    if task.hooks:
        _guarded(task, request, _call_hooks, ending)
    if status == states.SUCCESS:
        if signals.task_success.receivers:
            signals.task_success.send(sender=task, result=ending.value)
    elif status == states.FAILURE:
        if signals.task_failure.receivers:
            signals.task_failure.send(
                sender=task,
                task_id=request.id,
                exception=ending.value,
                args=request.args,
                kwargs=request.kwargs,
                traceback=ending.value.__traceback__,
                einfo=ErrorInfo(ending.value, ending.traceback or ""),
            )
    elif status == states.RETRY and signals.task_retry.receivers:
        signals.task_retry.send(
            sender=task,
            request=request,
            reason=ending.value,
            einfo=ErrorInfo(ending.value, ending.traceback or ""),
        )
    if signals.task_postrun.receivers:
        signals.task_postrun.send(
            sender=task,
            task_id=request.id,
            task=task,
            args=request.args,
            kwargs=request.kwargs,
            retval=ending.value,
            state=status,
        )


def _call_hooks(task: Task[Any, Any], request: Context, ending: Ending) -> None:
    ident, args, kwargs = request.id or "", request.args, request.kwargs
    hooks, value = task.hooks, ending.value
    einfo = None
    if ending.status == states.SUCCESS:
        if "on_success" in hooks:
            task.on_success(value, ident, args, kwargs)
    elif ending.status in (states.FAILURE, states.RETRY):
        einfo = ErrorInfo(value, ending.traceback or "")
        if ending.status == states.FAILURE and "on_failure" in hooks:
            task.on_failure(value, ident, args, kwargs, einfo)
        elif ending.status == states.RETRY and "on_retry" in hooks:
            task.on_retry(value.exc or value, ident, args, kwargs, einfo)
    if "after_return" in hooks and ending.status in (*states.READY_STATES, states.RETRY):
        task.after_return(ending.status, value, ident, args, kwargs, einfo)


def _guarded(
    task: Task[Any, Any],
    request: Context,
    hook: Callable[[Task[Any, Any], Context, Ending], None],
    ending: Ending,
) -> None:
    try:
        hook(task, request, ending)
    except BaseException as exc:
        if signals.task_internal_error.receivers:
            signals.task_internal_error.send(
                sender=task,
                task_id=request.id,
                args=request.args,
                kwargs=request.kwargs,
                request=request,
                exception=exc,
                traceback=exc.__traceback__,
                einfo=ErrorInfo(exc, format_traceback(exc)),
            )
        _complain(task, request, exc)


def _complain(task: Task[Any, Any], request: Context, exc: BaseException) -> None:
    import logging  # only here: not needed to import the package

    logging.getLogger("chervil.task").error(
        "a hook of task %s[%s] raised; the task's own ending stands",
        task.name,
        request.id,
        exc_info=exc,
    )


def format_traceback(exc: BaseException) -> str:
    """The traceback as text, without the frames of this package that lead to the task.

    An exception whose own ``__str__`` raises is described all the same.
    """
    try:
        whole = traceback.TracebackException(type(exc), exc, exc.__traceback__)
        _strip(whole)
        return "".join(whole.format())
    except BaseException as problem:
        return f"{type(exc).__name__}: <traceback not printable: {type(problem).__name__}>\n"


def _strip(trace: traceback.TracebackException | None) -> None:
    """Take away what leads to the user's first frame, also from causes and contexts."""
    while trace is not None:
        for number, frame in enumerate(trace.stack):
            if not frame.filename.startswith(_MACHINERY):
                del trace.stack[:number]
                break
        if trace.__context__ is not None and trace.__cause__ is not None:
            _strip(trace.__context__)
        trace = trace.__cause__ or trace.__context__
