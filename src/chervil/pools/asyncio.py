"""Many tasks at a time in each process, on one event loop.

The loop reads the run queue only while a slot is free. Functions that are not
coroutines run in threads, so that they do not hold up the loop; they take slots
like the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

from chervil.context import Context
from chervil.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from chervil.execution import Interruptible, close_thread_loop
from chervil.pools.frames import Job, unpack_job
from chervil.pools.interrupt import raise_in_thread
from chervil.pools.seat import Seat

if TYPE_CHECKING:
    from chervil.task import Task


def run(seat: Seat) -> None:
    """Take jobs on an event loop with ``seat.slots`` places until there are no more."""
    with asyncio.Runner() as runner:
        runner.run(Loop(seat).main())


class Loop:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._free = list(range(seat.slots))
        self._reading = False
        self._stop = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._coroutines: dict[int, tuple[int, Interruptible]] = {}
        self._threads: ThreadPoolExecutor | None = None

    async def main(self) -> None:
        """Run until the queue ends and everything that runs has ended."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        control = self._seat.control
        self._loop.add_reader(control.fileno(), self._on_control)
        self._read()
        try:
            await self._ended
        finally:
            self._loop.remove_reader(control.fileno())
            self._pause()
            if self._threads is not None:
                self._threads.shutdown(wait=False)

    # --- jobs

    def _read(self) -> None:
        if not self._reading and not self._stop:
            self._loop.add_reader(self._seat.channel.jobs_fileno, self._on_jobs)
            self._reading = True

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._seat.channel.jobs_fileno)
            self._reading = False

    def _on_jobs(self) -> None:
        try:
            self._take()
        except BaseException as exc:  # a mistake of ours: end, and let the hub run it elsewhere
            if not self._ended.done():
                self._ended.set_exception(exc)

    def _take(self) -> None:
        while self._free and not self._stop:
            frame = self._seat.channel.take_now()
            if frame is None:
                return
            if not frame:
                self._finish()
                return
            self._start(unpack_job(frame), self._free.pop())
        self._pause()

    def _start(self, job: Job, slot: int) -> None:
        seat = self._seat
        seat.page.enter(seat.index, slot, job.number, monotonic())
        opened = seat.runner.open(job)
        if opened is None:
            self._done(slot)
            return
        task, request = opened
        body = self._coroutine if task.is_async else self._function
        running = self._loop.create_task(body(job, slot, task, request))
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    async def _coroutine(self, job: Job, slot: int, task: Task[Any, Any], request: Context) -> None:
        def supervise(coroutine: Coroutine[Any, Any, Any]) -> Interruptible:
            running = Interruptible(coroutine)
            running.task = asyncio.current_task()
            self._coroutines[slot] = job.number, running
            return running

        try:
            await self._seat.runner.aperform(job, task, request, supervise)
        finally:
            self._coroutines.pop(slot, None)
            self._done(slot)

    async def _function(self, job: Job, slot: int, task: Task[Any, Any], request: Context) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._seat.slots, "chervil")
        try:
            await self._loop.run_in_executor(
                self._threads, self._in_thread, job, slot, task, request
            )
        finally:
            self._done(slot)

    def _in_thread(self, job: Job, slot: int, task: Task[Any, Any], request: Context) -> None:
        seat = self._seat
        seat.page.enter(seat.index, slot, job.number, monotonic(), threading.get_ident())
        try:
            seat.runner.perform_opened(job, task, request)
        finally:
            close_thread_loop()

    def _done(self, slot: int) -> None:
        seat = self._seat
        seat.page.leave(seat.index, slot)
        self._free.append(slot)
        if seat.enough():
            self._stop = True
        if self._stop:
            self._finish()
        elif not self._reading:
            self._read()
            self._on_jobs()

    def _finish(self) -> None:
        self._stop = True
        self._pause()
        if len(self._free) == self._seat.slots and not self._ended.done():
            self._ended.set_result(None)

    # --- orders from the hub

    def _on_control(self) -> None:
        order = self._seat.control.recv(256).split()
        if not order or order[0] == b"stop":
            self._finish()
            return
        slot, number = int(order[1]), int(order[2])
        exception: type[BaseException] = (
            SoftTimeLimitExceeded if order[0] == b"interrupt" else TimeLimitExceeded
        )
        found = self._coroutines.get(slot)
        if found is not None and found[0] == number:
            found[1].interrupt(exception())
            return
        running, _, thread = self._seat.page.read(self._seat.index, slot)
        if running == number and thread:
            raise_in_thread(thread, exception)
