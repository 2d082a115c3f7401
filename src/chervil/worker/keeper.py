"""The thread that keeps the node's claims its own, whatever the hub is at.

It renews the lease, takes back the claims of consumers that died, deletes
expired results, and looks whether the hub gets on. It does so under a lock, which
the hub takes when it forks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from chervil.drivers.contracts import Consumer, ResultStore
from chervil.exceptions import LeaseLost, OperationalError

logger = logging.getLogger("chervil.worker")
_RECOVER_SECONDS = 1.0
#: A lease that could not be renewed has little time left: a connection that was cut may be
#: replaced at once.
_RENEW_AGAIN_SECONDS = 0.1
_EXPIRE_SECONDS = 30.0
#: The same trouble is logged again after so many seconds.
_REPEAT_SECONDS = 30.0


class Keeper:
    """Looks after one consumer.

    :param lease: seconds; renewed three times in each.
    :param on_lost: called in this thread when the lease was lost.
    :param look: called in this thread about once a second.
    :param send_again: called in this thread once in each lease.
    """

    def __init__(
        self,
        consumer: Consumer,
        store: ResultStore,
        lease: float,
        on_lost: Callable[[], None],
        look: Callable[[], None] = lambda: None,
        send_again: Callable[[], None] = lambda: None,
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._period = lease / 3
        self._on_lost = on_lost
        self._renewed = True
        #: Monotonic seconds at which the loop came round last.
        self.beat = monotonic()
        self._look = look
        self._send_again = send_again
        #: What was logged, and when: a broker that is away says the same every second.
        self._said: dict[str, float] = {}
        self._stop = threading.Event()
        #: Held while this thread is at work.
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="chervil-keeper", daemon=True)

    @property
    def renewed(self) -> bool:
        """The last attempt to renew the lease succeeded."""
        return self._renewed

    @property
    def running(self) -> bool:
        """False when it was stopped, or the lease is lost."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        renew = recover = expire = again = monotonic()
        while True:
            now = self.beat = monotonic()
            with self.lock:
                if self._stop.is_set():
                    break
                if now >= renew:
                    if not self._renew():
                        return
                    renew = now + (self._period if self._renewed else _RENEW_AGAIN_SECONDS)
                if now >= recover:
                    recover = now + _RECOVER_SECONDS
                    self._try(self._recover)
                    self._try(self._consumer.tend)
                    self._try(self._look)
                if now >= again:
                    again = now + 3 * self._period
                    self._try(self._send_again)
                if now >= expire:
                    expire = now + _EXPIRE_SECONDS
                    self._try(self._expire)
            if self._stop.wait(max(0.01, min(renew, recover, expire, again) - monotonic())):
                break

    def _renew(self) -> bool:
        """False when the lease was lost."""
        try:
            self._consumer.renew()
        except LeaseLost:
            self._renewed = False
            self._on_lost()
            return False
        except OperationalError as exc:
            self._renewed = False
            self._say(f"The lease could not be renewed (tried again soon): {exc}")
        else:
            self._renewed = True
        return True

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OperationalError as exc:
            self._say(str(exc))

    def _say(self, text: str) -> None:
        now = monotonic()
        self._said = {t: at for t, at in self._said.items() if now - at < _REPEAT_SECONDS}
        if text not in self._said:
            logger.warning("%s", text)
            self._said[text] = now

    def _recover(self) -> None:
        count = self._consumer.recover()
        if count:
            what = "1 message" if count == 1 else f"{count} messages"
            logger.warning("Took back %s that a dead node had claimed", what)
            self._consumer.wake()

    def _expire(self) -> None:
        while self._store.expire():
            if self._stop.is_set():
                return
