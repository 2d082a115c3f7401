"""One connection to a Redis server, and the connections of a process.

A thin layer over a socket and hiredis: every microsecond here is paid for each call.
The protocol is RESP2, except where a connection is told of things and answered on, too.
"""

from __future__ import annotations

import os
import re
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import hiredis

from chervil.drivers.redis.dialing import dial
from chervil.drivers.redis.location import Location
from chervil.drivers.redis.scripts import Script
from chervil.drivers.redis.sentinel import primaries
from chervil.drivers.redis.trouble import CLUSTER, explain, is_passing, says
from chervil.exceptions import ImproperlyConfigured, OperationalError

if TYPE_CHECKING:
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
        self._error = error
        self._protocol = protocol
        self.forks = _forks
        #: Answers that nobody has read yet.
        self.owed = 0
        #: The number of this connection at the server.
        self.number = 0
        #: How often its pool had been closed when it was made.
        self.closes = 0
        self.open = False
        self._connect(location)

    # --- connecting

    def _connect(self, location: Location) -> None:
        """Connect to the server, or to whom Sentinels call the primary.

        :raises OperationalError: nobody there can be used; it says why of each.
        """
        if not location.sentinels:
            self._open(location)
            return
        troubles: list[str] = []
        for primary in primaries(location, partial(_ask, self._error)):
            if isinstance(primary, Location):
                try:
                    self._open(primary)
                except OperationalError as exc:
                    troubles.append(str(exc))
                else:
                    return
            else:
                troubles.append(str(primary))
        raise self._error(f"no primary {location.master_name!r} to be found: {'; '.join(troubles)}")

    def _open(self, location: Location) -> None:
        self.location = location
        self.reader = hiredis.Reader(notEnoughData=_MORE)
        self.socket = dial(location, self._error)
        self.open = True
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        location = self.location
        hello: list[Argument] = ["HELLO", self._protocol]
        if location.password or location.username:
            hello += ["AUTH", location.username or "default", location.password]
        hello += ["SETNAME", location.client_name]
        (answer,) = self.pipeline((hello,))
        if isinstance(answer, Exception):
            if says(str(answer), "ERR unknown command"):
                raise self._too_old()
            raise self.refused(answer)
        if isinstance(answer, list):  # version 2 of the protocol has no maps
            answer = dict(zip(answer[::2], answer[1::2], strict=False))
        if not isinstance(answer, dict):
            raise self.alien()
        told = {_as_text(k): v for k, v in answer.items()}
        self._inspect(_as_text(told.get("mode")), _as_text(told.get("version")))
        if _as_text(told.get("role", "master")) != "master":
            raise self.refused("READONLY it says that it is a replica")
        self.number = int(told["id"])
        if location.db:
            (answer,) = self.pipeline((("SELECT", location.db),))
            if isinstance(answer, Exception):
                raise self.refused(answer)

    def _inspect(self, mode: str, version: str) -> None:
        """See that it is what it should be."""
        location = self.location
        if mode != ("sentinel" if location.is_sentinel else "standalone"):
            name = location.name
            if mode == "cluster":
                text = f"Redis at {name} {CLUSTER}"
            elif mode == "sentinel":
                text = (
                    f"{name} is a Sentinel: write sentinel://{location.host}:{location.port}/0, "
                    "and its name of the primary into the transport option master_name"
                )
            else:
                text = f"{name} is no Sentinel: write redis://{location.host}:{location.port}/0"
            raise ImproperlyConfigured(text)
        digits = [int(part) for part in version.split(".")[:2] if part.isdigit()]
        if tuple(digits) < _OLDEST:
            raise ImproperlyConfigured(
                f"{location.name} is Redis {version}; it must be 6.2 or newer, or Valkey"
            )

    def _too_old(self) -> Exception:
        """The error for a server without HELLO, which came with Redis 6.0."""
        location = self.location
        commands: list[Sequence[Argument]] = [("INFO", "server")]
        if location.password:
            commands.insert(0, ("AUTH", location.password))
        answer = self.pipeline(commands)[-1]
        found = re.search(r"^redis_version:(\S+)", _as_text(answer), re.MULTILINE)
        version = found[1] if found else "of an unknown version"
        return ImproperlyConfigured(
            f"{location.name} is Redis {version} and does not know the command HELLO; it must be "
            "6.2 or newer, or Valkey, and must not have that command renamed"
        )

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
            try:
                answer = reader.gets()
            except hiredis.ProtocolError:
                raise self.alien() from None
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
        """The error for what the server refused; if another one may not, it is closed."""
        text = str(answer)
        if is_passing(text):
            self.close()
        return self._error(f"Redis at {self.location.name} {explain(text)}")

    def alien(self) -> OperationalError:
        """The error for what cannot be an answer of Redis; the link is closed."""
        self.close()
        return self._error(f"what answers at {self.location.name} is no Redis server")

    def is_usable(self) -> bool:
        """Whether it can be used for a new command, as far as is known here."""
        if self.forks != _forks or not self.open or self.owed:
            return False
        return not self._poll.poll(0)  # it would be the end, or an answer to nobody

    def has_ended(self) -> bool:
        """Whether the server is known to have hung up, while no answers are on their way."""
        return not self.owed and bool(self._poll.poll(0))

    def hang_up(self) -> None:
        """End the connection; whoever reads it finds out. From any thread."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended
            pass

    def close(self) -> None:
        """Close it; doing it again changes nothing."""
        self.open = False
        if hasattr(self, "socket"):
            self.socket.close()


def _ask(error: type[OperationalError], location: Location, command: Sequence[str]) -> Any:
    """Connect to a Sentinel and have it answer one command."""
    link = Link(location, error)
    try:
        return link.call(*command)
    except Refused as exc:
        raise link.refused(exc) from None
    finally:
        link.close()


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Pool:
    """The connections of a process to one place, for any thread, also after a fork."""

    def __init__(self, location: Location, error: type[OperationalError]) -> None:
        self.location = location
        self._error = error
        self._idle: deque[Link] = deque()
        #: What was taken before a close is not kept when it is given back after it.
        self._closes = 0

    def take(self) -> Link:
        """A connection that is nobody else's until it is given back.

        :raises OperationalError: (of this pool's class) the server cannot be reached.
        """
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                closes = self._closes
                link = Link(self.location, self._error)
                link.closes = closes
                return link
            if link.is_usable():
                return link
            link.close()

    def give(self, link: Link) -> None:
        """Take it back."""
        stale = link.closes != self._closes
        if not link.open or link.owed or stale or len(self._idle) >= _KEPT:
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
        """Close what is idle now, and what is in use when it is given back."""
        self._closes += 1
        while self._idle:
            self._idle.pop().close()
