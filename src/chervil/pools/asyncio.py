"""Many tasks at a time in each process, on one event loop.

The loop reads the run queue only while a slot is free. Functions that are not
coroutines run in threads, so that they do not hold up the loop; they take slots
like the others.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Coroutine
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from chervil.context import Context
from chervil.coroutines import Interruptible, close_thread_loop
from chervil.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from chervil.execution import aexecute
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
        self._taker = seat.channel.taker()
        self._places = [seat.page.place(seat.index, slot) for slot in self._free]
        self._listening = False
        self._stop = False
        self._broken = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._coroutines: dict[int, tuple[int, Interruptible]] = {}
        self._threads = Threads(self)

    async def main(self) -> None:
        """Run until the queue ends and everything that runs has ended."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        control = self._seat.control
        self._loop.add_reader(control.fileno(), self._on_control)
        self._listen()
        try:
            await self._ended
        finally:
            self._loop.remove_reader(control.fileno())
            self._pause()
            self._threads.close()

    # --- jobs

    def _listen(self) -> None:
        if not self._listening and not self._stop:
            self._loop.add_reader(self._seat.channel.jobs_fileno, self._take)
            self._listening = True

    def _pause(self) -> None:
        if self._listening:
            self._loop.remove_reader(self._seat.channel.jobs_fileno)
            self._listening = False

    def _take(self) -> None:
        """Start what is there while slots are free; listen only while some stay free."""
        try:
            while self._free and not self._stop:
                frame = self._taker.take_now(self._places[self._free[-1]])
                if frame is None:
                    self._listen()
                    return
                if not frame:
                    self._finish()
                    return
                self._start(unpack_job(frame), self._free.pop())
            self._pause()
        except BaseException as exc:  # a mistake of ours: end, and let the hub run it elsewhere
            self._broken = True
            if not self._ended.done():
                self._ended.set_exception(exc)

    def _start(self, job: Job, slot: int) -> None:
        seat = self._seat
        seat.page.enter(seat.index, slot, job.number, monotonic())
        opened = seat.runner.open(job)
        if opened is None:
            seat.page.leave(seat.index, slot)
            self._free.append(slot)
        elif opened[0].is_async:
            self._tasks[slot] = self._loop.create_task(self._run(job, slot, *opened))
        else:
            self._threads.run(job, slot, *opened)

    async def _run(self, job: Job, slot: int, task: Task[Any, Any], request: Context) -> None:
        runner = self._seat.runner
        supervise = partial(self._supervise, job.number, slot) if job.limited else None
        try:
            ending = await aexecute(task, request, supervise)
        except BaseException as exc:  # interrupted outside the user's function
            ending = runner.interrupted(exc)
        if self._broken:  # it was cancelled by our mistake: not its end, it is run again
            return
        try:
            runner.conclude(job, task, request, ending)
        finally:
            self._coroutines.pop(slot, None)
            del self._tasks[slot]
            self._done(slot)

    def _supervise(
        self, number: int, slot: int, coroutine: Coroutine[Any, Any, Any]
    ) -> Interruptible:
        """Have a coroutine awaited so that the hub can interrupt it."""
        running = Interruptible(coroutine)
        running.task = self._tasks[slot]
        self._coroutines[slot] = number, running
        return running

    def _done(self, slot: int) -> None:
        """A job has ended; on the loop's thread."""
        seat = self._seat
        seat.page.leave(seat.index, slot)
        self._free.append(slot)
        if seat.enough():
            self._stop = True
        if self._stop:
            self._finish()
        elif not self._listening:
            self._take()

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

    # --- functions that are not coroutines

    def perform(self, job: Job, slot: int, task: Task[Any, Any], request: Context) -> None:
        """Run a function; in a thread of its own."""
        seat = self._seat
        thread = threading.get_ident()
        seat.page.enter(seat.index, slot, job.number, monotonic(), thread)
        try:
            seat.runner.perform_opened(job, task, request)
        finally:
            self._loop.call_soon_threadsafe(self._returned, slot)

    def _returned(self, slot: int) -> None:
        self._threads.free += 1
        self._done(slot)


Work = tuple[Job, int, "Task[Any, Any]", Context]


class Threads:
    """Threads that run functions; as many as there were functions at a time."""

    def __init__(self, loop: Loop) -> None:
        self._perform = loop.perform
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._count = 0
        #: Threads that wait for work; counted on the loop's thread alone.
        self.free = 0

    def run(self, *work: Any) -> None:
        """Have a job run in a thread that is free, or in a new one."""
        if self.free:
            self.free -= 1
        else:
            self._count += 1
            name = f"chervil-{self._count}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        self._work.put(work)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            self._perform(*work)
        close_thread_loop()

    def close(self) -> None:
        """Let the threads that are free end."""
        for _ in range(self._count):
            self._work.put(None)
