"""How a node is told to end: by signals, by a call, and by the time that may take.

A *warm* shutdown finishes what runs, for as long as ``worker_soft_shutdown_timeout``
allows; a *cold* one gives it back at once. *Soft* is a warm one for who asked harder,
in Celery's words (5.5).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from chervil import signals
from chervil.exceptions import WorkerTerminate
from chervil.worker.health import notify

if TYPE_CHECKING:
    from chervil.pools.solo import Solo
    from chervil.worker.hub import Hub

logger = logging.getLogger("chervil.worker")
#: Exit codes of a node.
EXIT_OK, EXIT_COLD = 0, 1
#: How hard a node was asked to stop.
RUN, WARM, SOFT, COLD = 0, 1, 2, 3
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


class Wakeup:
    """Ends a wait of the hub's thread, from any thread or signal handler."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        for end in (self._in, self._out):
            end.setblocking(False)

    def __call__(self) -> None:
        with contextlib.suppress(OSError):
            self._in.send(b"!")

    def fileno(self) -> int:
        """Readable when the wait is to end."""
        return self._out.fileno()

    @property
    def writable(self) -> int:
        """The descriptor that a signal writes to (``signal.set_wakeup_fd``)."""
        return self._in.fileno()

    def wait(self, seconds: float) -> None:
        """At most so long."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        if poll.poll(seconds * 1000):
            self._out.recv(4096)

    def close(self) -> None:
        self._in.close()
        self._out.close()


class Shutdown:
    """Who asked a node to stop, and how hard.

    :param seconds: what a warm shutdown may take; 0: as long as it takes.
    :param wakeup: of the hub.
    """

    def __init__(self, hostname: str, seconds: float, wakeup: Wakeup) -> None:
        self._hostname = hostname
        self._seconds = seconds
        self._wakeup = wakeup
        self.asked = RUN
        self._timer: threading.Timer | None = None
        #: The seconds that a shutdown may take have passed.
        self._over = False
        #: The main thread, where signals are handled.
        self._main: int | None = None
        self._hub: Hub | None = None
        #: Set by a node whose hub runs the tasks itself.
        self.solo: Solo | None = None

    @property
    def exit_code(self) -> int:
        """Of the node, when it has stopped."""
        return EXIT_COLD if self.asked > WARM else EXIT_OK

    def guide(self, hub: Hub) -> None:
        """From here on, that hub is told."""
        self._hub = hub
        hub.stopping = COLD if self._over or self.asked == COLD else min(self.asked, WARM)

    def stop(self, how: int) -> None:
        """Begin to stop, or stop harder than before. From any thread."""
        if how <= self.asked:
            return
        first, self.asked = not self.asked, how
        if first:
            notify("STOPPING=1")
        if how < COLD and self._seconds and self._timer is None:
            self._timer = threading.Timer(self._seconds, self._time_is_over)
            self._timer.daemon = True
            self._timer.start()
        self._tell_hub(COLD if how == COLD else WARM)

    def _time_is_over(self) -> None:
        """In a thread of its own: what still runs is given back."""
        logger.warning(
            "worker_soft_shutdown_timeout (%g s) is over: what runs is given back and runs again",
            self._seconds,
        )
        self._over = True
        self._tell_hub(COLD)
        if self.solo is not None and self._main is not None:
            signal.pthread_kill(self._main, signal.SIGQUIT)  # ends the task that the hub is at

    def _tell_hub(self, how: int) -> None:
        if self._hub is not None:
            self._hub.stopping = how
        self._wakeup()

    # --- signals

    @contextlib.contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Signals stop the node, where this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            try:
                yield
            finally:
                self._end_timer()
            return
        self._main = threading.get_ident()
        before = {number: signal.signal(number, self._on_signal) for number in _NUMBERS}
        wakeup = signal.set_wakeup_fd(self._wakeup.writable, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            self._end_timer()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end_timer(self) -> None:
        if self._timer is not None:  # it may be about to send a signal
            self._timer.cancel()
            self._timer.join()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        cold = self._over
        if not cold:
            how = self._how(number)
            cold = how == COLD
            self.stop(how)  # first: another signal may come while this one is told of
            self._announce(number, how)
        if cold and self.solo is not None and self.solo.running:
            raise WorkerTerminate(EXIT_COLD)  # the hub itself is at the task

    def _how(self, number: int) -> int:
        """What a signal means: as in Celery 5.5, whose ``REMAP_SIGTERM`` holds here too."""
        if number == signal.SIGTERM and os.environ.get("REMAP_SIGTERM") == "SIGQUIT":
            number = signal.SIGQUIT
        if number != signal.SIGQUIT and not self.asked:
            return WARM
        return SOFT if self._seconds and self.asked < SOFT else COLD

    def _announce(self, number: int, how: int) -> None:
        warm = how == WARM
        signals.worker_shutting_down.send(
            sender=self._hostname,
            sig=number,
            how="Warm" if warm else "Cold",
            exitcode=EXIT_OK if warm else EXIT_COLD,
        )
        if how == COLD:
            logger.warning("Stopping at once; what runs is given back and runs again")
        elif self._seconds:
            logger.warning(
                "Stopping when the running tasks have ended, in %g s at most", self._seconds
            )
        else:
            logger.warning("Stopping when the running tasks have ended (again: at once)")
