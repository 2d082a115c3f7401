"""The time of day and the time that only runs forward, both replaceable in tests.

Call them through the module, ``clock.now()`` and ``clock.monotonic()``: these are
the functions of the clock in use themselves, so a call costs nothing more than
the function it replaces. ``from chervil.clock import now`` would keep the clock
that was in use at the time of the import.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """The system's clocks."""

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment; never steps back."""
        return time.monotonic()


class ManualClock(Clock):
    """A clock that stands still until it is moved; for tests.

    :param now: Unix time in seconds to start at; the present when None.
    """

    def __init__(self, now: float | None = None) -> None:
        self._lock = threading.Lock()
        self._now = time.time() if now is None else float(now)
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass, for both readings.

        :raises ValueError: ``seconds`` is negative; use :meth:`jump`.
        """
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds!r}; use jump()")
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def jump(self, now: float) -> None:
        """Set the time of day alone, as an administrator or NTP would."""
        with self._lock:
            self._now = float(now)


SYSTEM = Clock()

#: Unix time in seconds.
now: Callable[[], float] = time.time
#: Seconds since some moment; never steps back.
monotonic: Callable[[], float] = time.monotonic


def install(clock: Clock) -> None:
    """Take the time from this clock from now on, in the whole process."""
    global now, monotonic
    if clock is SYSTEM:
        now, monotonic = time.time, time.monotonic
    else:
        now, monotonic = clock.now, clock.monotonic


@contextmanager
def using(clock: Clock) -> Iterator[Clock]:
    """Take the time from this clock inside a ``with`` block."""
    global now, monotonic
    before = now, monotonic
    install(clock)
    try:
        yield clock
    finally:
        now, monotonic = before
