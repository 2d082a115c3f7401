"""A hub on the memory broker, with executors that the test plays."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any

from chervil import Chervil
from chervil.drivers.contracts import Settlement
from chervil.pools.frames import Kind, job_number, pack_report
from chervil.worker.admission import Admission
from chervil.worker.appetite import Appetite
from chervil.worker.flight import Flight
from chervil.worker.hub import Hub
from chervil.worker.outcomes import Outcomes
from chervil.worker.settling import Settling
from chervil.worker.shutdown import COLD


class Executors:
    """Takes jobs and reports when the test says so."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.endings: list[tuple[Flight, Settlement]] = []
        self.jobs: list[bytes] = []
        self.taken_back = 0
        self.terminated: list[tuple[int, int]] = []
        self._reports: list[bytes] = []
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)

    def descriptors(self) -> list[int]:
        return [self._out.fileno()]

    def full(self) -> bool:
        return False

    def busy(self) -> bool:
        return False

    def start(self) -> None: ...

    def dispatch(self, flight: Flight, frame: bytes) -> None:
        self.jobs.append(frame)

    def reports(self) -> list[bytes]:
        try:
            self._out.recv(4096)
        except BlockingIOError:
            return []
        reports, self._reports = self._reports, []
        return reports

    def put_again(self, frame: bytes) -> None:
        self.jobs.append(frame)

    def retire(self, index: int) -> None: ...

    def terminate(self, flight: Flight) -> None:
        self.terminated.append((flight.number, flight.signum))

    def kill(self) -> None: ...

    def take_back(self) -> list[bytes]:
        self.taken_back += 1
        jobs, self.jobs = self.jobs, []
        return jobs

    def tend(self, now: float) -> None: ...

    def next(self) -> float | None:
        return None

    def pids(self) -> list[int]:
        return []

    def leave(self) -> None: ...

    def close(self) -> None:
        self._out.close()
        self._in.close()

    # --- what the test does

    def end(self, count: int, runtime: float = 0.0) -> None:
        """The first ``count`` jobs end."""
        ended, self.jobs = self.jobs[:count], self.jobs[count:]
        self._reports += [
            pack_report(job_number(frame), Kind.IGNORED, runtime, b"") for frame in ended
        ]
        self._in.send(b"!")


class Bench:
    """A hub in a thread, and what is around it."""

    def __init__(self, slots: int = 2, consumer: Callable[[Any], Any] = lambda c: c) -> None:
        url = f"memory://{uuid.uuid4().hex}"
        self.app = Chervil("bench", broker=url, backend=url, set_as_current=False)

        @self.app.task(name="noop", ignore_result=True)
        def noop() -> None: ...

        @self.app.task(name="early", ignore_result=True, acks_late=False)
        def early() -> None: ...

        self.noop, self.early = noop, early
        self.executors = Executors(slots)
        self.flights: dict[int, Flight] = {}
        outcomes = Outcomes(self.app)
        self.appetite = Appetite(slots)
        self._wakeup_out, self._wakeup_in = socket.socketpair()
        self._wakeup_out.setblocking(False)
        self.consumer = self.app.broker.consumer(self.app.router.select(None, None), "n", 60)
        self.hub = Hub(
            self.app.broker,
            consumer(self.consumer),
            self.app.backend,
            self.executors,
            self.flights,
            Admission(self.app, outcomes),
            Settling(self.app, outcomes),
            self.appetite,
            shared=True,
            wakeup=self._wakeup_out.fileno(),
        )
        self._thread = threading.Thread(target=self.hub.run)

    def start(self) -> None:
        self._thread.start()

    def stop(self, how: int = COLD) -> None:
        self.hub.stopping = how
        self._wakeup_in.send(b"!")

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def close(self) -> None:
        if self._thread.is_alive():
            self.stop()
            self.join()
        self.consumer.close()
        self.executors.close()
        self._wakeup_in.close()
        self._wakeup_out.close()
        self.app.close()

    def depth(self) -> tuple[int, int]:
        depth = self.app.broker.depths(["celery"])["celery"]
        return depth.ready, depth.claimed
