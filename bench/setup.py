"""How a system is set up on a technology, and the measurements that all share."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from bench.core import Measure, Session
from bench.procs import BenchError, Worker, run, workdir
from bench.systems import load


class Setup(msgspec.Struct, frozen=True):
    """One system on one technology."""

    system: str
    #: Directory of the measurement -> environment of worker and clients.
    env: Callable[[Path], Mapping[str, str]]
    #: Directory -> function that says, cheaply, how many results are stored.
    counter: Callable[[Path], Callable[[], int]]
    #: How many tasks, rounds and sends take it a few seconds.
    tasks: int
    rounds: int
    sends: int
    #: Makes ready for the next measurement what is not in its directory.
    prepare: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def place(self, session: Session) -> Iterator[Path]:
        """The directory of one measurement."""
        self.prepare()
        with workdir(session.directory) as directory:
            yield directory

    def client(self, directory: Path, action: str, count: int, timeout: float = 60) -> Any:
        """Do something in a client process; what it printed."""
        command = ["-m", "bench.client", self.system, action, str(count)]
        return json.loads(run(command, self.env(directory), directory, timeout))

    def worker(self, directory: Path, pool: str, slots: int, **extra: str) -> Worker:
        """Start a worker."""
        command = load(self.system).worker(pool, slots)
        return Worker(command, {**self.env(directory), **extra}, directory)

    def scaled(self, count: int, session: Session) -> int:
        """A count for this run: a tenth of it when it has to be quick."""
        return max(count // 10, 50) if session.quick else count


def rate_between(samples: list[tuple[float, int]], total: int) -> float:
    """Tasks per second between a tenth and nine tenths of all, by interpolation."""

    def time_of(count: float) -> float:
        for (t0, n0), (t1, n1) in pairwise(samples):
            if n0 <= count <= n1 and n1 > n0:
                return t0 + (t1 - t0) * (count - n0) / (n1 - n0)
        raise BenchError("too few results to measure a rate")

    return 0.8 * total / (time_of(0.9 * total) - time_of(0.1 * total))


def watch(
    count: Callable[[], int], total: int, check: Callable[[], None], timeout: float
) -> list[tuple[float, int]]:
    """How many results there are, 100 times a second until all are."""
    samples: list[tuple[float, int]] = []
    deadline = time.monotonic() + timeout
    while not samples or samples[-1][1] < total:
        at = time.monotonic()
        if at > deadline:
            raise BenchError(f"{samples[-1][1]} of {total} results after {timeout:g} s")
        check()
        samples.append((at, count()))
        time.sleep(0.01)
    return samples


def throughput(session: Session, measure: Measure, setup: Setup, pool: str, slots: int) -> None:
    """Fill the queue, start a worker, watch the results come in."""
    total = setup.scaled(setup.tasks, session)

    def once() -> None:
        with setup.place(session) as directory:
            setup.client(directory, "fill", total)
            count = setup.counter(directory)
            with setup.worker(directory, pool, slots) as worker:
                samples = watch(count, total, worker.check, 60)
            measure.add(setup.system, rate_between(samples, total), f"{total:,} tasks")

    session.attempt(measure, setup.system, once)


def latency(session: Session, median: Measure, p99: Measure, setup: Setup) -> None:
    """One task at a time, with a worker in other processes."""
    rounds = setup.scaled(setup.rounds, session)

    def once() -> None:
        with setup.place(session) as directory:
            with setup.worker(directory, "prefork", 2) as worker:
                found = setup.client(directory, "latency", rounds)
                worker.check()
            median.add(setup.system, found["median"], f"{rounds:,} rounds")
            p99.add(setup.system, found["p99"], f"max {found['max']:.2f} ms")

    session.attempt([median, p99], setup.system, once)


def sends(session: Session, measure: Measure, setup: Setup, action: str, count: int) -> None:
    """Sends per second, one at a time or in bulk, while no worker runs."""
    count = setup.scaled(count, session)

    def once() -> None:
        with setup.place(session) as directory:
            found = setup.client(directory, action, count)
            measure.add(setup.system, found["rate"], f"{count:,} sends")

    session.attempt(measure, setup.system, once)


def first_task(session: Session, measure: Measure, setup: Setup) -> None:
    """From starting the worker's process to the first task's first line."""

    def once() -> None:
        with setup.place(session) as directory:
            stamp = directory / "stamp"
            setup.client(directory, "stamp", 1)
            with setup.worker(directory, "prefork", 2, BENCH_STAMP=str(stamp)) as worker:
                watch(lambda: int(stamp.exists()), 1, worker.check, 20)
                measure.add(setup.system, float(stamp.read_text()) - worker.started)

    session.attempt(measure, setup.system, once)


def idle(session: Session, memory: Measure, cpu: Measure, setup: Setup) -> None:
    """Memory and CPU of a worker that has run some tasks and has nothing to do."""
    seconds = 2.0 if session.quick else 5.0

    def once() -> None:
        with (
            setup.place(session) as directory,
            setup.worker(directory, "prefork", 2) as worker,
        ):
            setup.client(directory, "latency", 20)
            time.sleep(1.0)
            used, begin = worker.cpu(), time.monotonic()
            time.sleep(seconds)
            worker.check()
            share = (worker.cpu() - used) / (time.monotonic() - begin)
            cpu.add(setup.system, share * 100, f"over {seconds:g} s")
            memory.add(setup.system, worker.pss(), f"{len(worker.tree())} processes")

    session.attempt([memory, cpu], setup.system, once)


def frames(session: Session, every: Measure, each: Measure, setup: Setup) -> None:
    """Frames of the system's own below a task's function."""

    def once() -> None:
        with setup.place(session) as directory:
            with setup.worker(directory, "prefork", 1):
                found = setup.client(directory, "frames", 5)
            every.add(setup.system, found["all"])
            each.add(setup.system, found["each"])

    session.attempt([every, each], setup.system, once)
