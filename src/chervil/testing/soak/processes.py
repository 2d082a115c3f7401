"""The processes of a soak test: nodes and clients, each started again when it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from chervil.testing.faults.processes import send_group
from chervil.testing.faults.proxy import Proxy

#: The environment variable by which all processes of one test are found.
MARK = "CHERVIL_SOAK_MARK"


class Member:
    """A node or a client.

    :param proxy: its way to the broker, where that is a server.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        directory: Path,
        proxy: Proxy | None,
    ) -> None:
        self.name = name
        self.proxy = proxy
        self.starts = 0
        #: Monotonic seconds at which it is to be started again.
        self.again_at = 0.0
        #: It was told to end, or killed.
        self.expected = True
        self._command = [sys.executable, *command]
        self._env = {**os.environ, **env}
        self._log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its id; 0 when it has ended."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def status(self) -> int | None:
        """Its exit status, when it has ended."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it in a process group of its own."""
        if self._process is not None:  # what a killed hub has left: see `leftovers`
            self._process.wait()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1
        self.expected = False

    def signal_group(self, number: int) -> None:
        """Signal all its processes, as far as they are still in its group."""
        if self._process is not None:
            send_group(self._process.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.expected = True
        if pid := self.pid:
            os.kill(pid, signal.SIGTERM)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; None when it did not end in that time."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


class Members:
    """Keeps nodes and clients running.

    :param random: decides how long a member stays away.
    """

    def __init__(self, members: Sequence[Member], random: Random) -> None:
        self.members = list(members)
        self._random = random
        #: What ended although nobody killed it, in words.
        self.surprises: list[str] = []

    def start(self) -> None:
        for member in self.members:
            member.start()

    def tend(self) -> None:
        """Start again what is due."""
        now = time.monotonic()
        for member in self.members:
            if member.pid:
                continue
            if not member.again_at:
                if not member.expected:
                    self.surprises.append(f"{member.name} ended with {member.status}")
                member.again_at = now + self._random.uniform(0, 1.5)
            if member.again_at <= now:
                member.again_at = 0.0
                member.start()

    def all_up(self) -> None:
        """Start what is down, now."""
        for member in self.members:
            if not member.pid:
                member.start()
            member.again_at = 0.0


def look_at(pid: int) -> str:
    """What a process is at, as far as the system says: state, parent, where it waits."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        return f"{state} parent {parent} in {Path(f'/proc/{pid}/wchan').read_text()}"
    except OSError as exc:
        return str(exc)


def leftovers(mark: str) -> dict[int, str]:
    """The processes that carry the mark of a test: id -> command."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        try:
            if wanted in path.read_bytes().split(b"\0") and pid != os.getpid():
                command = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ")
                found[pid] = command.decode(errors="replace").strip()
        except OSError:
            continue
    return {pid: command for pid, command in found.items() if command}
