"""The connections of a process to one RabbitMQ, for any thread, also after a fork."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.location import Location
from chervil.drivers.amqp.trouble import Refused
from chervil.exceptions import OperationalError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Channels of a connection from here: for publishing with confirmations, and for all else.
PUBLISHING: Final = 1
ASKING: Final = 2
#: Idle connections that are kept.
_KEPT: Final = 16


class Pool:
    """Hands out connections; each is one thread's until it is given back."""

    def __init__(
        self,
        location: Location,
        error: type[OperationalError],
        label: str = "chervil publisher",
    ) -> None:
        self.location = location
        self._error = error
        self._label = label
        self._idle: deque[Link] = deque()

    def take(self) -> Link:
        """A connection that is nobody else's until it is given back.

        :raises OperationalError: (of this pool's class) no server can be reached.
        """
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                return Link(self.location, self._error, self._label, confirm=True)
            if link.is_usable():
                return link
            link.close()

    def give(self, link: Link) -> None:
        """Take it back, or close it when more are idle than are needed."""
        if not link.open or len(self._idle) >= _KEPT:
            link.close()
            return
        self._idle.append(link)

    @contextmanager
    def link(self) -> Iterator[Link]:
        """A connection for a ``with`` block; refusals become errors of this pool's class."""
        link = self.take()
        try:
            yield link
        except Refused as exc:
            self.give(link)
            raise link.refused(exc) from None
        except OperationalError:
            self.give(link)  # which closes it if it is broken
            raise
        except BaseException:
            link.close()
            raise
        self.give(link)

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()
