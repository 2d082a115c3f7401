"""Redis: a server of the benchmark's own, without persistence. Peers: Huey, Dramatiq, Celery."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bench import setup as on
from bench.core import BARE, CHERVIL, Goal, Session, case
from bench.procs import Worker, run
from bench.redis_server import server
from bench.setup import Setup

#: The fastest peer, where the goal is to be faster than the best.
BEST = "Dramatiq"


def _env(_directory: Path) -> Mapping[str, str]:
    return {
        "BENCH_BROKER": server().url,
        "BENCH_RESULTS": server().url,
        # By default it fetches twice as many messages as it has threads.
        "dramatiq_queue_prefetch": "1000",
    }


def _ignoring_env(directory: Path) -> Mapping[str, str]:
    return {**_env(directory), "BENCH_IGNORE": "1"}


def _keys(_directory: Path) -> Callable[[], int]:
    """Results are keys of their own; what else there is, is a handful."""
    return lambda: server().number("DBSIZE")


def _fields(_directory: Path) -> Callable[[], int]:
    return lambda: server().number("HLEN", "huey.results.bench")


def _gone(total: int, *command: str) -> Callable[[Path], Callable[[], int]]:
    """Without results: what is no longer in the queue."""
    return lambda _directory: lambda: total - server().number(*command)


def _setup(system: str, counter: Callable[[Path], Callable[[], int]], **scale: int) -> Setup:
    return Setup(system, _env, counter, prepare=lambda: server().reset(), **scale)


CHERVIL_SETUP = _setup(CHERVIL, _keys, tasks=150_000, rounds=4000, sends=50_000)
HUEY = _setup("Huey", _fields, tasks=10_000, rounds=2000, sends=20_000)
DRAMATIQ = _setup("Dramatiq", _keys, tasks=25_000, rounds=1500, sends=10_000)
CELERY = _setup("Celery", _keys, tasks=4_000, rounds=500, sends=3_000)
SETUPS = [CHERVIL_SETUP, HUEY, DRAMATIQ, CELERY]

#: The list that a system's waiting messages are in.
QUEUES = {
    CHERVIL: ("LLEN", "celery"),
    "Huey": ("LLEN", "huey.redis.bench"),
    "Dramatiq": ("HLEN", "dramatiq:default.msgs"),
    "Celery": ("LLEN", "celery"),
}


def _bare(session: Session, name: str) -> None:
    measure = session.measures[name]
    total = CHERVIL_SETUP.scaled(CHERVIL_SETUP.tasks, session)

    def once() -> None:
        with CHERVIL_SETUP.place(session) as directory:
            output = run(["-m", "bench.bareloop", str(total)], _env(directory), directory, 90)
            measure.add(BARE, float(output), "one process, batches of 100")

    session.attempt(measure, BARE, once)


@case("redis.throughput")
def throughput(session: Session) -> None:
    """No-op tasks a second, results stored: bare loop, prefork 2, the peers."""
    measure = session.measure(
        "redis.throughput",
        "Redis: no-op tasks, prefork 2",
        "tasks/s",
        Goal("at least", 0.5, BARE),
        Goal("at least", 30, "Celery"),
        Goal("at least", 5, BEST),
    )
    for _ in range(session.repeat):
        _bare(session, measure.name)
        for setup in SETUPS:
            on.throughput(session, measure, setup, "prefork", 2)


@case("redis.ignored")
def ignored(session: Session) -> None:
    """No-op tasks a second, results ignored."""
    measure = session.measure(
        "redis.ignored",
        "Redis: no-op tasks, results ignored",
        "tasks/s",
        Goal("at least", 3, BEST),
    )
    for _ in range(session.repeat):
        for setup in SETUPS:
            counter = _gone(setup.scaled(setup.tasks, session), *QUEUES[setup.system])
            without = msgspec.structs.replace(setup, env=_ignoring_env, counter=counter)
            on.throughput(session, measure, without, "prefork", 2)


@case("redis.pools")
def pools(session: Session) -> None:
    """With results, for Chervil's other pools."""
    for pool, slots, goals in (
        ("solo", 1, [Goal("at least", 0.60, BARE)]),
        ("threads", 2, []),
        ("asyncio", 100, []),
    ):
        measure = session.measure(
            f"redis.{pool}", f"Redis: no-op tasks, {pool} {slots}", "tasks/s", *goals
        )
        for _ in range(session.repeat):
            if pool == "solo":
                _bare(session, measure.name)
            on.throughput(session, measure, CHERVIL_SETUP, pool, slots)
            if pool == "threads":
                on.throughput(session, measure, HUEY, pool, slots)
                on.throughput(session, measure, DRAMATIQ, pool, slots)


@case("redis.latency")
def latency(session: Session) -> None:
    """From delay() to the end of get(), one task at a time, worker in other processes."""
    median = session.measure(
        "redis.latency.median", "Redis: round trip, median", "ms", Goal("at most", 0.32)
    )
    p99 = session.measure("redis.latency.p99", "Redis: round trip, p99", "ms", Goal("at most", 1))
    for _ in range(session.repeat):
        for setup in SETUPS:
            on.latency(session, median, p99, setup)


@case("redis.sends")
def sends(session: Session) -> None:
    """Sends a second, one at a time and in bulk."""
    single = session.measure(
        "redis.delay", "Redis: delay(), one at a time", "sends/s", Goal("at least", 0.8, BARE)
    )
    bulk = session.measure(
        "redis.bulk", "Redis: sends in bulk", "sends/s", Goal("at least", 100_000)
    )

    def bare() -> None:
        count = CHERVIL_SETUP.scaled(CHERVIL_SETUP.sends, session)
        with CHERVIL_SETUP.place(session) as directory:
            output = run(["-m", "bench.barepush", str(count)], _env(directory), directory, 60)
        single.add(BARE, float(output), "LPUSH by hiredis on a socket")

    for _ in range(session.repeat):
        session.attempt(single, BARE, bare)
        for setup in SETUPS:
            on.sends(session, single, setup, "enqueue", setup.sends)
        on.sends(session, bulk, CHERVIL_SETUP, "bulk", 200_000)


@case("redis.commands")
def commands(session: Session) -> None:
    """Commands as the server counts them: a task, a round trip, and an idle second."""
    a_task = session.measure(
        "redis.commands.task",
        "Redis: commands a task, queue full, worker's",
        "commands",
        Goal("at most", 5),
    )
    a_trip = session.measure(
        "redis.commands.trip", "... a round trip, client's and worker's", "commands"
    )
    idle = session.measure(
        "redis.commands.idle", "... of an idle worker", "commands/s idle", Goal("at most", 5)
    )
    for setup in SETUPS:

        def full(setup: Setup = setup) -> None:
            total = setup.scaled(setup.tasks, session)
            with setup.place(session) as directory:
                setup.client(directory, "fill", total)
                server().call("CONFIG", "RESETSTAT")
                count = setup.counter(directory)
                with setup.worker(directory, "prefork", 2) as worker:
                    on.watch(count, total, worker.check, 60)
                    a_task.add(setup.system, server().commands().total() / total)

        def one_by_one(setup: Setup = setup) -> None:
            rounds = setup.scaled(setup.rounds, session)
            with (
                setup.place(session) as directory,
                setup.worker(directory, "prefork", 2) as worker,
            ):
                setup.client(directory, "latency", 20)
                time.sleep(1.0)
                before, begin = server().commands().total(), time.monotonic()
                time.sleep(2.0 if session.quick else 5.0)
                seconds = time.monotonic() - begin
                idle.add(setup.system, (server().commands().total() - before) / seconds)
                server().call("CONFIG", "RESETSTAT")
                setup.client(directory, "latency", rounds)
                done = rounds + min(rounds // 10 + 1, 100)
                a_trip.add(setup.system, server().commands().total() / done)
                worker.check()

        session.attempt(a_task, setup.system, full)
        session.attempt([a_trip, idle], setup.system, one_by_one)


@case("redis.memory")
def memory(session: Session) -> None:
    """Memory of the worker's processes while it works off short and long queues."""
    short = session.measure(
        "redis.memory.short", "Redis: PSS while working off a short queue", "MB"
    )
    long = session.measure("redis.memory.long", "... and one ten times as long", "MB")

    def once() -> None:
        tasks = CHERVIL_SETUP.scaled(CHERVIL_SETUP.tasks, session)
        for measure, total in ((short, tasks), (long, tasks * 10)):
            measure.add(CHERVIL, _highest(session, total), f"{total:,} tasks, 95th percentile")

    session.attempt([short, long], CHERVIL, once)


def _highest(session: Session, total: int) -> float:
    found: list[float] = []

    def look(worker: Worker) -> None:
        worker.check()
        if not found or time.monotonic() - looked[0] > 0.2:
            looked[0] = time.monotonic()
            found.append(worker.pss())

    looked = [0.0]
    with CHERVIL_SETUP.place(session) as directory:
        CHERVIL_SETUP.client(directory, "fill", total)
        count = CHERVIL_SETUP.counter(directory)
        with CHERVIL_SETUP.worker(directory, "prefork", 2) as worker:
            on.watch(count, total, lambda: look(worker), 120)
    return statistics.quantiles(found, n=20)[-1]
