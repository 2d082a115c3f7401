"""SQLite: one file, no server. Peers: Huey and Celery over SQLAlchemy.

Durability decides much here. Chervil's default, ``synchronous=NORMAL`` in WAL
mode, survives every crash of a process and may lose the last commits in a power
cut. Huey's default is FULL, an fsync for each commit; "Huey tuned" runs with
NORMAL, and so does Celery (by default it has FULL and no WAL).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import setup as on
from bench.core import BARE, CHERVIL, Goal, Session, case
from bench.procs import run, workdir
from bench.setup import Setup


def _chervil_env(directory: Path) -> Mapping[str, str]:
    url = f"sqlite:///{directory / 'chervil.db'}"
    return {"BENCH_BROKER": url, "BENCH_RESULTS": url}


def _chervil_full_env(directory: Path) -> Mapping[str, str]:
    url = f"sqlite:///{directory / 'chervil.db'}?synchronous=FULL"
    return {"BENCH_BROKER": url, "BENCH_RESULTS": url}


def _huey_env(directory: Path) -> Mapping[str, str]:
    return {"BENCH_BROKER": str(directory / "huey.db")}


def _huey_tuned_env(directory: Path) -> Mapping[str, str]:
    return {**_huey_env(directory), "BENCH_SYNCHRONOUS": "normal"}


def _celery_env(directory: Path) -> Mapping[str, str]:
    # Two files: broker and results then do not wait for one another's locks.
    return {
        "BENCH_BROKER": f"sqla+sqlite:///{directory / 'broker.db'}",
        "BENCH_RESULTS": f"db+sqlite:///{directory / 'results.db'}",
    }


def _counter(file: str, query: str) -> Callable[[Path], Callable[[], int]]:
    """Count the results in a file, by a query that need not read them all."""

    def open_(directory: Path) -> Callable[[], int]:
        path = directory / file
        connection: sqlite3.Connection | None = None

        def count() -> int:
            nonlocal connection
            try:
                if connection is None:
                    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
                return int(connection.execute(query).fetchone()[0] or 0)
            except sqlite3.OperationalError as exc:  # not made yet
                if "no such table" in str(exc) or "unable to open" in str(exc):
                    return 0
                raise

        return count

    return open_


CHERVIL_SETUP = Setup(
    CHERVIL,
    _chervil_env,
    _counter("chervil.db", "select max(id) from results"),
    tasks=100_000,
    rounds=2000,
    sends=30_000,
)
CHERVIL_FULL = Setup(
    CHERVIL,
    _chervil_full_env,
    CHERVIL_SETUP.counter,
    tasks=50_000,
    rounds=1000,
    sends=5_000,
)
HUEY_SETUP = Setup(
    "Huey",
    _huey_env,
    _counter("huey.db", "select max(rowid) from kv"),
    tasks=6_000,
    rounds=1000,
    sends=5_000,
)
HUEY_TUNED = Setup(
    "Huey tuned",
    _huey_tuned_env,
    HUEY_SETUP.counter,
    tasks=20_000,
    rounds=2000,
    sends=30_000,
)
CELERY_SETUP = Setup(
    "Celery",
    _celery_env,
    _counter("results.db", "select max(id) from celery_taskmeta"),
    tasks=2_000,
    rounds=300,
    sends=1_500,
)
SETUPS = [CHERVIL_SETUP, HUEY_SETUP, CELERY_SETUP]
SPEED_SETUPS = [CHERVIL_SETUP, HUEY_SETUP, HUEY_TUNED, CELERY_SETUP]


def _bare(session: Session) -> None:
    """One round of the bare loop: a process of its own, like everything else."""
    measure = session.measures["sqlite.throughput"]
    total = CHERVIL_SETUP.scaled(CHERVIL_SETUP.tasks, session)

    def once() -> None:
        with workdir(session.directory) as directory:
            env = CHERVIL_SETUP.env(directory)
            output = run(["-m", "bench.bareloop", str(total)], env, directory, 90)
            measure.add(BARE, float(output), "one process, batches of 100")

    session.attempt(measure, BARE, once)


@case("sqlite.throughput")
def throughput(session: Session) -> None:
    """No-op tasks a second, results stored: bare loop, prefork 2, the peers."""
    measure = session.measure(
        "sqlite.throughput",
        "SQLite: no-op tasks, prefork 2",
        "tasks/s",
        Goal("at least", 0.30, BARE),
        Goal("at least", 8, "Huey"),
        Goal("at least", 50, "Celery"),
        Goal("at least", 30_000),
    )
    for _ in range(session.repeat):
        _bare(session)
        for setup in SPEED_SETUPS:
            on.throughput(session, measure, setup, "prefork", 2)


@case("sqlite.pools")
def pools(session: Session) -> None:
    """The same for Chervil's other pools."""
    for pool, slots, goals in (
        ("solo", 1, [Goal("at least", 0.40, BARE)]),
        ("threads", 2, []),
        ("asyncio", 100, []),
    ):
        measure = session.measure(
            f"sqlite.{pool}", f"SQLite: no-op tasks, {pool} {slots}", "tasks/s", *goals
        )
        throughput = session.measures.get("sqlite.throughput")
        if throughput and BARE in throughput.values:
            measure.values[BARE] = throughput.values[BARE]
        for _ in range(session.repeat):
            on.throughput(session, measure, CHERVIL_SETUP, pool, slots)
            if pool == "threads":
                on.throughput(session, measure, HUEY_TUNED, pool, slots)


@case("sqlite.full")
def full(session: Session) -> None:
    """With synchronous=FULL, an fsync for each commit: Chervil and Huey as it comes."""
    tasks = session.measure("sqlite.full.tasks", "synchronous=FULL: no-op tasks", "tasks/s")
    single = session.measure("sqlite.full.delay", "synchronous=FULL: delay()", "sends/s")
    for _ in range(session.repeat):
        for setup in (CHERVIL_FULL, HUEY_SETUP):
            on.throughput(session, tasks, setup, "prefork", 2)
            on.sends(session, single, setup, "enqueue", setup.sends)


@case("sqlite.latency")
def latency(session: Session) -> None:
    """From delay() to the end of get(), one task at a time, worker in other processes."""
    median = session.measure(
        "sqlite.latency.median", "SQLite: round trip, median", "ms", Goal("at most", 0.6)
    )
    p99 = session.measure("sqlite.latency.p99", "SQLite: round trip, p99", "ms", Goal("at most", 3))
    for _ in range(session.repeat):
        for setup in SPEED_SETUPS:
            on.latency(session, median, p99, setup)


@case("sqlite.sends")
def sends(session: Session) -> None:
    """Sends a second, one at a time and in bulk."""
    single = session.measure(
        "sqlite.delay", "SQLite: delay(), one at a time", "sends/s", Goal("at least", 15_000)
    )
    bulk = session.measure(
        "sqlite.bulk", "SQLite: sends in bulk", "sends/s", Goal("at least", 100_000)
    )
    for _ in range(session.repeat):
        for setup in SPEED_SETUPS:
            on.sends(session, single, setup, "enqueue", setup.sends)
        on.sends(session, bulk, CHERVIL_SETUP, "bulk", 100_000)


@case("sqlite.asyncio")
def naps(session: Session) -> None:
    """2,000 tasks that sleep 10 ms in an asyncio pool of 500 slots."""
    ideal = 2000 * 0.010 / 500 * 1e3
    span = session.measure(
        "sqlite.naps",
        f"2,000 naps of 10 ms, 500 slots (ideal {ideal:g})",
        "ms",
        Goal("at most", 2 * ideal),
    )
    whole = session.measure("sqlite.naps.whole", "... with sending and reading results", "ms")

    def once() -> None:
        with workdir(session.directory) as directory:
            with CHERVIL_SETUP.worker(directory, "asyncio", 500):
                found = CHERVIL_SETUP.client(directory, "naps", 2000)
            span.add(CHERVIL, found["span"] * 1e3, "first begin to last end")
            whole.add(CHERVIL, found["whole"] * 1e3)

    for _ in range(session.repeat):
        session.attempt([span, whole], CHERVIL, once)


@case("sqlite.start")
def start(session: Session) -> None:
    """From starting the worker to its first task."""
    measure = session.measure(
        "sqlite.start", "From `worker` to the first task", "s", Goal("at most", 0.3)
    )
    for _ in range(max(session.repeat, 2)):
        for setup in SETUPS:
            on.first_task(session, measure, setup)


@case("sqlite.idle")
def idle(session: Session) -> None:
    """Memory and CPU of an idle worker with two executors."""
    memory = session.measure(
        "sqlite.memory", "Idle worker, PSS of all its processes", "MB", Goal("at most", 45)
    )
    cpu = session.measure("sqlite.cpu", "Idle worker, CPU", "% of a core", Goal("at most", 1))
    for setup in SETUPS:
        on.idle(session, memory, cpu, setup)


@case("sqlite.frames")
def frames(session: Session) -> None:
    """Calls of one delay(), frames around a task's function."""
    python = session.measure(
        "sqlite.calls", "Python calls of one delay()", "calls", Goal("at most", 150)
    )
    c = session.measure("sqlite.calls.c", "C calls of one delay()", "calls")
    depth = session.measure(
        "sqlite.depth", "Own frames, deepest in delay()", "frames", Goal("at most", 6)
    )
    each = session.measure(
        "sqlite.frames", "Own frames entered for a task", "frames", Goal("at most", 6)
    )
    every = session.measure("sqlite.frames.all", "Own frames below a task, all", "frames")
    for setup in SETUPS:

        def once(setup: Setup = setup) -> None:
            with workdir(session.directory) as directory:
                found = setup.client(directory, "calls", 100)
            python.add(setup.system, found["python"])
            c.add(setup.system, found["c"])
            depth.add(setup.system, found["frames"])

        session.attempt([python, c, depth], setup.system, once)
        on.frames(session, every, each, setup)
