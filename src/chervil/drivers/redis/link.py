"""One connection to a Redis server, and the connections of a process.

A thin layer over a socket and hiredis: every microsecond here is paid for each call.
The protocol is RESP2, except where a connection is told of things and answered on, too.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import hiredis

from chervil.drivers.redis.location import Location
from chervil.drivers.redis.scripts import Script
from chervil.exceptions import ImproperlyConfigured, OperationalError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

T = TypeVar("T")

#: What a command consists of.
Argument = bytes | str | int | float
pack: Callable[[Any], bytes] = hiredis.pack_command

_READ: Final = 65536
_OLDEST: Final = (6, 2)
#: Idle connections that are kept.
_KEPT: Final = 16
_MORE: Final = object()

#: Counts forks: a connection of the parent must not be used by the child.
_forks = 0


def _after_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Refused(Exception):
    """The server answered a command with an error; the text is the server's."""


class Link:
    """A connection. Not for several threads at once.

    :param error: what is raised when the server cannot be reached or does not answer
        in time; the link is closed then.
    :param protocol: the version of the protocol, 2 or 3.
    :raises OperationalError: (of that class) the server cannot be reached.
    :raises ImproperlyConfigured: it is of a kind that cannot be used.
    """

    def __init__(
        self, location: Location, error: type[OperationalError], protocol: int = 2
    ) -> None:
        self.location = location
        self._error = error
        self._protocol = protocol
        self.reader = hiredis.Reader(notEnoughData=_MORE)
        self.forks = _forks
        #: Answers that nobody has read yet.
        self.owed = 0
        #: The number of this connection at the server.
        self.number = 0
        self.open = True
        self.socket = self._connect()
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    # --- connecting

    def _connect(self) -> socket.socket:
        location = self.location
        try:
            if location.path:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.settimeout(location.socket_connect_timeout)
                try:
                    sock.connect(location.path)
                except BaseException:
                    sock.close()
                    raise
            else:
                sock = socket.create_connection(
                    (location.host, location.port), location.socket_connect_timeout
                )
        except OSError as exc:
            raise self._error(f"cannot reach Redis at {location.name}: {exc}") from exc
        try:
            if not location.path:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if location.socket_keepalive:
                    _keep_alive(sock)
            return self._secured(sock)
        except BaseException:
            sock.close()
            raise

    def _secured(self, sock: socket.socket) -> socket.socket:
        location = self.location
        if not location.tls:
            # The kernel keeps the deadline: settimeout would poll before each call.
            seconds = location.socket_timeout
            limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            return sock
        try:
            secured = tls_context(location).wrap_socket(sock, server_hostname=location.host)
        except OSError as exc:  # SSLError is one
            raise self._error(
                f"no TLS connection to Redis at {location.name}: {exc}; without TLS, its "
                "scheme is redis://"
            ) from exc
        secured.settimeout(location.socket_timeout)
        return secured

    def _greet(self) -> None:
        location = self.location
        hello: list[Argument] = ["HELLO", self._protocol]
        if location.password or location.username:
            hello += ["AUTH", location.username or "default", location.password]
        commands: list[Sequence[Argument]] = [hello]
        if location.db:
            commands.append(("SELECT", location.db))
        answers = self.pipeline(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise self.refused(answer)
        fields = answers[0]
        if not isinstance(fields, dict):
            fields = dict(zip(fields[::2], fields[1::2], strict=False))
        told = {_as_text(k): v for k, v in fields.items()}
        mode, version = _as_text(told.get("mode")), _as_text(told.get("version"))
        if mode != "standalone":
            raise ImproperlyConfigured(
                f"{location.name} is a {mode}; Sentinel and Cluster are not in this version of "
                "Chervil: give the URL of one server"
            )
        digits = [int(part) for part in version.split(".")[:2] if part.isdigit()]
        if tuple(digits) < _OLDEST:
            raise ImproperlyConfigured(
                f"{location.name} is Redis {version}; it must be 6.2 or newer, or Valkey"
            )
        self.number = int(told["id"])

    # --- talking

    def call(self, *command: Argument) -> Any:
        """One command and its answer.

        :raises Refused: the server answered with an error.
        """
        self.send(pack(command))
        answer = self.receive()
        if isinstance(answer, Exception):
            raise Refused(str(answer))
        return answer

    def pipeline(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Several commands at once; errors are among the answers."""
        packed = [pack(tuple(command)) for command in commands]
        if not packed:
            return []
        self.send(b"".join(packed), len(packed))
        return [self.receive() for _ in packed]

    def script(self, script: Script, keys: Sequence[Argument], *arguments: Argument) -> Any:
        """Run a script, and load it first where the server does not know it.

        :raises Refused: the script failed.
        """
        try:
            return self.call("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except Refused as exc:
            if not str(exc).startswith("NOSCRIPT"):
                raise
        return self.call("EVAL", script.source, len(keys), *keys, *arguments)

    def send(self, packed: bytes, answers: int = 1) -> None:
        """Send commands, to whose answers :meth:`receive` comes later."""
        try:
            self.socket.sendall(packed)
        except OSError as exc:
            raise self.lost(exc) from exc
        self.owed += answers

    def receive(self) -> Any:
        """The next answer; an error is returned, not raised."""
        reader = self.reader
        answer = reader.gets()
        while answer is _MORE:
            try:
                data = self.socket.recv(_READ)
            except OSError as exc:
                raise self.lost(exc) from exc
            if not data:
                raise self.lost(None)
            reader.feed(data)
            answer = reader.gets()
        self.owed -= 1
        return answer

    def arrived(self) -> Iterator[Any]:
        """Read once, and yield the whole answers that are there then."""
        try:
            data = self.socket.recv(_READ)
            while self.location.tls and self.socket.pending():  # type: ignore[attr-defined]
                data += self.socket.recv(_READ)
        except OSError as exc:
            raise self.lost(exc) from exc
        if not data:
            raise self.lost(None)
        self.reader.feed(data)
        while (answer := self.reader.gets()) is not _MORE:
            yield answer

    # --- trouble

    def lost(self, exc: OSError | None) -> OperationalError:
        """The error for a connection that broke; it is closed."""
        self.close()
        name, limit = self.location.name, self.location.socket_timeout
        if exc is None:
            return self._error(f"Redis at {name} closed the connection")
        if isinstance(exc, (BlockingIOError, TimeoutError)):
            return self._error(
                f"Redis at {name} has not answered within {limit:g} s (option socket_timeout)"
            )
        return self._error(f"lost the connection to Redis at {name}: {exc}")

    def refused(self, answer: object) -> OperationalError:
        """The error for what the server refused."""
        return self._error(f"Redis at {self.location.name} {_explain(str(answer))}")

    def is_usable(self) -> bool:
        """Whether it can be used for a new command, as far as is known here."""
        if self.forks != _forks or not self.open or self.owed:
            return False
        return not self._poll.poll(0)  # it would be the end, or an answer to nobody

    def close(self) -> None:
        """Close it; doing it again changes nothing."""
        self.open = False
        if hasattr(self, "socket"):
            self.socket.close()


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def tls_context(location: Location) -> ssl.SSLContext:
    """How to speak TLS there.

    :raises ImproperlyConfigured: a certificate or key cannot be read.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=location.ssl_ca_certs or None)
        if location.ssl_certfile:
            context.load_cert_chain(location.ssl_certfile, location.ssl_keyfile or None)
    except OSError as exc:
        raise ImproperlyConfigured(
            f"{location.name}: cannot read a certificate or key (ssl_ca_certs, ssl_certfile, "
            f"ssl_keyfile): {exc}"
        ) from exc
    context.check_hostname = location.ssl_check_hostname and location.ssl_cert_reqs != "none"
    context.verify_mode = ssl.VerifyMode[f"CERT_{location.ssl_cert_reqs.upper()}"]
    return context


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


#: How answers begin, and what they mean for who reads the log.
_MEANINGS: Final = (
    ("WRONGPASS", "refused the user name or password of the URL"),
    ("NOAUTH", "wants a password: redis://user:password@host:port/db"),
    ("NOPERM", "does not let this user do that: see its ACL"),
    ("ERR The user executing the script", "does not let this user do that: see its ACL"),
    ("OOM", "is out of memory (maxmemory), nothing was stored: raise it, or delete what is old"),
    ("READONLY", "is a read-only replica: give the URL of the primary"),
    ("MISCONF", "cannot save to its disk and takes no writes: see its log"),
    ("LOADING", "is still loading its data"),
    ("BUSY", "is busy with a script"),
    ("MASTERDOWN", "is a replica that lost its primary"),
    ("NOREPLICAS", "has too few replicas to take writes (min-replicas-to-write)"),
    ("MOVED", "is part of a Cluster, which is not in this version of Chervil"),
    ("CROSSSLOT", "is part of a Cluster, which is not in this version of Chervil"),
    ("CLUSTERDOWN", "is part of a Cluster, which is not in this version of Chervil"),
    ("WRONGTYPE", "has something of another type under a key that is ours"),
    ("ERR unknown command", "lacks a command; it must be 6.2 or newer"),
    ("ERR DB index", "has no database of that number"),
)


def _explain(answer: str) -> str:
    for start, meaning in _MEANINGS:
        # Errors of commands inside a script are told behind words of their own.
        if answer.startswith(start) or f" -{start} " in answer:
            return f"{meaning} ({answer})"
    return f"refused a command: {answer}"


class Pool:
    """The connections of a process to one place, for any thread, also after a fork."""

    def __init__(self, location: Location, error: type[OperationalError]) -> None:
        self.location = location
        self._error = error
        self._idle: deque[Link] = deque()

    def take(self) -> Link:
        """A connection that is nobody else's until it is given back.

        :raises OperationalError: (of this pool's class) the server cannot be reached.
        """
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                return Link(self.location, self._error)
            if link.is_usable():
                return link
            link.close()

    def give(self, link: Link) -> None:
        """Take it back."""
        if not link.open or link.owed or len(self._idle) >= _KEPT:
            link.close()
            return
        self._idle.append(link)

    @contextmanager
    def link(self) -> Iterator[Link]:
        """A connection for a ``with`` block; refusals become errors of this pool's class.

        What failed half-way leaves no connection behind with answers in it.
        """
        link = self.take()
        try:
            yield link
        except Refused as exc:
            self.give(link)
            raise link.refused(exc) from None
        except BaseException:
            link.close()
            raise
        self.give(link)

    def run(self, work: Callable[[Link], T]) -> T:
        """Do something with a connection."""
        with self.link() as link:
            return work(link)

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()
