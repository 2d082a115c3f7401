"""A way to a server that swallows, on some connections, what the server sends."""

from __future__ import annotations

import socket
import threading


class Proxy:
    """Forwards connections to a port of this machine.

    After :meth:`swallow`, connections on which those bytes were sent to the server bring
    nothing back any more, and stay open: as behind a firewall that forgot them.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._swallowed: bytes | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def swallow(self, sent: bytes) -> None:
        """What comes back on these connections is lost from now on."""
        self._swallowed = sent

    def stop_swallowing(self) -> None:
        """New connections are whole again."""
        self._swallowed = None

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            sent: list[bytes] = []
            self._run(self._forward, near, far, sent, False)
            self._run(self._forward, far, near, sent, True)

    def _forward(
        self, source: socket.socket, target: socket.socket, sent: list[bytes], back: bool
    ) -> None:
        lost = False
        try:
            while data := source.recv(65536):
                if not back:
                    sent.append(data)
                swallowed = self._swallowed
                lost = lost or (back and swallowed is not None and swallowed in b"".join(sent))
                if not lost:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        for one in (self._socket, *self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        for thread in self._threads:
            thread.join(10)
