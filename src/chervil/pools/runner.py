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
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from chervil import states
from chervil.canvas.continuation import Aftermath, Following, check
from chervil.context import Context, Unread, unread
from chervil.exceptions import (
    ChervilError,
    DecodeError,
    InvalidTaskError,
    MessageTooLarge,
    Reject,
    Retry,
    Terminated,
    WorkerTerminate,
)
from chervil.execution import Ending, execute, format_traceback
from chervil.log import task_fields
from chervil.pools.frames import SUCCEEDED, Extra, Job, Kind, Verdict, pack_report
from chervil.wire import envelope, outcomes
from chervil.wire.celery_v2 import decode_body
from chervil.wire.envelope import Head, Headers
from chervil.wire.message import Message
from chervil.wire.serializers import accept_types
from chervil.wire.times import now_text

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.task import Task

logger = logging.getLogger("chervil.task")


class Run(msgspec.Struct, gc=False):
    """A job that was opened."""

    #: The job's.
    number: int
    task: Task[Any, Any]
    request: Context
    args: list[Any]
    kwargs: dict[str, Any]
    #: What is known of the request while it is unread.
    headers: Headers | None

    @property
    def seen(self) -> Context | Headers:
        """The request or, when nobody has looked at it, what its message says."""
        headers = self.headers
        return self.request if headers is None or type(self.request) is not Unread else headers


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
        #: Of the tasks that were run: looking into the settings costs more than the rest of it.
        self._track_started: dict[str, bool] = {}

    # --- the ways in

    def perform(self, job: Job) -> None:
        """Run a job in this thread and report it."""
        run = self.open(job)
        if run is not None:
            self.perform_opened(run)

    def perform_opened(self, run: Run) -> None:
        """Run an opened job in this thread and report it."""
        try:
            ending = execute(run.task, run.request, run.args, run.kwargs)
        except WorkerTerminate:
            raise
        except BaseException as exc:
            ending = self.interrupted(exc)
        self.conclude(run, ending)

    def interrupted(self, exc: BaseException) -> Ending:
        """The ending of a job that was interrupted outside the user's function."""
        return Ending(states.FAILURE, exc, format_traceback(exc), 0.0)

    # --- before

    def open(self, job: Job) -> Run | None:
        """What there is to run; None when there is nothing.

        The job was unreadable, or a verdict on it was given, and that is reported.
        """
        if job.verdict is not None:
            self._judge(job, job.verdict)
            return None
        try:
            head = None if job.body is None else envelope.glance(job.head)
            run = self._open_whole(job) if head is None else self._open_usual(job, head)
            request = run.request
            if run.headers is None and request.follows:
                check(request)
        except (ChervilError, KeyError) as exc:
            self._unreadable(job, exc)
            return None
        name = run.task.name
        started = self._track_started.get(name)
        if started is None:
            started = self._track_started[name] = bool(run.task.track_started)
        if started and request.reporter is not None:
            request.reporter(
                request.id or "", states.STARTED, {"pid": os.getpid(), "hostname": self.hostname}
            )
        return run

    def _open_usual(self, job: Job, head: Head) -> Run:
        """With no more of the head read than it takes to run a task that does not look at
        its request."""
        headers = head.headers
        args, kwargs, embed = decode_body(
            job.body or b"",
            head.content_type,
            head.content_encoding,
            headers.compression,
            self._accept,
        )
        task = self._tasks[headers.task]
        if any(embed.values()):
            request = self._read(job, task, args, kwargs, embed)
            return Run(job.number, task, request, args, kwargs, None)
        if headers.ignore_result is None:  # sent by name, by who does not know the task
            headers.ignore_result = task.ignore_result
        request = unread(partial(self._read, job, task, args, kwargs, embed))
        return Run(job.number, task, request, args, kwargs, headers)

    def _open_whole(self, job: Job) -> Run:
        message = envelope.decode(job.head, job.body)
        headers = message.headers
        args, kwargs, embed = decode_body(
            message.body,
            message.content_type,
            message.content_encoding,
            headers.get("compression"),
            self._accept,
        )
        task = self._tasks[headers["task"]]
        request = self._request(job, message, task, args, kwargs, embed)
        return Run(job.number, task, request, args, kwargs, None)

    def _read(
        self,
        job: Job,
        task: Task[Any, Any],
        args: list[Any],
        kwargs: dict[str, Any],
        embed: dict[str, Any],
    ) -> Context:
        """The request of a job of which only what runs was read."""
        return self._request(job, envelope.decode(job.head, b""), task, args, kwargs, embed)

    def _request(
        self,
        job: Job,
        message: Message,
        task: Task[Any, Any] | None,
        args: list[Any],
        kwargs: dict[str, Any],
        embed: dict[str, Any],
    ) -> Context:
        properties = message.properties
        properties["reply_to"] = message.reply_to
        request = Context.for_message(
            message.headers,
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
        if request.ignore_result is None and task is not None:
            request.ignore_result = task.ignore_result
        request.deliveries = job.deliveries
        request.reporter = partial(self._report_state, job.number)
        return request

    def _judge(self, job: Job, verdict: Verdict) -> None:
        """Report what follows from the end of a task that did not end by itself."""
        after: Aftermath | None = None
        try:
            message = envelope.decode(job.head, job.body)
            args, kwargs, embed = decode_body(
                message.body,
                message.content_type,
                message.content_encoding,
                message.headers.get("compression"),
                self._accept,
            )
            request = self._request(job, message, None, args, kwargs, embed)
            error = outcomes.exception_from_dict(verdict.error)
            following = Following(self.app, request)
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

    def _report_state(self, number: int, task_id: str, state: str, meta: Any) -> None:
        """What ``update_state`` calls inside a worker: the hub stores it in its next batch."""
        payload = outcomes.encode(
            task_id=task_id,
            status=state,
            result=meta,
            date_done=now_text() if state in states.READY_STATES else None,
            serializer=self._serializer,
            compression=self._compression,
        )
        extra = Extra(state, task_id=task_id)
        self.report(pack_report(number, Kind.STATE, 0.0, payload, extra))

    # --- after

    def conclude(
        self,
        run: Run,
        ending: Ending,
        report: Callable[[bytes], None] | None = None,
    ) -> None:
        """Turn an ending into a report, hand it in and log it.

        :param report: takes it in the place of :attr:`report`.
        """
        for tries in range(4):
            try:
                (report or self.report)(self._frame(run, ending))
                break
            except (OSError, WorkerTerminate):
                raise  # the hub has gone, or this process is going
            except BaseException as exc:
                # The task ran, but its result or what follows cannot be sent, or its time was
                # over meanwhile: a failure that says so. A second report changes nothing.
                if tries == 3:
                    raise
                if ending.status == states.FAILURE:
                    request = run.request
                    request.callbacks = request.errbacks = request.chain = request.chord = None
                ending = Ending(states.FAILURE, exc, format_traceback(exc), ending.runtime)
        if self._log_info or ending.status == states.FAILURE:
            _log(run, ending)

    def _frame(self, run: Run, ending: Ending) -> bytes:
        status, number, runtime = ending.status, run.number, ending.runtime
        if status == states.SUCCESS:
            seen, extra = run.seen, SUCCEEDED
            if seen is not run.headers:
                after = run.request.aftermath
                if run.request.follows:
                    # What it sends becomes its children, which the outcome names.
                    after = Following(self.app, run.request).success(ending.value)
                if after is not None:
                    extra = _extra(status, after)
            if seen.ignore_result:
                return pack_report(number, Kind.IGNORED, runtime, b"", extra)
            payload = self._outcome(run, ending)
            return pack_report(number, Kind.ENDED, runtime, payload, extra)
        if status == states.FAILURE:
            return self._failure_frame(run, ending)
        if status == states.RETRY:
            return self._retry_frame(run, ending)
        if status == states.REJECTED:
            return self._reject_frame(run, ending)
        if run.seen is run.headers:
            return pack_report(number, Kind.IGNORED, runtime, b"")
        after = run.request.aftermath  # of a task that was replaced: the other one goes on
        if after is None:
            run.request.errbacks = None
            after = self._failure(run.request, ending.value, None)  # nobody else would tell
        return pack_report(number, Kind.IGNORED, runtime, b"", _extra(states.IGNORED, after))

    def _failure(
        self, request: Context, exception: BaseException, traceback: str | None
    ) -> Aftermath | None:
        if not request.follows:
            return None
        return Following(self.app, request).failure(exception, traceback)

    def _failure_frame(self, run: Run, ending: Ending) -> bytes:
        task, request = run.task, run.request
        after = self._failure(request, ending.value, ending.traceback)
        kind = Kind.ENDED
        if not task.acks_on_failure_or_timeout and task.acks_late:
            kind = Kind.FAILED_UNACKED
        keep = not request.ignore_result or task.store_errors_even_if_ignored
        payload = self._outcome(run, ending) if keep else b""
        if kind is Kind.ENDED and not keep:
            kind = Kind.IGNORED
        extra = _extra(states.FAILURE, after, *_reason(ending))
        return pack_report(run.number, kind, ending.runtime, payload, extra)

    def _retry_frame(self, run: Run, ending: Ending) -> bytes:
        retry: Retry = ending.value
        payload = b""
        if not run.request.ignore_result:
            shown = Ending(states.RETRY, retry.exc or retry, ending.traceback, ending.runtime)
            payload = self._outcome(run, shown)
        follow = () if retry.pending is None else (retry.pending,)
        extra = Extra(states.RETRY, follow)
        return pack_report(run.number, Kind.RETRY, ending.runtime, payload, extra)

    def _reject_frame(self, run: Run, ending: Ending) -> bytes:
        reject: Reject = ending.value
        if reject.requeue:
            return pack_report(run.number, Kind.REQUEUE, ending.runtime, b"")
        payload = b""
        if not run.request.ignore_result:
            failed = Ending(states.FAILURE, reject, None, ending.runtime)
            payload = self._outcome(run, failed)
        after = self._failure(run.request, reject, None)
        extra = _extra(states.FAILURE, after, f"rejected by the task: {reject.reason}")
        return pack_report(run.number, Kind.REJECTED, ending.runtime, payload, extra)

    def _outcome(self, run: Run, ending: Ending) -> bytes:
        status, seen = ending.status, run.seen
        children = () if seen is run.headers else run.request._children or ()
        payload = outcomes.encode(
            task_id=seen.id or "",
            status=status,
            result=ending.value,
            traceback=ending.traceback,
            children=[child.as_tuple() for child in children],
            date_done=now_text() if status in states.READY_STATES else None,
            group_id=seen.group,
            parent_id=seen.parent_id,
            extended=self._extended_fields(run) if self._extended else None,
            serializer=self._serializer,
            compression=self._compression,
        )
        if self._max_size and len(payload) > self._max_size and status == states.SUCCESS:
            raise MessageTooLarge(
                f"the result of {run.task.name}[{seen.id}] has {len(payload):,} bytes, more than "
                f"result_max_size ({self._max_size:,})"
            )
        return payload

    def _extended_fields(self, run: Run) -> dict[str, Any]:
        request = run.request
        return {
            "name": run.task.name,
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


def _log(run: Run, ending: Ending) -> None:
    name, ident, status = run.task.name, run.seen.id, ending.status
    fields = task_fields(name, ident, state=status, runtime=ending.runtime)
    try:
        level, text, values = _line(run.task, ending)
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
    if isinstance(value, Terminated):  # an operator asked for it
        return logging.INFO, "was ended by its cancellation after %.6fs", (runtime,)
    trace = (ending.traceback or repr(value)).rstrip()
    return logging.ERROR, "raised an error in %.6fs\n%s", (runtime, trace)
