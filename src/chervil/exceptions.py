"""Every error that Chervil raises, under Celery's names where Celery has one.

Errors that are stored as results keep, on the wire, the module that Celery
clients look them up in (see ``chervil.wire.outcomes``).
"""

from __future__ import annotations

import builtins
import datetime as _dt
from typing import Any


class ChervilError(Exception):
    """Base of all errors of this package."""


class ImproperlyConfigured(ChervilError):
    """A setting, option or URL is wrong; the message names it and the remedy."""


class NotRegistered(ChervilError, KeyError):
    """No task of this name is registered in this process."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AlreadyRegistered(ChervilError):
    """Two different functions were registered under one task name."""


class QueueNotFound(ChervilError, KeyError):
    """A task was routed to a queue that is not in ``task_queues``."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


# --- talking to brokers and result stores -------------------------------------


class OperationalError(ChervilError):
    """A broker or result store could not be reached or refused an operation."""


class BrokerUnavailable(OperationalError):
    """The broker did not take or give messages within the deadline."""


class PublishError(OperationalError):
    """Some messages were not stored. ``failed`` holds their task ids."""

    def __init__(self, message: str, failed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.failed = failed


class BackendError(OperationalError):
    """The result store did not answer within the deadline."""


class LeaseLost(OperationalError):
    """This consumer's claims were given to others because its lease ran out."""


class MissingDependency(ImproperlyConfigured):
    """A library is needed that is not installed; the message names the extra."""


# --- values and bytes -----------------------------------------------------------


class SerializationError(ChervilError):
    """A value could not be turned into bytes."""


class EncodeError(SerializationError):
    """A value could not be serialized; the message names the value and serializer."""


class DecodeError(SerializationError):
    """Bytes could not be turned back into a value."""


class ContentDisallowed(DecodeError):
    """The content type is not in ``accept_content``."""


class SecurityError(ChervilError):
    """A stored name asked for something that must not be called or trusted."""


class MessageTooLarge(ChervilError):
    """A message or result is larger than the broker or setting allows."""


# --- control flow inside tasks ----------------------------------------------------


class TaskPredicate(ChervilError):
    """Base of the exceptions by which a task tells the worker what to do."""


class Ignore(TaskPredicate):
    """The task says: store no result and no state."""


class Reject(TaskPredicate):
    """The task says: do not accept this message.

    :param reason: why, for the log and the dead-letter queue.
    :param requeue: put the message back on its queue instead.
    """

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __str__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class Retry(TaskPredicate):
    """The task is to be run again later.

    :param message: text for the log, when there is no exception.
    :param exc: the exception that caused the retry.
    :param when: seconds to wait (int or float) or the time to run at.
    """

    #: The message that the worker stores for the next run (a ``wire.message.Message``).
    pending: Any = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | _dt.datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
    ) -> None:
        self.exc: BaseException | None = None if isinstance(exc, str) else exc
        self.excs: str | None = exc if isinstance(exc, str) or exc is None else repr(exc)
        self.message = message
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when)

    def humanize(self) -> str:
        """When the task runs again, in words."""
        if isinstance(self.when, (int, float)):
            return f"in {self.when:g}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.message, self.exc, self.when)


# --- what a task can end with -----------------------------------------------------


class TaskError(ChervilError):
    """Base of the failures that the worker itself reports for a task."""


class MaxRetriesExceededError(TaskError):
    """The task asked for a retry more often than ``max_retries``."""

    def __init__(self, *args: Any, task_args: Any = (), task_kwargs: Any = None) -> None:
        super().__init__(*args)
        self.task_args = task_args
        self.task_kwargs = task_kwargs or {}


class TaskRevokedError(TaskError):
    """The task was revoked, or expired, before it ended."""


class ChordError(TaskError):
    """A member of a chord's header failed, so the body cannot run."""


class SoftTimeLimitExceeded(Exception):
    """Raised inside the task when its soft time limit is over."""

    def __str__(self) -> str:
        return f"SoftTimeLimitExceeded{self.args!r}"


class TimeLimitExceeded(Exception):
    """The hard time limit was over and the task was ended from outside."""

    def __str__(self) -> str:
        return f"TimeLimitExceeded{self.args!r}"


class WorkerLostError(Exception):
    """The process that ran the task ended without a report."""


class Terminated(BaseException):
    """Raised inside a task that is revoked while it runs (``terminate``).

    No :class:`Exception`, so that a task which catches those still ends.
    """


class TimeoutError(ChervilError, builtins.TimeoutError):  # noqa: A001 - Celery's name
    """A wait for a result was longer than its ``timeout``."""


class BackendGetMetaError(BackendError):
    """Reading a stored result failed."""


class ValidationError(ChervilError, ValueError):
    """An argument or the result of a task with ``pydantic=True`` is not as annotated.

    The message has pydantic's text. (pydantic's own error cannot be made again from
    what a result holds.)
    """


class InvalidTaskError(ChervilError):
    """A message does not describe a task that can be run."""


class WorkerShutdown(SystemExit):
    """Ends the worker after the running tasks have finished."""


class WorkerTerminate(SystemExit):
    """Ends the worker at once."""


class ChervilWarning(UserWarning):
    """Base of all warnings of this package."""


class AlwaysEagerIgnored(ChervilWarning):
    """``send_task`` ignores ``task_always_eager``."""


class DuplicateNodenameWarning(ChervilWarning):
    """More than one node has this name."""
