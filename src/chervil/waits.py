"""Waiting for results: one listener and one thread a process and app.

Rules:

* An id is watched before the store is read for it, so that nothing falls in
  between; whoever waits also reads the store again every ``RECHECK`` seconds,
  so that a lost notification costs time and never hangs.
* One thread reads at a time, for all. Coroutines leave that to the listener thread,
  which serves those that came meanwhile in one batch and wakes each event loop once a
  batch. A thread that waits reads by itself while nobody else does, so that its answer
  need not be handed from one thread to another; once that happened the listener thread
  stands aside until it is called.
* After a fork the child starts anew with nothing (see ``reset``).
"""

from __future__ import annotations

import threading
import time
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from chervil.exceptions import BackendError
from chervil.states import READY_STATES
from chervil.waiters import (
    Awaiting,
    Batches,
    Blocked,
    Waiter,
    hand_over,
    read_stored,
    take_news,
    told,
)

if TYPE_CHECKING:
    import asyncio

    from chervil.drivers.contracts import Listener, ResultStore
    from chervil.wire.message import Outcome

#: Seconds after which a wait reads the store again without any news.
RECHECK = 5.0
#: Ids that are read again in one go for coroutines.
RECHECK_IDS = 1000
#: Outcomes that are kept because they arrived before anybody waited for them, as those of
#: many tasks do whose results are read one after the other.
HEARD = 1000
#: Seconds that the listener may fail without a break before waits are given up.
GIVE_UP = 30.0
#: Seconds that the thread sleeps in one go while nobody waits.
IDLE = 60.0
#: Seconds after which the listener thread reads again if no thread has read since.
ASIDE = 1.0


class Waits:
    """All waits of one app in this process.

    :param store: gives the result store.
    :param address: gives this process's address, which its messages carry.
    """

    def __init__(self, store: Callable[[], ResultStore], address: Callable[[], str]) -> None:
        self._store = store
        self._address = address
        self.reset()

    def reset(self) -> None:
        """Forget everything, as is right in the child after a fork."""
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Waiter]] = {}
        self._inbox: deque[Awaiting] = deque()
        #: What ended while nobody waited for it, but somebody may soon: the last ones.
        self._heard: dict[str, Outcome] = {}
        #: Of what was too much to be kept, the largest id: the last one, if ids are ours.
        self._dropped = ""
        #: The thread was woken and has not looked into the inbox since.
        self._woken = False
        self._listener: Listener | None = None
        #: Held by the thread that reads.
        self._reading = allocate_lock()
        #: A thread wanted to read while the listener thread did.
        self._displaced = False
        #: How often threads that wait have read by themselves.
        self._own_reads = 0
        #: Calls the listener thread back.
        self._call = threading.Event()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._failing_since: float | None = None

    # --- waiting in a thread

    def wait(
        self,
        task_id: str,
        sent_here: bool,
        timeout: float | None,
        on_news: Callable[[Outcome], object] | None = None,
        on_interval: Callable[[], object] | None = None,
    ) -> Outcome | None:
        """Wait until the task has ended; None when that took longer than ``timeout`` seconds.

        :param sent_here: its message carried this process's address.
        :param on_news: called with each outcome on the way, the last included.
        :param on_interval: called whenever the wait was without news for a while.
        :raises BackendError: the store cannot be read.
        """
        heard = self._heard.pop(task_id, None)
        if heard is not None:
            return told(heard, on_news)
        deadline = None if timeout is None else time.monotonic() + timeout
        store, wanted = self._store(), (task_id,)
        # Watching costs the store something, and it may be there.
        if not sent_here or task_id <= self._dropped:
            outcome = store.get(wanted).get(task_id)
            if outcome is not None and outcome.status in READY_STATES:
                return told(outcome, on_news)
        waiter = Blocked(task_id)
        listener = self._add(task_id, waiter)
        try:
            outcome = None
            if not listener.watch(wanted, sent_here):
                outcome = read_stored(store, task_id)
            while True:
                if outcome is not None and told(outcome, on_news).status in READY_STATES:
                    return outcome
                left = RECHECK if deadline is None else min(RECHECK, deadline - time.monotonic())
                if left > 0 and self._read_for(waiter, left):
                    outcome = take_news(waiter, on_news)
                    continue
                over = deadline is not None and time.monotonic() >= deadline
                outcome = read_stored(store, task_id, last=over)
                if over:
                    if outcome is not None and outcome.status in READY_STATES:
                        return told(outcome, on_news)
                    return None
                if on_interval is not None:
                    on_interval()
        finally:
            self._remove(task_id, waiter)

    def _read_for(self, waiter: Blocked, timeout: float) -> bool:
        """Wait for news of one waiter, by reading for all if nobody else does.

        True when there is some.
        """
        deadline = time.monotonic() + timeout
        if not self._reading.acquire(False):
            self._displaced = True
            return waiter.lock.acquire(timeout=timeout)
        try:
            while not waiter.news and not self._inbox and self._listener is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._own_reads += 1
                self._dispatch(self._listener.wait(left))
        except Exception:
            pass  # the listener thread meets it as well, and takes care of it
        finally:
            self._reading.release()
            # Whoever began to wait before this found somebody reading and relies on that.
            if self._inbox or self._others_wait(waiter):
                self._call.set()
        if waiter.news:
            waiter.lock.acquire(False)
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self._call.set()
        return waiter.lock.acquire(timeout=left)

    def _others_wait(self, waiter: Blocked) -> bool:
        with self._lock:
            alone = self._waiters.get(waiter.task_id) == [waiter]
            return len(self._waiters) > alone

    def _add(self, task_id: str, waiter: Blocked) -> Listener:
        with self._lock:
            listener = self._listener or self._start()
            self._waiters.setdefault(task_id, []).append(waiter)
            return listener

    def _remove(self, task_id: str, waiter: Waiter) -> None:
        with self._lock:
            waiters = self._waiters.get(task_id)
            if waiters is None or waiter not in waiters:
                return
            waiters.remove(waiter)
            if waiters:
                return
            del self._waiters[task_id]
            listener = self._listener
        if listener is not None:
            listener.unwatch((task_id,))

    # --- waiting in a coroutine

    def submit(
        self,
        task_id: str,
        sent_here: bool,
        future: asyncio.Future[Outcome],
        on_news: Callable[[Outcome], object] | None = None,
    ) -> Awaiting:
        """Have a future of the running loop resolved with the task's final outcome."""
        waiter = Awaiting(task_id, sent_here, future, on_news)
        with self._lock:
            listener = self._listener or self._start()
            self._inbox.append(waiter)
            asleep, self._woken = not self._woken, True
        if asleep:
            listener.wake()
            self._call.set()
        return waiter

    def cancel(self, waiter: Awaiting) -> None:
        """The future is not wanted any more."""
        self._remove(waiter.task_id, waiter)

    # --- the thread

    def _start(self) -> Listener:
        """Start listening; the lock is held."""
        self._listener = listener = self._store().listener(self._address())
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="chervil-results", daemon=True
            )
            self._thread.start()
        return listener

    def _run(self, stop: threading.Event) -> None:
        recheck_at = time.monotonic() + RECHECK
        while not stop.is_set():
            try:
                listener = self._listener
                if listener is None:
                    listener = self._listen_again()
                if not self._inbox:
                    self._read(listener)
                if stop.is_set():
                    return
                while self._inbox:
                    self._dispatch(self._admit(listener))
                now = time.monotonic()
                if now >= recheck_at:
                    recheck_at = now + RECHECK
                    self._dispatch(self._look_again())
                self._failing_since = None
                if self._displaced:
                    self._stand_aside(stop)
            except Exception as exc:
                if not stop.is_set():
                    self._failed(exc, stop)

    def _read(self, listener: Listener) -> None:
        with self._reading:
            news = listener.wait(RECHECK if self._waiters or self._inbox else IDLE)
            if news:
                self._dispatch(news)

    def _stand_aside(self, stop: threading.Event) -> None:
        """Let threads read for themselves, as long as they do and nobody calls."""
        self._call.clear()
        if self._waiters or self._inbox:
            return
        self._displaced = False
        reads = -1
        while reads != self._own_reads and not stop.is_set():
            reads = self._own_reads
            if self._call.wait(ASIDE):
                break

    def _admit(self, listener: Listener) -> Collection[Outcome]:
        """Watch and read what coroutines have asked for since the last time."""
        with self._lock:
            self._woken = False
            new = [waiter for waiter in self._inbox if not waiter.future.done()]
            self._inbox.clear()
            for waiter in new:
                self._waiters.setdefault(waiter.task_id, []).append(waiter)
        unread: set[str] = set()
        for sent_here in (True, False):
            ids = {waiter.task_id for waiter in new if waiter.sent_here is sent_here}
            if ids and not listener.watch(ids, sent_here):
                unread |= ids
        unread |= {waiter.task_id for waiter in new if waiter.task_id <= self._dropped}
        return self._store().get(unread).values() if unread else ()

    def _look_again(self) -> Collection[Outcome]:
        """Read the store for some of the coroutines that have waited without news."""
        ids: list[str] = []
        with self._lock:
            for task_id, waiters in self._waiters.items():
                if type(waiters[-1]) is Awaiting:
                    ids.append(task_id)
                    if len(ids) == RECHECK_IDS:
                        break
            for task_id in ids:  # others come first the next time
                self._waiters[task_id] = self._waiters.pop(task_id)
        return self._store().get(ids).values() if ids else ()

    def _dispatch(self, news: Iterable[Outcome]) -> None:
        ended: list[str] = []
        batches: Batches = {}
        with self._lock:
            for outcome in news:
                if outcome.status in READY_STATES:
                    waiters = self._waiters.pop(outcome.task_id, ())
                    if waiters:
                        ended.append(outcome.task_id)
                    else:
                        self._remember(outcome)
                else:
                    waiters = self._waiters.get(outcome.task_id, ())
                for waiter in waiters:
                    if type(waiter) is Blocked:
                        waiter.tell(outcome)
                    elif isinstance(waiter, Awaiting):
                        batches.setdefault(waiter.loop, []).append((waiter, outcome))
            listener = self._listener
        hand_over(batches)
        if ended and listener is not None:
            listener.unwatch(ended)

    def _remember(self, outcome: Outcome) -> None:
        """Keep an outcome for who asks for it next; the lock is held."""
        heard = self._heard
        heard[outcome.task_id] = outcome
        if len(heard) > HEARD:
            dropped = next(iter(heard))
            del heard[dropped]
            self._dropped = max(self._dropped, dropped)

    def forget(self, task_id: str) -> None:
        """The result was deleted."""
        self._heard.pop(task_id, None)

    def _failed(self, exc: Exception, stop: threading.Event) -> None:
        """The store did not answer: try again soon, and give the waits up after a while."""
        import logging

        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            logging.getLogger("chervil.result").warning("waiting for results: %r; retrying", exc)
        elif now - self._failing_since > GIVE_UP:
            self._fail_all(
                BackendError(f"the result store has not answered for {GIVE_UP:g} s: {exc}")
            )
            self._failing_since = None
        with self._lock:
            broken, self._listener = self._listener, None
        if broken is not None:
            try:
                broken.close()
            except Exception as problem:
                logging.getLogger("chervil.result").debug("closing the listener: %r", problem)
        stop.wait(0.2)

    def _listen_again(self) -> Listener:
        listener = self._store().listener(self._address())
        with self._lock:
            if self._listener is not None:  # a thread that waits was faster
                listener.close()
                listener = self._listener
            self._listener = listener
            ids = list(self._waiters)
        if ids:
            listener.watch(ids, sent_here=False)
            self._dispatch(self._store().get(ids).values())
        return listener

    def _fail_all(self, exc: BaseException) -> None:
        batches: Batches = {}
        with self._lock:
            everybody: list[Waiter] = [w for some in self._waiters.values() for w in some]
            everybody.extend(self._inbox)
            self._waiters.clear()
            self._inbox.clear()
            for waiter in everybody:
                if isinstance(waiter, Blocked):
                    waiter.tell(exc)
                else:
                    batches.setdefault(waiter.loop, []).append((waiter, exc))
        hand_over(batches)

    def close(self, timeout: float = 5.0) -> None:
        """Stop listening. Who still waits gets a :class:`BackendError`."""
        with self._lock:
            thread, listener, stop = self._thread, self._listener, self._stop
            self._thread = self._listener = None
        stop.set()
        self._call.set()
        self._fail_all(BackendError("the app was closed during the wait"))
        if listener is not None:
            listener.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        if listener is not None:
            listener.close()
