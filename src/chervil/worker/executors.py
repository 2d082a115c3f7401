"""The hub's view of its executors: which there are, and how to reach them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import termios
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import msgspec

from chervil.exceptions import OperationalError
from chervil.worker import forkserver
from chervil.worker.executor import Plan, run_executor

logger = logging.getLogger("chervil.worker")
#: An executor that lives shorter than this did not end because of a task.
_TOO_SHORT_SECONDS = 1.0
_SLOWEST_RESTART_SECONDS = 10.0
#: For one that had begun a job, which may be what ended it: other jobs wait for the next.
_LONGEST_WAIT_FOR_JOBS = 0.25
_TRY_AGAIN_SECONDS = 0.05
_START_SECONDS = 30.0
#: Signals that ask a program to end.
_GENTLE = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Executor(msgspec.Struct):
    """One executor process."""

    index: int
    control: socket.socket
    started: float
    pid: int = 0
    #: Takes no more jobs and is to be ended.
    retired: bool = False
    #: Monotonic seconds since when it has orders that it has not read; 0: it has none.
    deaf_since: float = 0.0


class Exit(msgspec.Struct, frozen=True):
    """An executor that has ended; ``status`` as ``os.waitstatus_to_exitcode``."""

    index: int
    pid: int
    status: int


class Executors:
    """Keeps ``count`` executors alive.

    :param quiet: a context manager under which no other thread of the hub is at
        work, so that forking is safe.
    """

    def __init__(
        self, plan: Plan, count: int, quiet: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self.plan = plan
        self.count = count
        self.alive: dict[int, Executor] = {}
        self._quiet = quiet
        self._server: forkserver.Handle | None = None
        self._restarts: list[float] = []
        self._delay = 0.0
        self._closing = False

    @property
    def slots(self) -> int:
        """How many tasks can run at a time."""
        return self.count * self.plan.slots

    def start(self) -> None:
        """Make the fork server and have all executors made; returns when they are."""
        self._fork()
        for _ in range(self.count):
            self._spawn()
        until = time.monotonic() + _START_SECONDS
        while any(not executor.pid for executor in self.alive.values()):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.fileno()], [], [], left)[0]:
                raise OperationalError(f"no executor could be started in {_START_SECONDS:g} s")
            exits, lost = self.collect()
            if exits or lost:
                raise OperationalError("an executor ended while the node was starting")

    def _fork(self) -> None:
        with self._quiet():
            self._server = forkserver.start(
                partial(run_executor, self.plan), self.plan.channel.keep_executor_ends
            )

    def fileno(self) -> int:
        """Readable when :meth:`collect` has something to do."""
        return self._server.fileno() if self._server else -1

    def _spawn(self) -> None:
        assert self._server is not None
        taken = set(self.alive)
        index = next((i for i in range(self.plan.page.executors) if i not in taken), None)
        if index is None:
            raise BlockingIOError("every row of the page is taken by executors that are retired")
        self.plan.page.clear(index)
        control = self._server.spawn(index)
        self.alive[index] = Executor(index, control, time.monotonic())

    # --- what happened

    def collect(self) -> tuple[list[Exit], bool]:
        """Executors that ended, and whether the fork server itself has gone."""
        assert self._server is not None
        answers = self._server.answers()
        if answers is None:
            return self._lost_server(), True
        exits = []
        for answer in answers:
            index, pid = int(answer[1]), int(answer[2])
            if answer[0] == "pid":
                if index in self.alive:
                    self.alive[index].pid = pid
            else:
                exits.append(Exit(index, pid, int(answer[3])))
        return exits, False

    def _lost_server(self) -> list[Exit]:
        """Its executors have no parent any more: end them and start over."""
        logger.error("the fork server has gone; all executors are replaced")
        self._end_orphans()
        exits = [Exit(e.index, e.pid, -signal.SIGKILL) for e in self.alive.values()]
        if self._server is not None:
            self._server.close()
        if not self._closing:
            self._fork()
        return exits

    def _end_orphans(self) -> None:
        """End the executors whose parent cannot do that any more, also those that it made
        without having been able to say so."""
        for executor in self.alive.values():
            # One that has not said its name by now cannot do so any more, and ends.
            with contextlib.suppress(OSError):
                executor.control.shutdown(socket.SHUT_RDWR)
            if not executor.pid:
                executor.pid = int(executor.control.recv(64, socket.MSG_DONTWAIT) or 0)
            self.kill(executor.index)
        for executor in self.alive.values():
            _wait_until_gone(executor.pid)

    def remove(self, exit_: Exit) -> Executor | None:
        """Forget an executor that ended, and plan its replacement."""
        executor = self.alive.pop(exit_.index, None)
        if executor is None:
            return None
        executor.control.close()
        worked = self.plan.page.used(exit_.index)
        self.plan.page.clear(exit_.index)
        now = time.monotonic()
        # Somebody who kills an executor is no sign of one that cannot start.
        failed = exit_.status not in (0, -signal.SIGKILL)
        if failed and now - executor.started < _TOO_SHORT_SECONDS:
            longest = _LONGEST_WAIT_FOR_JOBS if worked else _SLOWEST_RESTART_SECONDS
            self._delay = min(max(self._delay * 2, 0.05), longest)
        else:
            self._delay = 0.0
        if not self._closing:
            self._restarts.append(now + self._delay)
            self._restarts.sort()
        return executor

    def restart(self, now: float) -> float | None:
        """Make the replacements that are due; when the next one is."""
        while self._restarts and self._restarts[0] <= now:
            active = sum(not executor.retired for executor in self.alive.values())
            if active < self.count:
                try:
                    self._spawn()
                except OSError:  # the fork server has gone, which `collect` will notice
                    return now + _TRY_AGAIN_SECONDS
            self._restarts.pop(0)
        return self._restarts[0] if self._restarts else None

    # --- what to do

    def kill(self, index: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to an executor, if it is still there."""
        executor = self.alive.get(index)
        if executor is not None and executor.pid:
            try:
                os.kill(executor.pid, number)
            except ProcessLookupError:
                pass

    def interrupt(self, index: int, slot: int, number: int) -> None:
        """Have ``SoftTimeLimitExceeded`` raised in a running job."""
        self.plan.page.interrupt(index, slot, number)
        if self.plan.pool == "prefork":
            self.kill(index, signal.SIGUSR1)
        else:
            self._order(index, b"interrupt %d %d" % (slot, number))

    def abandon(self, index: int, slot: int, number: int) -> None:
        """A job's time is over: end it, by what means the pool has."""
        if self.plan.pool == "prefork":
            self.kill(index)
        else:
            self._order(index, b"abandon %d %d" % (slot, number))

    def terminate(self, index: int, slot: int, number: int, signum: int) -> None:
        """A running job was cancelled: end it, by what means the pool has.

        :param signum: ``SIGUSR1`` raises ``SoftTimeLimitExceeded`` as Celery's workers do,
            ``SIGKILL`` ends the process, other signals interrupt the task.
        """
        if signum == signal.SIGUSR1:
            self.interrupt(index, slot, number)
        elif self.plan.pool != "prefork":
            self._order(index, b"terminate %d %d" % (slot, number))
        elif signum in _GENTLE:
            self.plan.page.interrupt(index, slot, number, end=True)
            self.kill(index, signal.SIGTERM)
        else:
            self.expect_end(index)
            self.kill(index, signum)

    def expect_end(self, index: int) -> None:
        """An executor is about to be ended on purpose: its end is no news."""
        if index in self.alive:
            self.alive[index].retired = True

    def retire(self, index: int) -> None:
        """Let an executor take no more jobs, and have another take its place."""
        executor = self.alive[index]
        if not executor.retired:
            executor.retired = True
            if self.plan.pool == "prefork":
                self.kill(index, signal.SIGTERM)
            else:
                self._order(index, b"stop")
            self._restarts.append(time.monotonic())

    def resize(self, change: int) -> None:
        """Have more executors, or let some end when what they run has.

        :raises OperationalError: there is no room for so many.
        """
        count = max(1, self.count + change)
        most = self.plan.page.executors - 1
        if count > most:
            raise OperationalError(f"this node has room for {most} executors")
        for index, executor in sorted(self.alive.items(), reverse=True):
            if self.count > count and not executor.retired:
                self.retire(index)
                self.count -= 1
        while self.count < count:
            self.count += 1
            self._restarts.append(0.0)
        self._restarts.sort()

    def _order(self, index: int, order: bytes) -> None:
        executor = self.alive.get(index)
        if executor is not None:
            try:
                executor.control.send(order)
            except OSError:
                pass  # it has gone; the fork server will say so

    def deaf_for(self, index: int, now: float) -> float:
        """For how long an executor has not read its orders, since this was asked first:
        a task in it holds the interpreter lock, or its event loop."""
        executor = self.alive[index]
        if not _unread(executor.control):
            executor.deaf_since = 0.0
            return 0.0
        executor.deaf_since = executor.deaf_since or now
        return now - executor.deaf_since

    def end(self) -> None:
        """No more replacements: executors that end stay ended."""
        self._closing = True
        self._restarts.clear()

    def wait(self, seconds: float) -> None:
        """Until all executors have ended, at most so long."""
        until = time.monotonic() + seconds
        while self.alive and (left := until - time.monotonic()) > 0:
            if not select.select([self.fileno()], [], [], left)[0]:
                break
            exits, lost = self.collect()
            for exit_ in exits:
                self.remove(exit_)
            if lost:
                break

    def close(self) -> None:
        """End all executors and the fork server, at once."""
        self.end()
        if self._server is not None and not self._server.close():
            self._end_orphans()
        for executor in self.alive.values():
            executor.control.close()
        self.alive.clear()


def _unread(sending: socket.socket) -> bool:
    """Whether the other side has not read all that was sent."""
    count = bytearray(4)
    fcntl.ioctl(sending, termios.TIOCOUTQ, count)
    return any(count)


def _wait_until_gone(pid: int, seconds: float = 2.0) -> None:
    """Until an orphan that was killed has been reaped by whoever adopted it."""
    end = time.monotonic() + seconds
    while pid and time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    return
        except OSError:
            return
        time.sleep(0.001)
