"""A Redis server of the benchmark's own, on the cores that all is measured on."""

from __future__ import annotations

import atexit
import contextlib
import socket
import subprocess
import time
from collections import Counter

import hiredis

from bench.procs import BenchError

#: Commands that the measuring itself sends.
_OURS = ("info", "config|resetstat", "flushall", "dbsize", "llen", "hlen")


class Server:
    """The process, and one connection to it."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [
                *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no"),
            ],
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        atexit.register(self.stop)
        self._reader = hiredis.Reader()
        self._socket = self._connect()

    @property
    def url(self) -> str:
        """As clients take it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.port), 10)
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise BenchError("redis-server did not start")
            time.sleep(0.02)

    def call(self, *command: str) -> object:
        """One command."""
        self._socket.sendall(hiredis.pack_command(command))
        while (answer := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def number(self, *command: str) -> int:
        """One command that answers with a number."""
        answer = self.call(*command)
        assert isinstance(answer, int)
        return answer

    def reset(self) -> None:
        """Empty it and begin to count anew."""
        self.call("FLUSHALL")
        self.call("CONFIG", "RESETSTAT")

    def commands(self) -> Counter[str]:
        """How often each command has been carried out, also by scripts, but for our own."""
        answer = self.call("INFO", "commandstats")
        assert isinstance(answer, bytes)
        found: Counter[str] = Counter()
        for line in answer.decode().splitlines():
            if line.startswith("cmdstat_"):
                name, _, fields = line.removeprefix("cmdstat_").partition(":")
                if name not in _OURS:
                    found[name] = int(fields.partition("calls=")[2].partition(",")[0])
        return found

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)


_server: Server | None = None


def server() -> Server:
    """The server of this run; started when it is first asked for."""
    global _server
    if _server is None:
        _server = Server()
    return _server
