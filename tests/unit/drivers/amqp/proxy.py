"""A proxy in front of RabbitMQ that cuts connections, holds bytes back, and goes away."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes on to a server, as long as it is told to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = url.replace(f":{parts.port}", f":{self.port}")
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        #: What a client sends after this is swallowed, and its connection cut.
        self.swallow: bytes | None = None
        #: Nothing passes, and nobody is told.
        self.frozen = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                sockets = [*self._pairs] if not self.frozen else []
                if self._listening.fileno() >= 0:
                    sockets.append(self._listening)
                for sock in select.select(sockets, [], [], 0.01)[0]:
                    if sock is self._listening:
                        self._accept()
                    elif sock in self._pairs:
                        self._pass_on(sock)

    def _accept(self) -> None:
        client, server = self._listening.accept()[0], socket.create_connection(self._target)
        self._pairs[client], self._pairs[server] = server, client
        self._clients.add(client)

    def _pass_on(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._cut(sock)
            return
        doomed = self.swallow is not None and sock in self._clients and self.swallow in data
        with contextlib.suppress(OSError):
            self._pairs[sock].sendall(data)
        if doomed:
            self.swallow = None
            # Only when the server has answered is it sure that it has done it.
            with contextlib.suppress(OSError):
                self._pairs[sock].recv(1 << 20)
            self._cut(sock)

    def _cut(self, sock: socket.socket) -> None:
        other = self._pairs.pop(sock)
        self._pairs.pop(other, None)
        for end in (sock, other):
            self._clients.discard(end)
            end.close()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            while self._pairs:
                self._cut(next(iter(self._pairs)))

    def go_away(self) -> None:
        """Cut all connections, and accept none."""
        with self._lock:
            self._listening.close()
        self.cut()

    def come_back(self) -> None:
        """Accept connections again, at the same port."""
        with self._lock:
            self._listening = socket.create_server(("127.0.0.1", self.port))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        while self._pairs:
            self._cut(next(iter(self._pairs)))
        self._listening.close()
