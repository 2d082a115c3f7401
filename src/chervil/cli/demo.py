"""``chervil demo``: a worker, real tasks, and how fast they went."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
import msgspec

from chervil.cli.output import plural, progress
from chervil.cli.session import ChervilCommand, Session, pass_session

_HELP = """See Chervil work, with nothing to set up.

\b
  chervil demo
  chervil demo --files 100

Starts a worker on an SQLite file in a temporary directory, has it count the words of all the
Python files of the standard library, one task a file, and adds up the results. Takes a few
seconds and leaves nothing behind.
"""
#: Tasks that do nothing, for the second measurement.
BURST = 10_000
#: Seconds that any single result may take.
DEADLINE = 60.0
#: Width of the longest bar, in characters.
_BAR = 32
_NEXT = """Your turn, in hello.py:

    from chervil import Chervil

    app = Chervil("hello", broker="sqlite:///hello.db", backend="sqlite:///hello.db")

    @app.task
    def add(x, y):
        return x + y

    chervil -A hello worker                                # in one terminal
    chervil -A hello call hello.add -a '[2, 3]' --wait     # in another"""
#: How many results are asked for at once.
CHUNK = 25


class Measured(msgspec.Struct):
    """What one round of tasks took, in seconds."""

    tasks: int
    sending: float
    first: float
    total: float

    @property
    def rate(self) -> float:
        """Tasks per second, from the first sent to the last result read."""
        return self.tasks / self.total


@click.command("demo", cls=ChervilCommand, help=_HELP)
@click.option("--files", type=click.IntRange(min=1), metavar="N", help="At most this many files.")
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="Worker processes. Default: one a CPU.",
)
@click.option("--keep", is_flag=True, help="Keep the directory with database and log.")
@pass_session
def command(session: Session, /, files: int | None, concurrency: int | None, keep: bool) -> None:
    paths = standard_library(files)
    processes = concurrency or _cpus()
    folder = tempfile.mkdtemp(prefix="chervil-demo-")
    signals = _Signals()
    try:
        _demo(session, paths, folder, processes, signals)
    finally:
        if keep:
            click.echo(f"\nKept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


class _Signals:
    """Ends the demo on Ctrl-C and the like, and with it its worker.

    Not while the worker is being started: nobody would know of it and end it.
    """

    def __init__(self) -> None:
        self._holding = False
        self._number = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._arrived)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self._number = number
        self.end_if_asked()

    def end_if_asked(self) -> None:
        """End when a signal has arrived."""
        if self._number and not self._holding:
            sys.exit(128 + self._number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal that arrives inside counts after it."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False


def standard_library(limit: int | None = None) -> list[str]:
    """The Python files of the standard library, in order of their names."""
    root = sysconfig.get_paths()["stdlib"]
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - {"site-packages", "__pycache__"})
        found += [os.path.join(folder, name) for name in sorted(names) if name.endswith(".py")]
    return found[:limit]


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _demo(
    session: Session, paths: Sequence[str], folder: str, processes: int, signals: _Signals
) -> None:
    url = f"sqlite:///{folder}/demo.db"
    os.environ["CHERVIL_BROKER_URL"] = os.environ["CHERVIL_RESULT_BACKEND"] = url
    from chervil.cli import demo_tasks

    app = demo_tasks.app
    session.configure(app)
    click.echo(
        f"A worker with {plural(processes, 'process', 'processes')} and one SQLite file: "
        "no server, nothing to set up.\n"
    )
    try:
        with _worker(folder, processes, signals) as worker:
            words, measured = _index(session, worker, demo_tasks.count_words, paths)
            _tell_index(words, measured)
            _tell_burst(_burst(session, worker, demo_tasks.nothing))
        click.echo(_NEXT)
    finally:
        app.close()


@contextmanager
def _worker(folder: str, processes: int, signals: _Signals) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process of the demo's app; its log is ``worker.log`` in the folder."""
    command = [sys.executable, "-m", "chervil", "-A", "chervil.cli.demo_tasks", "worker"]
    command += ["-c", str(processes), "-l", "warning", "-n", "demo"]
    with open(os.path.join(folder, "worker.log"), "wb") as log, signals.held():
        worker = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )
    try:
        signals.end_if_asked()
        yield worker
    finally:
        _stop(worker)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if worker.poll() is None:
            worker.send_signal(number)
            try:
                worker.wait(5)
            except subprocess.TimeoutExpired:
                continue


def _run(
    session: Session,
    worker: subprocess.Popen[bytes],
    text: str,
    task: Any,
    calls: Sequence[tuple[Any, ...]],
) -> tuple[list[Any], Measured]:
    """Send all calls in one batch and read all results.

    :param calls: the arguments of each.
    """
    began = time.perf_counter()
    results = task.apply_many(calls)
    sending = time.perf_counter() - began
    values = [_get(worker, results[0])]
    first = time.perf_counter() - began
    with progress(session, text, len(results)) as bar:
        bar.advance()
        for start in range(1, len(results), CHUNK):
            part = results[start : start + CHUNK]
            values += [_get(worker, result) for result in part]
            bar.advance(len(part))
    return values, Measured(len(calls), sending, first, time.perf_counter() - began)


def _get(worker: subprocess.Popen[bytes], result: Any) -> Any:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return result.get(timeout=1.0)
        except TimeoutError:
            if worker.poll() is not None:
                raise click.ClickException(
                    f"the demo's worker ended with {worker.returncode}; run again with --keep "
                    "and look into worker.log"
                ) from None
            if time.monotonic() > deadline:
                raise click.ClickException(f"no result within {DEADLINE:g} s") from None


def _index(
    session: Session, worker: subprocess.Popen[bytes], task: Any, paths: Sequence[str]
) -> tuple[Counter[str], Measured]:
    calls = [(path,) for path in paths]
    counts, measured = _run(session, worker, "Counting words", task, calls)
    words: Counter[str] = Counter()
    for found in counts:
        words.update(found)
    return words, measured


def _burst(session: Session, worker: subprocess.Popen[bytes], task: Any) -> Measured:
    _, measured = _run(session, worker, "Doing nothing", task, [()] * BURST)
    return measured


def _tell_index(words: Counter[str], measured: Measured) -> None:
    click.echo(
        f"{_bold('Real work')}: count the words of Python's standard library, one task a file"
    )
    click.echo(f"  {_facts(measured, 'file')}")
    click.echo(f"  {sum(words.values()):,} words, {len(words):,} different; the most frequent:\n")
    top = words.most_common(6)
    width = max((len(word) for word, _ in top), default=0)
    for word, count in top:
        bar = "#" * max(1, round(_BAR * count / top[0][1]))
        click.echo(f"    {word:<{width}}  {count:>8,}  {click.style(bar, fg='green')}")
    click.echo()


def _tell_burst(measured: Measured) -> None:
    click.echo(f"{_bold('Pure speed')}: tasks that do nothing, each with its result read back")
    click.echo(f"  {_facts(measured, 'task')}\n")


def _facts(measured: Measured, unit: str) -> str:
    return (
        f"{plural(measured.tasks, unit)} in {measured.total:.2f} s: "
        f"{_bold(f'{measured.rate:,.0f} tasks/s')}  "
        f"(sent in {measured.sending:.2f} s, first result after {measured.first:.2f} s)"
    )


def _bold(text: str) -> str:
    return click.style(text, bold=True)
