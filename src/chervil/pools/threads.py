"""Several tasks at a time in each process, one a thread.

Each thread reads the run queue itself, so there is no dispatcher between the
queue and the task. The main thread listens to the hub.
"""

from __future__ import annotations

import logging
import socket
import threading
from time import monotonic

from chervil.coroutines import close_thread_loop
from chervil.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded
from chervil.pools.frames import Kind, discard, job_number, pack_report, unpack_job
from chervil.pools.interrupt import raise_in_thread, take_back_raise
from chervil.pools.seat import Seat

_INTERRUPTS = (SoftTimeLimitExceeded, TimeLimitExceeded, Terminated)
#: What the hub orders, and what is raised in the thread then.
_ORDERS: dict[bytes, type[BaseException]] = {
    b"interrupt": SoftTimeLimitExceeded,
    b"abandon": TimeLimitExceeded,
    b"terminate": Terminated,
}
logger = logging.getLogger("chervil.worker")


def run(seat: Seat) -> None:
    """Take jobs in ``seat.slots`` threads until there are no more."""
    Threads(seat).run()


class Place:
    """One thread's slot, and which job it is at."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.lock = threading.Lock()
        self.number = 0
        self.thread = 0
        self.asked = False


class Threads:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._stop = False
        self._left = seat.slots
        self._places = [Place(slot) for slot in range(seat.slots)]
        self._counting = threading.Lock()

    def run(self) -> None:
        for place in self._places:
            threading.Thread(
                target=self._work, args=(place,), name=f"chervil-{place.slot}", daemon=True
            ).start()
        while self._left:
            try:
                order = self._seat.control.recv(256)
            except OSError:
                break
            if not order:
                break
            self._obey(order.split())

    def _obey(self, order: list[bytes]) -> None:
        if order[0] == b"stop":
            self._stop = True
            self._end_if_idle()
        elif order[0] in _ORDERS:
            place, number = self._places[int(order[1])], int(order[2])
            exception = _ORDERS[order[0]]
            with place.lock:
                if place.number == number:
                    place.asked = True
                    raise_in_thread(place.thread, exception)

    def _work(self, place: Place) -> None:
        place.thread = threading.get_ident()
        seat = self._seat
        take, where = seat.channel.taker().take, seat.page.place(seat.index, place.slot)
        try:
            while not self._stop:
                frame = take(where)
                if not frame:
                    break
                if self._stop:
                    number = job_number(frame)
                    discard(frame)
                    seat.page.leave(seat.index, place.slot)
                    self._seat.channel.report(pack_report(number, Kind.NOT_BEGUN, 0.0, b""))
                    break
                self._one(place, frame)
                with self._counting:
                    if self._seat.enough():
                        self._stop = True
                if self._stop:
                    self._end_if_idle()
        except OSError as exc:
            logger.debug("the run queue has gone: %s", exc)
        finally:
            close_thread_loop()
            self._leave()

    def _one(self, place: Place, frame: bytes) -> None:
        seat = self._seat
        number = job_number(frame)
        seat.page.enter(seat.index, place.slot, number, monotonic(), place.thread)
        place.number = number
        try:
            seat.runner.perform(unpack_job(frame))
        except _INTERRUPTS:
            pass  # arrived after the report; the job has ended by itself
        while True:
            try:
                with place.lock:
                    place.number = 0
                    if place.asked:
                        place.asked = False
                        take_back_raise(place.thread)
                break
            except _INTERRUPTS:
                continue
        seat.page.leave(seat.index, place.slot)

    def _end_if_idle(self) -> None:
        """Threads that wait for a job cannot be woken, but need not be waited for."""
        if not any(place.number for place in self._places):
            self._left = 0
            self._seat.control.shutdown(socket.SHUT_RD)

    def _leave(self) -> None:
        """The last thread to end ends the process: the main thread waits for the hub."""
        with self._counting:
            self._left -= 1
            last = self._left == 0
        if last:
            self._seat.control.shutdown(socket.SHUT_RD)
