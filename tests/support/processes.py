"""Real worker processes for tests, and finding what they leave behind.

Every process that a test starts carries a mark in its environment, which all of
its descendants inherit, also those that leave its process group. Where there is
no ``/proc``, only the process group can be checked.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.waiting import wait_until

_PROC = Path("/proc")
_MARK = "CHERVIL_TEST_TREE"


def _command(pid: int) -> str:
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return "?"
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def _is_zombie(pid: int) -> bool:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def own_children() -> set[int]:
    """The child processes of this process, zombies included; helpers of the
    standard library that live as long as the process are left out."""
    found: set[int] = set()
    for path in _PROC.glob("self/task/*/children"):
        try:
            found.update(map(int, path.read_text().split()))
        except OSError:  # the thread has ended
            continue
    return {pid for pid in found if "multiprocessing.resource_tracker" not in _command(pid)}


def end_group(pgid: int, sig: int) -> None:
    """Signal a process group that may have ended."""
    try:
        os.killpg(pgid, sig)
    except (ProcessLookupError, PermissionError):
        pass


class Tree:
    """The processes that one test starts, with all their descendants."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, output into ``log``."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **env, _MARK: self.mark}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def pids(self) -> set[int]:
        """All living processes of this tree, from wherever they were started."""
        wanted = f"{_MARK}={self.mark}".encode()
        found = set()
        for path in _PROC.glob("[0-9]*/environ"):
            try:
                if wanted in path.read_bytes().split(b"\0"):
                    found.add(int(path.parent.name))
            except OSError:  # it has ended, or is another user's
                continue
        return {pid for pid in found if not _is_zombie(pid)}

    def close(self, timeout: float = 15.0, grace: float = 5.0) -> list[str]:
        """End everything; return what outlived the processes that were started.

        :param timeout: seconds that each of these gets to end on SIGTERM.
        :param grace: seconds that their descendants get after that.
        """
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        for process in self._started:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                end_group(process.pid, signal.SIGKILL)
                process.wait(5)
        try:
            wait_until(lambda: not self.pids(), grace, "the worker's processes end")
        except AssertionError:
            pass
        left = [f"{pid} ({_command(pid)})" for pid in self.pids()]
        for process in self._started:
            end_group(process.pid, signal.SIGKILL)
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return left


class WorkerProcess:
    """``python -m chervil ...`` as a process of its own; or another module of its kind."""

    def __init__(
        self,
        args: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        tree: Tree,
        log: Path,
        module: str = "chervil",
    ) -> None:
        self.args = list(args)
        self.tree = tree
        self._log = log
        self._module = module
        self.process = tree.start([sys.executable, "-m", module, *args], cwd, env, log)

    def __str__(self) -> str:
        return f"{self._module} {' '.join(self.args)}"

    @property
    def pid(self) -> int:
        """The process that was started: the node's hub."""
        return self.process.pid

    def pids(self) -> set[int]:
        """Its living descendants, itself not included, as the operating system knows them."""
        parents: dict[int, int] = {}
        for pid in self.tree.pids():
            try:
                stat = (_PROC / str(pid) / "stat").read_text()
            except OSError:
                continue
            parents[pid] = int(stat.rpartition(")")[2].split()[1])
        found = {self.pid}
        while grown := {pid for pid, ppid in parents.items() if ppid in found} - found:
            found |= grown
        return found - {self.pid}

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def wait_for_log(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """Wait until its output matches a regular expression."""
        return wait_until(
            lambda: re.search(pattern, self.log()) or self._ended(pattern),
            timeout,
            f"{self} writes {pattern!r}",
        )

    def _ended(self, pattern: str) -> None:
        code = self.process.poll()
        if code is not None and not re.search(pattern, self.log()):
            raise AssertionError(
                f"{self} ended with {code} before it wrote {pattern!r}:\n{self.log()}"
            )

    def signal(self, sig: int) -> None:
        """Send a signal to the hub alone."""
        self.process.send_signal(sig)

    def kill_node(self) -> None:
        """``kill -9`` of every process of the node at once, as a machine that dies."""
        end_group(self.pid, signal.SIGKILL)
        self.process.wait(5)

    def stop(self, timeout: float = 15.0) -> int:
        """SIGTERM, and wait for its end; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = 15.0) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(timeout)
