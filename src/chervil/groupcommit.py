"""Sending for coroutines: one thread a process and app, one batch at a time.

Whatever has come in while the last batch was written goes out as the next one, so
that batches grow under load and nothing waits without load. Each event loop is
woken once a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from chervil.exceptions import OperationalError, PublishError

if TYPE_CHECKING:
    import asyncio

    from chervil.wire.message import Message

#: Calls that go into one batch.
LIMIT = 1000

_Entry = tuple[Sequence["Message"], "asyncio.AbstractEventLoop", "asyncio.Future[None]"]


class GroupCommit:
    """Sends messages from one thread and resolves futures of event loops.

    :param send: stores messages, or raises.
    """

    def __init__(self, send: Callable[[Sequence[Message]], object]) -> None:
        self._send = send
        self.reset()

    def reset(self) -> None:
        """Forget everything, as is right in the child after a fork."""
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(
        self, messages: Sequence[Message], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[None]:
        """Have messages stored; the future of ``loop`` is done when they are, or has the error."""
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:  # so that nothing comes behind the None of `close`
            self._queue.put((messages, loop, future))
            if self._thread is None:
                self._start()
        return future

    def _start(self) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(self._queue,), name="chervil-publisher", daemon=True
        )
        self._thread.start()

    def _run(self, queue: SimpleQueue[_Entry | None]) -> None:
        stopping = False
        while not stopping:
            entry = queue.get()
            batch: list[_Entry] = []
            size = 0
            while True:
                if entry is None:
                    stopping = True
                    break
                # A future that was cancelled while it waited here is not sent.
                if not entry[2].cancelled():
                    batch.append(entry)
                    size += len(entry[0])
                if size >= LIMIT:
                    break
                try:
                    entry = queue.get_nowait()
                except Empty:
                    break
            if batch:
                self._commit(batch)

    def _commit(self, batch: Sequence[_Entry]) -> None:
        error: BaseException | None = None
        try:
            self._send([message for entry in batch for message in entry[0]])
        except OperationalError as exc:
            error = exc
        except BaseException as exc:
            if len(batch) > 1:  # one call's mistake is not the others'
                for entry in batch:
                    self._commit((entry,))
                return
            error = exc
        loops: dict[asyncio.AbstractEventLoop, list[tuple[_Entry, BaseException | None]]] = {}
        for entry in batch:
            loops.setdefault(entry[1], []).append((entry, _error_for(entry[0], error)))
        for loop, done in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, done)
            except RuntimeError:  # that loop was closed; nobody waits there any more
                pass

    def close(self, timeout: float = 5.0) -> None:
        """Send what is waiting and stop the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            queue, self._queue = self._queue, SimpleQueue()
            queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


def _error_for(messages: Sequence[Message], error: BaseException | None) -> BaseException | None:
    """What an error of the whole batch means for some of its messages."""
    if not isinstance(error, PublishError) or not error.failed:
        return error
    failed = tuple(message.id for message in messages if message.id in error.failed)
    return PublishError(str(error), failed) if failed else None


def _resolve(done: Sequence[tuple[_Entry, BaseException | None]]) -> None:
    for (_, _, future), error in done:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        elif isinstance(error, Exception):
            future.set_exception(error)
        else:  # a SystemExit in that thread is no reason to end this one
            future.set_exception(OperationalError(f"sending was interrupted: {error!r}"))
