"""One task at a time in each process.

The hub interrupts a task by a signal, which also ends a wait in the operating
system: ``SIGUSR1`` asks the executor to look at the shared page, where the
number of the job to interrupt is.
"""

from __future__ import annotations

import signal
import threading
from time import monotonic
from types import FrameType

from chervil.coroutines import close_thread_loop, interrupt_coroutine
from chervil.exceptions import SoftTimeLimitExceeded, Terminated
from chervil.pools.frames import job_number, unpack_job
from chervil.pools.seat import Seat


def run(seat: Seat) -> None:
    """Take jobs until there are no more or the seat says that it is enough."""
    Prefork(seat).run()


class Prefork:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._busy = False
        self._leaving = False
        signal.signal(signal.SIGUSR1, self._interrupt)
        signal.signal(signal.SIGTERM, self._leave)

    def run(self) -> None:
        seat, page, index = self._seat, self._seat.page, self._seat.index
        take, perform = seat.channel.taker().take, seat.runner.perform
        place = page.place(index, 0)
        try:
            while not self._leaving:
                frame = take(place)
                if not frame:
                    break
                page.enter(index, 0, job_number(frame), monotonic())
                self._busy = True
                try:
                    perform(unpack_job(frame))
                except (SoftTimeLimitExceeded, Terminated):
                    pass  # arrived after the report; the job has ended by itself
                finally:
                    self._busy = False
                page.leave(index, 0)
                if seat.enough():
                    break
        finally:
            close_thread_loop()

    def _interrupt(self, _signum: int, _frame: FrameType | None) -> None:
        if self._busy and self._seat.page.interrupted(self._seat.index, 0):
            self._raise(SoftTimeLimitExceeded())

    def _raise(self, exception: BaseException) -> None:
        # On an event loop the signal may arrive while the loop waits, where
        # raising would end the loop and leave the coroutine hanging.
        if not interrupt_coroutine(threading.get_ident(), exception):
            raise exception

    def _leave(self, signum: int, _frame: FrameType | None) -> None:
        """End the task, when it was cancelled; else finish it and take nothing more."""
        if self._busy and self._seat.page.interrupted(self._seat.index, 0, end=True):
            self._raise(Terminated(signum))
            return
        self._leaving = True
        if not self._busy:
            raise SystemExit(0)
