"""The bytes of a connection: a socket, its deadlines, and who may use it when."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterable
from typing import Final

from chervil import clock
from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.connecting import connect
from chervil.drivers.amqp.location import Location, Server
from chervil.exceptions import OperationalError

_READ: Final = 262144
#: Windows has no such flag; nothing of this package runs there but clients.
_DONT_WAIT: Final = getattr(socket, "MSG_DONTWAIT", 0)

#: Counts forks: a connection of the parent must not be used by the child.
_forks = 0


def _after_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Transport:
    """A socket to one of the servers. Who inherits says what is done with the bytes."""

    socket: socket.socket
    server: Server

    def __init__(self, location: Location, error: type[OperationalError]) -> None:
        self.location = location
        self.error = error
        self.open = False
        #: Reason for which the server takes no messages now (``connection.blocked``).
        self.blocked = ""
        #: Monotonic seconds of the last sign of life.
        self.heard_at = clock.monotonic()
        self._forks = _forks
        #: Held while something is sent; with TLS, while something is received, too.
        self._lock = threading.Lock()

    def _open(self, server: Server) -> None:
        self.server = server
        self.socket = connect(self.location, server, self.error)
        self.open = True
        self._tls = server.tls
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def _feed(self, data: bytes) -> None:
        raise NotImplementedError

    def is_inherited(self) -> bool:
        """Whether it was opened by a parent of this process, whose it is."""
        return self._forks != _forks

    # --- writing

    def send(self, data: bytes) -> None:
        """Write frames."""
        try:
            with self._lock:
                self.socket.sendall(data)
        except OSError as exc:
            raise self.lost(exc) from exc

    def send_parts(self, parts: Iterable[bytes]) -> None:
        """Write frames in one go."""
        self.send(b"".join(parts))

    def beat(self) -> None:
        """Tell the server that we are alive. From any thread.

        It waits for no lock: whoever is sending just now tells it too. Nor is the socket
        closed here, so that its descriptor stays what it is for who waits on it.

        :raises OperationalError: the connection is broken.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            self.socket.sendall(m.HEARTBEAT)
        except OSError as exc:
            self.sever()
            raise self.error(
                f"lost the connection to RabbitMQ at {self.server.name}: {exc}"
            ) from exc
        finally:
            self._lock.release()

    def sever(self) -> None:
        """Cut the connection, so that whoever uses it finds it broken. From any thread."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing came for so long, and nothing waits to be read. From any thread."""
        return clock.monotonic() - self.heard_at > seconds and not self.readable()

    def readable(self) -> bool:
        """Whether there is something to be read."""
        return bool(self._poll.poll(0))

    def fileno(self) -> int:
        """The descriptor to wait on; readable when :meth:`pump` finds something."""
        return self.socket.fileno()

    # --- reading

    def _read_until(self, deadline: float) -> None:
        """Wait for something to arrive."""
        left = deadline - clock.monotonic()
        if left <= 0 or (left < self.location.socket_timeout and not self._wait(left)):
            raise self.lost(TimeoutError())
        try:
            data = self._receive() if self._tls else self.socket.recv(_READ)
        except OSError as exc:
            raise self.lost(exc) from exc
        self._feed(data)

    def _wait(self, seconds: float) -> bool:
        if self._tls and self.socket.pending():  # type: ignore[attr-defined]
            return True
        return bool(self._poll.poll(seconds * 1000))

    def _receive(self) -> bytes:
        """With TLS: sending and receiving at the same time would damage its state."""
        if not self._wait(self.location.socket_timeout):
            raise TimeoutError
        with self._lock:
            return self.socket.recv(_READ)

    def pump(self) -> None:
        """Read what is there, without waiting."""
        try:
            if self._tls:
                while self._wait(0):
                    with self._lock:
                        data = self.socket.recv(_READ)
                    self._feed(data)
                return
            while True:
                data = self.socket.recv(_READ, _DONT_WAIT)
                self._feed(data)
                if len(data) < _READ:
                    return
        except BlockingIOError:
            return
        except OSError as exc:
            raise self.lost(exc) from exc

    # --- the end

    def lost(self, exc: OSError | None) -> OperationalError:
        """The error for a connection that broke; it is closed."""
        self._drop()
        name, limit = self.server.name, self.location.socket_timeout
        if exc is None:
            return self.error(f"RabbitMQ at {name} closed the connection")
        if isinstance(exc, (BlockingIOError, TimeoutError)):
            if self.blocked:
                return self.error(
                    f"RabbitMQ at {name} takes no messages now ({self.blocked}): it is short of "
                    "memory or disk space, see rabbitmqctl status"
                )
            return self.error(
                f"RabbitMQ at {name} has not answered within {limit:g} s (option socket_timeout)"
            )
        return self.error(f"lost the connection to RabbitMQ at {name}: {exc}")

    def _drop(self) -> None:
        self.open = False
        self.socket.close()
