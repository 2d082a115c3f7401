"""Who waits for a result: a thread or a coroutine, and how it is told."""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from chervil.exceptions import BackendError
from chervil.states import READY_STATES

if TYPE_CHECKING:
    import asyncio

    from chervil.drivers.contracts import ResultStore
    from chervil.wire.message import Outcome


class Blocked:
    """A thread that waits for one task."""

    __slots__ = ("lock", "news", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.lock = allocate_lock()
        self.lock.acquire()
        self.news: deque[Outcome | BaseException] = deque()

    def tell(self, news: Outcome | BaseException) -> None:
        self.news.append(news)
        if self.lock.locked():
            try:
                self.lock.release()
            except RuntimeError:  # another thread told it something in this moment
                pass


class Awaiting:
    """A coroutine that waits for one task."""

    __slots__ = ("future", "loop", "on_news", "sent_here", "task_id")

    def __init__(
        self,
        task_id: str,
        sent_here: bool,
        future: asyncio.Future[Outcome],
        on_news: Callable[[Outcome], object] | None,
    ) -> None:
        self.task_id = task_id
        self.sent_here = sent_here
        self.future = future
        self.loop = future.get_loop()
        self.on_news = on_news

    def settle(self, news: Outcome | BaseException) -> None:
        """On the event loop: hand over."""
        if self.future.done():
            return
        if isinstance(news, BaseException):
            self.future.set_exception(news)
            return
        try:
            if self.on_news is not None:
                self.on_news(news)
        except Exception as exc:
            self.future.set_exception(exc)
            return
        if news.status in READY_STATES:
            self.future.set_result(news)


Waiter = Blocked | Awaiting
Batches = dict["asyncio.AbstractEventLoop", list[tuple[Awaiting, "Outcome | BaseException"]]]


def _settle_all(batch: Iterable[tuple[Awaiting, Outcome | BaseException]]) -> None:
    for waiter, news in batch:
        waiter.settle(news)


def read_stored(store: ResultStore, task_id: str, *, last: bool = False) -> Outcome | None:
    """What is stored; nothing while the store does not answer, unless it is the last time.

    The listener's thread finds out too, and knows when to give up.
    """
    try:
        return store.get((task_id,)).get(task_id)
    except BackendError:
        if last:
            raise
        return None


def told(outcome: Outcome, on_news: Callable[[Outcome], object] | None) -> Outcome:
    if on_news is not None:
        on_news(outcome)
    return outcome


def take_news(waiter: Blocked, on_news: Callable[[Outcome], object] | None) -> Outcome | None:
    """The last of what the listener thread told; earlier ones only go to ``on_news``."""
    last: Outcome | None = None
    while waiter.news:
        news = waiter.news.popleft()
        if isinstance(news, BaseException):
            raise news
        if last is not None:
            told(last, on_news)
        last = news
        if news.status in READY_STATES:
            break
    return last


def hand_over(batches: Batches) -> None:
    """Wake each event loop once with all that is for it."""
    for loop, batch in batches.items():
        try:
            loop.call_soon_threadsafe(_settle_all, batch)
        except RuntimeError:  # that loop was closed; nobody waits there any more
            pass
