"""Running coroutines where there is no event loop, and interrupting them.

A thread that runs ``async def`` tasks in a pool without a loop of its own gets
one that is kept for the next.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class Interruptible:
    """Awaits a coroutine, and can throw an exception into it where it waits.

    Cancelling an ``asyncio.Task`` throws ``CancelledError``, which user code may
    take for something else; :meth:`interrupt` throws what it is told.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._exception: BaseException | None = None
        #: The asyncio task that awaits this; set by who creates it.
        self.task: asyncio.Task[Any] | None = None

    async def run(self) -> Any:
        """The coroutine's result; the task made of this is what gets interrupted."""
        return await self

    def interrupt(self, exception: BaseException) -> None:
        """Throw into the coroutine at its present await. On the loop's thread."""
        if self.task is not None and not self.task.done():
            self._exception = exception
            self.task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                awaited = step(value)
            except StopIteration as stop:
                return stop.value
            try:
                value = yield awaited
                step = self._coroutine.send
            except BaseException as exc:
                value, step = exc, self._coroutine.throw
                if self._exception is not None:
                    value, self._exception = self._exception, None
                    if self.task is not None:
                        self.task.uncancel()


_loops = threading.local()
#: What runs on the loop of a thread now, by the thread's identifier.
_on_loop: dict[int, tuple[asyncio.AbstractEventLoop, Interruptible]] = {}


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end on this thread's event loop, which is kept for the next.

    Inside a running loop (an eager call from a coroutine) it runs in a thread
    of its own, since a loop cannot be entered twice.
    """
    # Another thread may be importing it in this moment; then no loop runs in this one.
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if running is not None and running() is not None:
        return _run_elsewhere(coroutine)
    loop = thread_loop()
    running = Interruptible(coroutine)
    task = loop.create_task(running.run())
    running.task = task
    ident = threading.get_ident()
    _on_loop[ident] = loop, running
    try:
        return loop.run_until_complete(task)
    finally:
        del _on_loop[ident]


def interrupt_coroutine(thread: int, exception: BaseException) -> bool:
    """Throw into the coroutine that runs on that thread's loop; False if none does.

    May be called from any thread and from a signal handler.
    """
    found = _on_loop.get(thread)
    if found is None:
        return False
    loop, running = found
    loop.call_soon_threadsafe(running.interrupt, exception)
    return True


def thread_loop() -> asyncio.AbstractEventLoop:
    """The event loop that this thread runs its ``async def`` tasks on."""
    loop: asyncio.AbstractEventLoop | None = getattr(_loops, "loop", None)
    if loop is None or loop.is_closed():
        import asyncio  # costs 40 ms, and most workers never need it

        loop = _loops.loop = asyncio.new_event_loop()
    return loop


def close_thread_loop() -> None:
    """Close this thread's event loop, if it has one."""
    loop: asyncio.AbstractEventLoop | None = getattr(_loops, "loop", None)
    if loop is not None and not loop.is_closed():
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    _loops.loop = None


def _run_elsewhere(coroutine: Coroutine[Any, Any, Any]) -> Any:
    from contextvars import copy_context

    box: list[Any] = []
    context = copy_context()

    def body() -> None:
        try:
            box.append((True, context.run(run_coroutine, coroutine)))
        except BaseException as exc:
            box.append((False, exc))
        finally:
            close_thread_loop()

    thread = threading.Thread(target=body, name="chervil-eager-coroutine")
    thread.start()
    thread.join()
    ok, value = box[0]
    if ok:
        return value
    raise value
