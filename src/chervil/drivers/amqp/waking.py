"""One descriptor that is readable when a consumer should look: for RabbitMQ and for ``wake``."""

from __future__ import annotations

import select
import socket
import sys
from typing import Any

_READ = 65536


class Ear:
    """The descriptor, and a bell that any thread can ring."""

    def __init__(self) -> None:
        self._bell, self._clapper = socket.socketpair()
        self._bell.setblocking(False)
        self._clapper.setblocking(False)
        self._set: Any
        if sys.platform == "linux":
            self._set = select.epoll()
        else:
            self._set = select.kqueue()
        self.listen(self._bell.fileno())

    def fileno(self) -> int:
        """Readable when something is that it listens to."""
        descriptor: int = self._set.fileno()
        return descriptor

    def listen(self, descriptor: int) -> None:
        """Listen to a descriptor until it is closed."""
        if sys.platform == "linux":
            self._set.register(descriptor, select.EPOLLIN)
        else:  # a queue of kernel events is itself readable when it has one
            event = select.kevent(descriptor, select.KQ_FILTER_READ, select.KQ_EV_ADD)
            self._set.control([event], 0)

    def unring(self) -> bool:
        """Forget calls of :meth:`ring`; True when there was one."""
        rung = False
        while True:
            try:
                data = self._bell.recv(_READ)
            except OSError:
                return rung
            rung = rung or bool(data)
            if len(data) < _READ:
                return rung

    def ring(self) -> None:
        """Make the descriptor readable. From any thread or signal handler."""
        try:
            self._clapper.send(b"!")
        except OSError:  # it has rung often enough, or is closed
            pass

    def close(self) -> None:
        """Close all; doing it again changes nothing."""
        self._set.close()
        self._bell.close()
        self._clapper.close()
