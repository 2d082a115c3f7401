"""From a job's frame to its report: the work of an executor, whatever its pool.

Steps, in this order: open the message, find the task, decode the arguments, run
it (``chervil.execution``), encode the outcome, build the messages that follow,
report. An executor never talks to the broker or the result store for this; what
user code sends by itself goes through the application's publisher.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chervil import states
from chervil.canvas.continuation import Aftermath, Following, check
from chervil.context import Context
from chervil.exceptions import (
    ChervilError,
    DecodeError,
    InvalidTaskError,
    MessageTooLarge,
    Reject,
    Retry,
    WorkerTerminate,
)
from chervil.execution import Ending, execute, format_traceback
from chervil.log import task_fields
from chervil.pools.frames import SUCCEEDED, Extra, Job, Kind, Verdict, pack_report
from chervil.wire import envelope, outcomes
from chervil.wire.celery_v2 import decode_body
from chervil.wire.serializers import accept_types
from chervil.wire.times import now_text

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.task import Task

logger = logging.getLogger("chervil.task")


class Runner:
    """Runs jobs of one application and hands in their reports.

    :param report: takes the frame of a report; called from the thread that runs the job.
    """

    def __init__(self, app: Chervil, hostname: str, report: Callable[[bytes], None]) -> None:
        self.app = app
        self.hostname = hostname
        self.report = report
        conf = app.conf
        self._tasks = app.tasks
        self._accept = accept_types(conf.accept_content)
        self._serializer = conf.result_serializer
        self._compression = conf.result_compression
        self._extended = conf.result_extended
        self._max_size = conf.result_max_size
        self._log_info = logger.isEnabledFor(logging.INFO)

    # --- the ways in

    def perform(self, job: Job) -> None:
        """Run a job in this thread and report it."""
        opened = self.open(job)
        if opened is not None:
            self.perform_opened(job, *opened)

    def perform_opened(self, job: Job, task: Task[Any, Any], request: Context) -> None:
        """Run an opened job in this thread and report it."""
        try:
            ending = execute(task, request)
        except WorkerTerminate:
            raise
        except BaseException as exc:
            ending = self.interrupted(exc)
        self.conclude(job, task, request, ending)

    def interrupted(self, exc: BaseException) -> Ending:
        """The ending of a job that was interrupted outside the user's function."""
        return Ending(states.FAILURE, exc, format_traceback(exc), 0.0)

    # --- before

    def open(self, job: Job) -> tuple[Task[Any, Any], Context] | None:
        """The task and request of a job; None when there is nothing to run.

        It was unreadable, or a verdict on it was given, and that is reported.
        """
        if job.verdict is not None:
            self._judge(job, job.verdict)
            return None
        try:
            request = self._request(job)
            task = self._tasks[request.task or ""]
            if request.follows:
                check(request)
        except (ChervilError, KeyError) as exc:
            self._unreadable(job, exc)
            return None
        if request.ignore_result is None:  # sent by name, by who does not know the task
            request.ignore_result = task.ignore_result
        request.deliveries = job.deliveries
        request.reporter = self._reporter(job)
        if task.track_started:
            request.reporter(
                request.id or "", states.STARTED, {"pid": os.getpid(), "hostname": self.hostname}
            )
        return task, request

    def _request(self, job: Job) -> Context:
        """The request of a job's message.

        :raises DecodeError: it cannot be read.
        """
        message = envelope.decode(job.head, job.body)
        headers = message.headers
        args, kwargs, embed = decode_body(
            message.body,
            message.content_type,
            message.content_encoding,
            headers.get("compression"),
            self._accept,
        )
        properties = message.properties
        properties["reply_to"] = message.reply_to
        return Context.for_message(
            headers,
            properties,
            args,
            kwargs,
            embed,
            self.hostname,
            {
                "exchange": message.exchange,
                "routing_key": message.routing_key or message.queue,
                "priority": message.priority,
                "redelivered": job.deliveries > 1,
                "queue": job.queue,
            },
        )

    def _judge(self, job: Job, verdict: Verdict) -> None:
        """Report what follows from the end of a task that did not end by itself."""
        after: Aftermath | None = None
        try:
            request = self._request(job)
            error = outcomes.exception_from_dict(verdict.error)
            following = Following(self.app, request, job.queue)
            after = following.failure(error, None, verdict.status, verdict.quiet)
        except Exception:
            logger.exception("What follows the end of a task cannot be told")
        frame = pack_report(job.number, Kind.CONCLUDED, 0.0, b"", _extra(verdict.status, after))
        self.report(frame)

    def _unreadable(self, job: Job, exc: Exception) -> None:
        reason = f"{type(exc).__name__}: {exc}"
        detail = "" if isinstance(exc, (DecodeError, InvalidTaskError)) else format_traceback(exc)
        self.report(
            pack_report(job.number, Kind.UNREADABLE, 0.0, b"", Extra(reason=reason, detail=detail))
        )

    def _reporter(self, job: Job) -> Callable[[str, str, Any], None]:
        """What ``update_state`` calls inside a worker: the hub stores it in its next batch."""

        def report_state(task_id: str, state: str, meta: Any) -> None:
            payload = outcomes.encode(
                task_id=task_id,
                status=state,
                result=meta,
                date_done=now_text() if state in states.READY_STATES else None,
                serializer=self._serializer,
                compression=self._compression,
            )
            extra = Extra(state, task_id=task_id)
            self.report(pack_report(job.number, Kind.STATE, 0.0, payload, extra))

        return report_state

    # --- after

    def conclude(self, job: Job, task: Task[Any, Any], request: Context, ending: Ending) -> None:
        """Turn an ending into a report, hand it in and log it."""
        for tries in range(4):
            try:
                self.report(self._frame(job, task, request, ending))
                break
            except (OSError, WorkerTerminate):
                raise  # the hub has gone, or this process is going
            except BaseException as exc:
                # The task ran, but its result or what follows cannot be sent, or its time was
                # over meanwhile: a failure that says so. A second report changes nothing.
                if tries == 3:
                    raise
                if ending.status == states.FAILURE:
                    request.callbacks = request.errbacks = request.chain = request.chord = None
                ending = Ending(states.FAILURE, exc, format_traceback(exc), ending.runtime)
        if self._log_info or ending.status == states.FAILURE:
            _log(task, request, ending)

    def _frame(self, job: Job, task: Task[Any, Any], request: Context, ending: Ending) -> bytes:
        status, number, runtime = ending.status, job.number, ending.runtime
        if status == states.SUCCESS:
            after: Aftermath | None = request.aftermath
            if request.follows:
                after = Following(self.app, request, job.queue).success(ending.value)
            extra = SUCCEEDED if after is None else _extra(status, after)
            if request.ignore_result:
                return pack_report(number, Kind.IGNORED, runtime, b"", extra)
            payload = self._outcome(request, task, ending)
            return pack_report(number, Kind.ENDED, runtime, payload, extra)
        if status == states.FAILURE:
            return self._failure_frame(job, task, request, ending)
        if status == states.RETRY:
            return self._retry_frame(job, task, request, ending)
        if status == states.REJECTED:
            return self._reject_frame(job, task, request, ending)
        after = request.aftermath  # of a task that was replaced: the other one goes on
        if after is None and request.follows:
            # Nobody else would tell those that wait for it.
            request.errbacks = None
            after = self._failure(job, request, ending.value, None)
        return pack_report(number, Kind.IGNORED, runtime, b"", _extra(states.IGNORED, after))

    def _failure(
        self, job: Job, request: Context, exception: BaseException, traceback: str | None
    ) -> Aftermath | None:
        if not request.follows:
            return None
        return Following(self.app, request, job.queue).failure(exception, traceback)

    def _failure_frame(
        self, job: Job, task: Task[Any, Any], request: Context, ending: Ending
    ) -> bytes:
        after = self._failure(job, request, ending.value, ending.traceback)
        kind = Kind.ENDED
        if not task.acks_on_failure_or_timeout and task.acks_late:
            kind = Kind.FAILED_UNACKED
        keep = not request.ignore_result or task.store_errors_even_if_ignored
        payload = self._outcome(request, task, ending) if keep else b""
        if kind is Kind.ENDED and not keep:
            kind = Kind.IGNORED
        extra = _extra(states.FAILURE, after, *_reason(ending))
        return pack_report(job.number, kind, ending.runtime, payload, extra)

    def _retry_frame(
        self, job: Job, task: Task[Any, Any], request: Context, ending: Ending
    ) -> bytes:
        retry: Retry = ending.value
        payload = b""
        if not request.ignore_result:
            shown = Ending(states.RETRY, retry.exc or retry, ending.traceback, ending.runtime)
            payload = self._outcome(request, task, shown)
        follow = () if retry.pending is None else (retry.pending,)
        return pack_report(
            job.number, Kind.RETRY, ending.runtime, payload, Extra(states.RETRY, follow)
        )

    def _reject_frame(
        self, job: Job, task: Task[Any, Any], request: Context, ending: Ending
    ) -> bytes:
        reject: Reject = ending.value
        if reject.requeue:
            return pack_report(job.number, Kind.REQUEUE, ending.runtime, b"")
        payload = b""
        if not request.ignore_result:
            failed = Ending(states.FAILURE, reject, None, ending.runtime)
            payload = self._outcome(request, task, failed)
        after = self._failure(job, request, reject, None)
        extra = _extra(states.FAILURE, after, f"rejected by the task: {reject.reason}")
        return pack_report(job.number, Kind.REJECTED, ending.runtime, payload, extra)

    def _outcome(self, request: Context, task: Task[Any, Any], ending: Ending) -> bytes:
        status = ending.status
        payload = outcomes.encode(
            task_id=request.id or "",
            status=status,
            result=ending.value,
            traceback=ending.traceback,
            children=[child.as_tuple() for child in request.children] if request.children else (),
            date_done=now_text() if status in states.READY_STATES else None,
            group_id=request.group,
            parent_id=request.parent_id,
            extended=self._extended_fields(request, task) if self._extended else None,
            serializer=self._serializer,
            compression=self._compression,
        )
        if self._max_size and len(payload) > self._max_size and status == states.SUCCESS:
            raise MessageTooLarge(
                f"the result of {task.name}[{request.id}] has {len(payload):,} bytes, more than "
                f"result_max_size ({self._max_size:,})"
            )
        return payload

    def _extended_fields(self, request: Context, task: Task[Any, Any]) -> dict[str, Any]:
        return {
            "name": task.name,
            "args": request.args,
            "kwargs": request.kwargs,
            "worker": self.hostname,
            "retries": request.retries,
            "queue": request.delivery_info.get("queue"),
        }


def _extra(status: str, after: Aftermath | None, reason: str = "", detail: str = "") -> Extra:
    """The rarer parts of a report."""
    if after is None:
        return Extra(status, (), reason, detail)
    return Extra(
        status,
        after.publish,
        reason,
        detail,
        "",
        after.others,
        after.arrivals,
        after.begins,
        after.closes,
    )


def _reason(ending: Ending) -> tuple[str, str]:
    """For the dead-letter queue: one line, and the traceback."""
    try:
        reason = f"{type(ending.value).__name__}: {ending.value}"[:500]
    except Exception:
        reason = type(ending.value).__name__
    return _storable(reason), _storable(ending.traceback or "")


def _storable(text: str) -> str:
    """Without halves of pairs, which names of files are made of that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _log(task: Task[Any, Any], request: Context, ending: Ending) -> None:
    name, ident, status = task.name, request.id, ending.status
    fields = task_fields(name, ident, state=status, runtime=ending.runtime)
    try:
        level, text, values = _line(task, ending)
        logger.log(level, "Task %s[%s] " + text, name, ident, *values, extra=fields)
    except Exception:
        text = "Task %s[%s] %s (its value cannot be shown)"
        logger.error(text, name, ident, status, extra=fields)


def _line(task: Task[Any, Any], ending: Ending) -> tuple[int, str, tuple[Any, ...]]:
    """Level, text and values of the log line about an ending."""
    value, runtime = ending.value, ending.runtime
    if ending.status == states.SUCCESS:
        return logging.INFO, "succeeded in %.6fs: %.200r", (runtime, value)
    if ending.status == states.RETRY:
        return logging.INFO, "retry: %s", (value,)
    if ending.status != states.FAILURE:
        return logging.INFO, "%s: %s", (ending.status.lower(), value)
    if isinstance(value, tuple(task.throws)):
        return logging.INFO, "raised an expected error in %.6fs: %r", (runtime, value)
    trace = (ending.traceback or repr(value)).rstrip()
    return logging.ERROR, "raised an error in %.6fs\n%s", (runtime, trace)
