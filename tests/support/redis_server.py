"""Redis servers of a test's own, which it stops, kills, freezes and configures."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.processes import WorkerProcess
from tests.support.waiting import wait_until

#: Seconds that a server may take to start or end on a loaded machine.
PATIENCE = 20.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class RedisServer:
    """A server on a free port of the loopback interface, with its data in ``folder``.

    :param options: of its command line, without the dashes: ``maxmemory="2mb"``.
    :param port: when None, a free one.
    """

    binary = "redis-server"

    def __init__(self, folder: Path, port: int | None = None, **options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> Sequence[str]:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "logfile": str(self.folder / "redis.log"),
            **{name.replace("_", "-"): value for name, value in self.options.items()},
        }
        return [
            self.binary,
            *(part for name, value in options.items() for part in _words(name, value)),
        ]

    def start(self, *, ready: bool = True) -> RedisServer:
        """Start it, and wait until it answers (``ready``)."""
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self._stopped = False
        if ready:
            wait_until(self.answers, PATIENCE, f"{self.url} answers")
        return self

    def answers(self) -> bool:
        process = self._process
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}: {self.log()}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def client(self, **options: Any) -> redis.Redis:
        """A connection for the test's own purposes."""
        options.setdefault("socket_timeout", PATIENCE)
        options.setdefault("retry", Retry(NoBackoff(), 0))
        options.setdefault("protocol", 2)  # without HELLO
        return redis.Redis(port=self.port, host="127.0.0.1", **options)

    def do(self, *command: Any, **options: Any) -> Any:
        """One command."""
        with self.client(**options) as client:
            return client.execute_command(*command)

    def log(self) -> str:
        path = self.folder / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def freeze(self) -> None:
        """It holds its connections and does nothing."""
        self._signal(signal.SIGSTOP)
        self._stopped = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self._stopped = False

    def stop(self) -> None:
        """Have it end in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As when its machine dies."""
        self._end(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._stopped:
            process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)


class Sentinel(RedisServer):
    """A Sentinel that watches ``primary`` under the name ``mymaster``."""

    def __init__(self, folder: Path, primary: RedisServer, password: str = "") -> None:
        super().__init__(folder)
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f'dir "{folder}"',
            f'logfile "{folder / "redis.log"}"',
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} 2",
            "sentinel down-after-milliseconds mymaster 1000",
            "sentinel failover-timeout mymaster 4000",
        ]
        if password:
            lines.append(f"requirepass {password}")
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> Sequence[str]:
        return [self.binary, str(self.folder / "sentinel.conf"), "--sentinel"]


def _words(name: str, value: str) -> Sequence[str]:
    if name in ("rename-command", "replicaof", "save"):
        return [f"--{name}", *(value.split() if value else [""])]
    return [f"--{name}", value]


#: Short enough for tests that wait for them, long enough for a loaded machine.
OPTIONS = {"socket_timeout": 2, "socket_connect_timeout": 2}
#: Seconds that a worker may take to come back.
WAIT = 30.0

#: Makes a server that ends with the test: ``redis_server(maxmemory="2mb")``.
MakeServer = Callable[..., RedisServer]


def says(worker: WorkerProcess, text: str, times: int = 1) -> None:
    """Wait until the worker's log has this text so often."""
    pattern = re.escape(text)
    wait_until(lambda: len(re.findall(pattern, worker.log())) >= times, WAIT, f"{worker}: {text}")
