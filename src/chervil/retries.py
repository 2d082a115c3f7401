"""Running a task again: ``retry`` and what it sends."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from chervil.canvas.signature import Signature
from chervil.context import Context
from chervil.exceptions import MaxRetriesExceededError, Retry
from chervil.wire.message import Message

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.models import Models
    from chervil.task import Task

R = TypeVar("R")


class Retries(Generic[R]):
    """What all tasks have for being retried; part of :class:`chervil.task.Task`."""

    if TYPE_CHECKING:
        name: str
        _app: Chervil | None
        _models: Models | None

        @property
        def app(self) -> Chervil: ...
        @property
        def request(self) -> Context: ...

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

    MaxRetriesExceededError: ClassVar[type[MaxRetriesExceededError]] = MaxRetriesExceededError

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: dt.datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Have the task that is running run again later, with the same id.

        Write ``raise self.retry(...)``, which shows that nothing after it is run.

        :param args: other positional arguments than this time's.
        :param kwargs: other keyword arguments.
        :param exc: the exception that is the reason. It is raised itself when there
            were too many retries already.
        :param throw: False returns the :class:`Retry` instead of raising it.
        :param eta: when, or...
        :param countdown: in how many seconds; ``default_retry_delay`` if neither is given.
        :param max_retries: instead of the task's own.
        :param options: others of :meth:`apply_async`, such as ``queue``.
        :raises Retry: always, unless ``throw`` is False; it tells the worker.
        :raises MaxRetriesExceededError: too many retries, and no ``exc`` was given.
        """
        request = self.request
        if request.called_directly:
            _raise_from_current(exc or Retry("Task can be retried", None))
        limit = self.max_retries if max_retries is None else max_retries
        args = tuple(request.args or ()) if args is None else tuple(args)
        kwargs = dict(request.kwargs or {}) if kwargs is None else dict(kwargs)
        if limit is not None and request.retries >= limit:
            if exc is not None:
                _raise_from_current(exc)
            raise self.MaxRetriesExceededError(
                f"Can't retry {self.name}[{request.id}] args:{args} kwargs:{kwargs}",
                task_args=args,
                task_kwargs=kwargs,
            )
        if eta is None and countdown is None:
            countdown = self.default_retry_delay
        retry = Retry(exc=exc, when=countdown if eta is None else eta, is_eager=request.is_eager)
        again = self.signature_from_request(
            request,
            args,
            kwargs,
            countdown=countdown,
            eta=eta,
            retries=request.retries + 1,
            **options,
        )
        if request.is_eager:
            retry.sig = again
        else:
            message = self._retry_message(again, request)
            if throw:
                retry.pending = message  # the worker stores it together with the state
            else:
                self.app.publisher.send((message,), again["options"])
        if throw:
            raise retry
        return retry

    def _retry_message(self, again: Signature[Any], request: Context) -> Message:
        if self._models is not None:
            dump = self._models.dump
            again["args"] = tuple(dump(value) for value in again["args"])
            again["kwargs"] = {key: dump(value) for key, value in again["kwargs"].items()}
        options = {**again["options"], "ignore_result": request.ignore_result}
        # Not inherited: the running task is not the parent of its own next run.
        return self.app.publisher.message(
            self.name,
            again["args"],
            again["kwargs"],
            options,
            cast("Task[Any, Any]", self),
            inherit=False,
        )

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        queue: Any = None,
        **extra_options: Any,
    ) -> Signature[R]:
        """The signature that would run a request again, on the queue it came from."""
        request = self.request if request is None else request
        args = request.args if args is None else args
        kwargs = request.kwargs if kwargs is None else kwargs
        options = {
            key: value
            for key, value in {**request.as_execution_options(), **extra_options}.items()
            if value is not None
        }
        info = request.delivery_info or {}
        if info.get("priority") is not None:
            options.setdefault("priority", info["priority"])
        if queue is not None:
            options["queue"] = queue
        elif not {"queue", "exchange", "routing_key"} & options.keys():
            exchange, key = info.get("exchange"), info.get("routing_key")
            if info.get("queue"):
                options["queue"] = info["queue"]
            elif key and not exchange:
                options["queue"] = key
            elif key:
                options.update(exchange=exchange, routing_key=key)
        return Signature(self, args, kwargs, options, app=self._app)

    subtask_from_request = signature_from_request


def _raise_from_current(exc: BaseException) -> None:
    """Raise it; from the exception that is being handled, if there is another one."""
    current = sys.exc_info()[1]
    if current is None or current is exc:
        raise exc
    raise exc from current
