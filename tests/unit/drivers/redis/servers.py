"""Redis servers of a test's own, and a proxy that cuts connections."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from chervil.drivers.redis.broker import RedisBroker
from chervil.drivers.redis.link import Link
from chervil.drivers.redis.location import parse
from chervil.exceptions import BrokerUnavailable
from tests.support.waiting import wait_until


class Server:
    """A server on a socket in a directory; options as on redis-server's command line."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.path = directory / "redis.sock"
        self.url = f"redis+socket://{self.path}"
        self._command = [
            "redis-server", "--port", "0", "--unixsocket", str(self.path),
            "--save", "", "--appendonly", "no", "--dir", str(directory), *options,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self._accepts, 10, "the server starts")

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.path))
            return True
        return False

    def call(self, *command: str | bytes | int, password: str = "") -> object:
        link = Link(parse(f"{self.url}?password={password}", {}), BrokerUnavailable)
        try:
            return link.call(*command)
        finally:
            link.close()

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self.process = None


class Proxy:
    """Passes bytes on to a server, until it is told to swallow the answer to a command."""

    def __init__(self, server: Server) -> None:
        self._server = server
        path = server.path.with_name("proxy.sock")
        self.url = f"redis+socket://{path}"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._doomed: set[socket.socket] = set()
        #: The answer to the next command that contains this is swallowed, and the
        #: connection cut.
        self.swallow: bytes | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for sock in select.select([self._listening, *self._pairs], [], [], 0.02)[0]:
                if sock is self._listening:
                    self._accept()
                elif sock in self._pairs:
                    self._pass_on(sock)

    def _accept(self) -> None:
        client, server = self._listening.accept()[0], socket.socket(socket.AF_UNIX)
        server.connect(str(self._server.path))
        self._pairs[client], self._pairs[server] = server, client

    def _pass_on(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 20)
        except OSError:
            data = b""
        if not data or sock in self._doomed:
            self._cut(sock)
            return
        if self.swallow is not None and self.swallow in data:
            self.swallow = None
            self._doomed.add(self._pairs[sock])
        with contextlib.suppress(OSError):
            self._pairs[sock].sendall(data)

    def _cut(self, sock: socket.socket) -> None:
        other = self._pairs.pop(sock)
        self._pairs.pop(other, None)
        for end in (sock, other):
            self._doomed.discard(end)
            end.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        while self._pairs:
            self._cut(next(iter(self._pairs)))
        self._listening.close()


Serve = Callable[..., Server]
Opened = Callable[..., RedisBroker]
