"""One descriptor that is readable when a consumer should look: for Redis and for ``wake``.

The server is asked to tell of changes of what was looked at and found empty
(``CLIENT TRACKING``, https://redis.io/docs/latest/develop/reference/client-side-caching/).
It tells once, on a connection of its own that is only read: so an idle consumer waits in
``poll`` as it would for any other socket, whoever sent the message, kombu included.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import sys
from typing import Any

from chervil.drivers.redis.link import Link, Refused
from chervil.exceptions import BrokerUnavailable

logger = logging.getLogger("chervil.redis")
#: The channel of what tracking tells, for connections that speak RESP2.
_CHANNEL = "__redis__:invalidate"
_READ = 65536
#: What :meth:`Ear.drain` returns for a connection that was lost.
GONE = b"gone"


class Ear:
    """The descriptor, and the connection that the server tells on."""

    def __init__(self) -> None:
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)
        self._set: Any
        if sys.platform == "linux":
            self._set = select.epoll()
        else:
            self._set = select.kqueue()
        self._link: Link | None = None
        self._add(self._bell.fileno())

    def fileno(self) -> int:
        """Readable when one of the two is."""
        descriptor: int = self._set.fileno()
        return descriptor

    def _add(self, descriptor: int) -> None:
        if sys.platform == "linux":
            self._set.register(descriptor, select.EPOLLIN)
        else:  # a queue of kernel events is itself readable when it has one
            event = select.kevent(descriptor, select.KQ_FILTER_READ, select.KQ_EV_ADD)
            self._set.control([event], 0)

    def listen(self, main: Link) -> bool:
        """Have the server tell of what ``main`` looks at; False when it cannot.

        :raises BrokerUnavailable: the server cannot be reached.
        """
        self.hang_up()
        link = Link(main.location, BrokerUnavailable)  # the same server, whoever is primary now
        try:
            link.call("SUBSCRIBE", _CHANNEL)
            main.call("CLIENT", "TRACKING", "ON", "REDIRECT", link.number, "NOLOOP")
        except Refused as exc:
            link.close()
            logger.warning(
                "Redis at %s does not tell of new messages, so this node asks for them twice a "
                "second: %s",
                main.location.name,
                exc,
            )
            return False
        except BaseException:
            link.close()
            raise
        link.socket.setblocking(False)
        self._link = link
        self._add(link.socket.fileno())
        return True

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known here."""
        return self._link is not None

    def drain(self) -> bytes:
        """Read what there is; what the server told, unread, or ``GONE`` when it is gone."""
        link = self._link
        if link is None:
            return b""
        heard = b""
        while True:
            try:
                data = link.socket.recv(_READ)
            except (BlockingIOError, ssl.SSLWantReadError):
                return heard
            except OSError:
                data = b""
            if not data:
                self.hang_up()
                return GONE
            heard += data
            if len(data) < _READ and not link.location.tls:
                return heard  # there is no more

    def unring(self) -> bool:
        """Forget calls of :meth:`ring`; True when there was one."""
        rung = False
        while True:
            try:
                rung = bool(self._bell.recv(_READ)) or rung
            except OSError:
                return rung

    def ring(self) -> None:
        """Make the descriptor readable. From any thread or signal handler."""
        try:
            self._clapper.send(b"!")
        except OSError:  # it has rung often enough, or is closed
            pass

    def hears(self, timeout: float) -> bool:
        """Whether the server tells something within that many seconds."""
        link = self._link
        if link is None:
            return False
        poll = select.poll()
        poll.register(link.socket, select.POLLIN)
        return bool(poll.poll(timeout * 1000)) and bool(self.drain())

    def hang_up(self) -> None:
        """Close the connection; :meth:`listen` makes a new one."""
        link, self._link = self._link, None
        if link is not None:
            link.close()  # which takes it out of the set

    def close(self) -> None:
        """Close all; doing it again changes nothing."""
        self.hang_up()
        self._set.close()
        self._bell.close()
        self._clapper.close()
