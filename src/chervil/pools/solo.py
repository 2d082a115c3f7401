"""One task at a time in the hub's own process, for debugging.

Has the hub's side of :class:`~chervil.pools.channel.Channel`, but runs the jobs
itself when it is asked for reports, for at most ``SLICE`` seconds beyond the
task that is running, so that results are stored soon.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from time import monotonic
from types import FrameType

from chervil.coroutines import close_thread_loop, interrupt_coroutine
from chervil.exceptions import (
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
    WorkerTerminate,
)
from chervil.pools.frames import job_number, unpack_job
from chervil.pools.runner import Runner

#: Seconds after which finished jobs are reported although more wait.
SLICE = 0.005
logger = logging.getLogger("chervil.worker")


class Solo:
    """Jobs that wait for this thread, and their reports."""

    slots = 1

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        runner.report = self._report
        self._waiting: deque[bytes] = deque()
        self._reports: list[bytes] = []
        self._limits: dict[int, tuple[float, float]] = {}
        #: Of the jobs that were taken back last.
        self._given_back: dict[int, tuple[float, float]] = {}
        self._busy = 0
        #: The number of the job that is being run, 0 for none, and of one to be ended.
        self.current = 0
        #: Monotonic time at which it began.
        self.since = 0.0
        self._cancelled = 0
        #: A job is being run now.
        self.running = False
        # Only the main thread can be interrupted by a timer.
        self._timer = threading.current_thread() is threading.main_thread()
        if self._timer:
            signal.signal(signal.SIGALRM, self._alarm)

    def put(self, frame: bytes) -> bool:
        """Queue a job."""
        self._waiting.append(frame)
        return True

    def limit(self, number: int, soft: float, hard: float) -> None:
        """Time limits in seconds of a job that is about to be put; 0: none."""
        if soft or hard:
            self._limits[number] = soft, hard

    def take_back(self) -> list[bytes]:
        """All jobs that have not begun."""
        frames = list(self._waiting)
        self._waiting.clear()
        # The limits of a job that runs have been taken out.
        self._given_back, self._limits = self._limits, {}
        return frames

    def put_again(self, frame: bytes) -> None:
        """Queue a job that was taken back, under the limits that it had."""
        number = job_number(frame)
        self.limit(number, *self._given_back.pop(number, (0.0, 0.0)))
        self.put(frame)

    @property
    def waiting(self) -> int:
        """How many jobs have not begun."""
        return len(self._waiting)

    def reports(self) -> list[bytes]:
        """Run jobs for a while; what they and their states had to report."""
        end = monotonic() + SLICE
        while self._waiting:
            frame = self._waiting.popleft()
            self.running = True
            self.since = monotonic()
            self.current = job_number(frame)
            try:
                if self._limits:
                    self._run_limited(frame)
                else:
                    self._runner.perform(unpack_job(frame))
            except WorkerTerminate:
                break  # the interrupted job is not reported, and so not settled
            except Terminated:
                pass  # arrived after the report; the job has ended by itself
            finally:
                self.current = 0
                self.running = False
            if monotonic() >= end:
                break
        reports, self._reports = self._reports, []
        return reports

    def _report(self, frame: bytes) -> None:
        self._reports.append(frame)

    def close(self) -> None:
        close_thread_loop()
        if self._timer:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    # --- time limits

    def _run_limited(self, frame: bytes) -> None:
        number = job_number(frame)
        soft, hard = self._limits.pop(number, (0.0, 0.0))
        if not self._timer:
            if soft or hard:
                logger.warning("solo pool outside the main thread: time limits have no effect")
            self._runner.perform(unpack_job(frame))
            return
        self._alarms = [
            (seconds, error)
            for seconds, error in ((soft, SoftTimeLimitExceeded), (hard, TimeLimitExceeded))
            if seconds
        ]
        self._busy, self._began = number, monotonic()
        self._arm()
        try:
            self._runner.perform(unpack_job(frame))
        except (SoftTimeLimitExceeded, TimeLimitExceeded):
            pass  # arrived after the report; the job has ended by itself
        finally:
            self._busy = 0
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _arm(self) -> None:
        if self._alarms:
            left = self._began + self._alarms[0][0] - monotonic()
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))

    def terminate(self, number: int) -> bool:
        """End the job that runs, if it is that one. From another thread.

        :returns: whether it is that one and can be interrupted.
        """
        if not self._timer or self.current != number:
            return False
        self._cancelled = number
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        return True

    def _alarm(self, signum: int, _frame: FrameType | None) -> None:
        if self._cancelled and self._cancelled == self.current:
            self._cancelled = 0
            cancelled = Terminated(signum)
            if not interrupt_coroutine(threading.get_ident(), cancelled):
                raise cancelled
            return
        if not self._busy or not self._alarms:
            return
        seconds, error = self._alarms.pop(0)
        self._arm()
        exception = error(seconds) if error is TimeLimitExceeded else error()
        if not interrupt_coroutine(threading.get_ident(), exception):
            raise exception
