"""Many tasks at a time in each process, on one event loop.

The loop reads the run queue only while a slot is free. Functions that are not
coroutines run in threads, so that they do not hold up the loop; they take slots
like the others.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import monotonic
from typing import Any

from chervil.coroutines import Interruptible, close_thread_loop
from chervil.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded
from chervil.execution import aexecute
from chervil.pools.frames import Job, unpack_job
from chervil.pools.interrupt import raise_in_thread
from chervil.pools.runner import Run
from chervil.pools.seat import Seat

#: Containers that a task has at least, from its beginning to its end.
_CONTAINERS = 20


def run(seat: Seat) -> None:
    """Take jobs on an event loop with ``seat.slots`` places until there are no more."""
    young, *older = gc.get_threshold()
    # What fills the slots is no garbage: collections for it alone find nothing, and took a
    # tenth of the time.
    gc.set_threshold(young and max(young, _CONTAINERS * seat.slots), *older)
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
        #: Reports of coroutines that ended in this turn of the loop, and their slots, which
        #: stay taken until the reports are handed in.
        self._reports: list[bytes] = []
        self._done: list[int] = []

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
        except BaseException as exc:
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        """A mistake of ours, or the hub has gone: end, and let it be run elsewhere."""
        self._broken = True
        if not self._ended.done():
            self._ended.set_exception(exc)

    def _start(self, job: Job, slot: int) -> None:
        seat, number = self._seat, job.number
        seat.page.enter(seat.index, slot, number, monotonic())
        run = seat.runner.open(job)
        if run is None:
            seat.page.leave(seat.index, slot)
            self._free.append(slot)
        elif run.task.is_async:
            supervise = partial(self._supervise, number, slot) if job.limited else None
            # Not the loop's create_task: the task that it makes may be of another kind.
            self._tasks[slot] = asyncio.Task(self._run(run, slot, supervise), loop=self._loop)
        else:
            self._threads.run(run, slot)

    async def _run(
        self,
        run: Run,
        slot: int,
        supervise: Callable[[Coroutine[Any, Any, Any]], Interruptible] | None,
    ) -> None:
        runner = self._seat.runner
        try:
            ending = await aexecute(run.task, run.request, run.args, run.kwargs, supervise)
        except BaseException as exc:  # interrupted outside the user's function
            ending = runner.interrupted(exc)
        if self._broken:  # it was cancelled by our mistake: not its end, it is run again
            return
        try:
            runner.conclude(run, ending, self._report)
        finally:
            if supervise is not None:
                self._coroutines.pop(slot, None)
            del self._tasks[slot]
            if not self._done:
                self._loop.call_soon(self._hand_in)
            self._done.append(slot)

    def _report(self, frame: bytes) -> None:
        self._reports.append(self._seat.channel.pack(frame))

    def _hand_in(self) -> None:
        """Report the coroutines that ended in the last turn, all at once: the hub then
        settles them in one step, and has as many new jobs for us in the next."""
        reports, self._reports = self._reports, []
        done, self._done = self._done, []
        try:
            if reports:
                self._seat.channel.report_all(reports)
        except BaseException as exc:
            self._fail(exc)
            return
        self._leave(done)

    def _supervise(
        self, number: int, slot: int, coroutine: Coroutine[Any, Any, Any]
    ) -> Interruptible:
        """Have a coroutine awaited so that the hub can interrupt it."""
        running = Interruptible(coroutine)
        running.task = self._tasks[slot]
        self._coroutines[slot] = number, running
        return running

    def _leave(self, slots: Sequence[int]) -> None:
        """The jobs in these slots have been reported; on the loop's thread."""
        seat = self._seat
        for slot in slots:
            seat.page.leave(seat.index, slot)
            if seat.enough():
                self._stop = True
        self._free += slots
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
        if order[0] == b"terminate":
            self._terminate(slot, number)
            return
        exception: type[BaseException] = (
            SoftTimeLimitExceeded if order[0] == b"interrupt" else TimeLimitExceeded
        )
        found = self._coroutines.get(slot)
        if found is not None and found[0] == number:
            found[1].interrupt(exception())
            return
        self._terminate(slot, number, exception)

    def _terminate(
        self, slot: int, number: int, exception: type[BaseException] = Terminated
    ) -> None:
        """Cancel a coroutine; raise in the thread of a function."""
        running, _, thread = self._seat.page.read(self._seat.index, slot)
        if running != number:
            return
        task = self._tasks.get(slot)
        if task is not None:
            # After its first step, which may be due: before, it would end without a report.
            self._loop.call_soon(task.cancel)
        elif thread:
            raise_in_thread(thread, exception)

    # --- functions that are not coroutines

    def perform(self, run: Run, slot: int) -> None:
        """Run a function; in a thread of its own."""
        seat = self._seat
        thread = threading.get_ident()
        seat.page.enter(seat.index, slot, run.number, monotonic(), thread)
        try:
            seat.runner.perform_opened(run)
        finally:
            self._loop.call_soon_threadsafe(self._returned, slot)

    def _returned(self, slot: int) -> None:
        self._threads.free += 1
        self._leave((slot,))


Work = tuple[Run, int]


class Threads:
    """Threads that run functions; as many as there were functions at a time."""

    def __init__(self, loop: Loop) -> None:
        self._perform = loop.perform
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._count = 0
        #: Threads that wait for work; counted on the loop's thread alone.
        self.free = 0

    def run(self, run: Run, slot: int) -> None:
        """Have a job run in a thread that is free, or in a new one."""
        if self.free:
            self.free -= 1
        else:
            self._count += 1
            name = f"chervil-{self._count}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        self._work.put((run, slot))

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._perform(*work)
            except (SoftTimeLimitExceeded, TimeLimitExceeded, Terminated):
                pass  # arrived after the report; the job has ended by itself
        close_thread_loop()

    def close(self) -> None:
        """Let the threads that are free end."""
        for _ in range(self._count):
            self._work.put(None)
