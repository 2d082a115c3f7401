"""Worker processes of the measured systems, and what the kernel says about them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORES = 2


class BenchError(Exception):
    """A measurement could not be made."""


def pin() -> None:
    """Keep this process and all it starts on two cores."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:CORES])


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of every measured process."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **extra}


def run(command: Sequence[str], env: Mapping[str, str], cwd: Path, timeout: float) -> str:
    """Run a command to its end and return its output."""
    done = subprocess.run(
        [sys.executable, *command],
        env=environment(env),
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BenchError(lines[0])
    return done.stdout


@contextlib.contextmanager
def workdir(parent: Path) -> Iterator[Path]:
    """An empty directory for the databases of one measurement."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as name:
        yield Path(name)


class Worker:
    """A worker, in a session of its own."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self.log = cwd / "worker.log"
        with self.log.open("ab") as output:
            self.started = time.monotonic()
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=environment(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """:raises BenchError: it has ended."""
        if self.process.poll() is not None:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"the worker ended with {self.process.returncode}: {''.join(last)}")

    def tree(self) -> list[int]:
        """Its process and all descendants."""
        parents: dict[int, int] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int(_stat(int(entry.name))[1])
        found = [self.process.pid]
        for pid in found:
            found.extend(child for child, parent in parents.items() if parent == pid)
        return found

    def pss(self) -> float:
        """Proportional set size of the whole tree in MB (10**6 bytes)."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as lines:
                for line in lines:
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total / 1e6

    def cpu(self) -> float:
        """Seconds of CPU that the living processes of the tree have used."""
        ticks = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it and everything it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on; its first fields hold the command's name."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()
