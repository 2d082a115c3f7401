"""Periodic tasks: ten thousand of them."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.core import CHERVIL, Goal, Session, case
from bench.procs import BenchError, environment
from chervil.drivers.registry import open_broker

_START = 12.0
_IDLE = 10.0
_SINGLE = 10


@contextmanager
def _beat(session: Session, burst: float) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A beat that is ready, and the URL of its broker."""
    path = session.directory / f"beat-{os.getpid()}-{time.monotonic_ns()}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{path}"
    extra = {"CHERVIL_BROKER_URL": url, "CHERVIL_RESULT_BACKEND": url}
    if burst:
        extra["BENCH_BURST_AT"] = repr(burst)
    log = path.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "chervil", "-A", "bench.apps.beat_app", "beat"],
            env=environment(extra),
            stderr=output,
        )
    try:
        while "ready" not in log.read_text():
            if process.poll() is not None:
                raise BenchError(f"the beat has ended: {log.read_text()[-500:]}")
            time.sleep(0.05)
        yield process, url
    finally:
        process.terminate()
        process.wait(30)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@case("beat.idle")
def idle(session: Session) -> None:
    """What a beat with 10,000 entries takes while nothing is due."""
    measure = session.measure("beat.idle", "beat, 10,000 entries, idle", "%", Goal("at most", 1))

    def once() -> None:
        with _beat(session, 0) as (process, _):
            time.sleep(1)
            before = _cpu(process.pid)
            time.sleep(_IDLE)
            measure.add(CHERVIL, (_cpu(process.pid) - before) / _IDLE * 100)

    session.attempt(measure, CHERVIL, once)


@case("beat.due")
def due(session: Session) -> None:
    """How late 1,000 that are due at once, and single ones, are in the broker."""
    burst = session.measure(
        "beat.burst", "1,000 due at once, until sent", "ms", Goal("at most", 500)
    )
    late = session.measure("beat.late", "one due, until sent (worst)", "ms", Goal("at most", 50))

    def once() -> None:
        at = math.ceil(time.time() + _START)
        with _beat(session, at) as (_, url):
            broker = open_broker(url)
            waits: list[float] = []
            for number in range(_SINGLE + 1):
                due = float(at) if not number else at + 4.0 + number
                goal = 1000 + number
                time.sleep(max(0.0, due - time.time() - 0.05))
                while broker.depths(["celery"])["celery"].ready < goal:
                    if time.time() > due + 10:
                        raise BenchError("nothing was sent in time")
                    time.sleep(0.002)
                waits.append((time.time() - due) * 1e3)
            broker.close()
        burst.add(CHERVIL, waits[0])
        late.add(CHERVIL, max(waits[1:]), f"median {statistics.median(waits[1:]):.1f}")

    session.attempt([burst, late], CHERVIL, once)
