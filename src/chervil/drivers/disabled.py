"""The result store that stores nothing: ``disabled://``."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chervil.drivers.chords import Arrival, Joined
from chervil.exceptions import BackendError, ImproperlyConfigured
from chervil.wire.message import Message, Outcome


class DisabledResults:
    """See :class:`chervil.drivers.contracts.ResultStore`.

    :param options: none are known.
    :raises ImproperlyConfigured: there are options.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        if options:
            names = ", ".join(map(repr, sorted(options)))
            raise ImproperlyConfigured(f"{url!r} has no options, but was given {names}")

    def put(self, outcomes: Sequence[Outcome]) -> None:
        """Store nothing."""

    def get(self, ids: Collection[str]) -> Mapping[str, Outcome]:
        """Find nothing."""
        return {}

    def forget(self, ids: Collection[str]) -> None:
        """There is nothing to delete."""

    def listener(self, address: str) -> DisabledListener:
        """A listener that never hears anything."""
        return DisabledListener(address)

    # --- no chords, no saved groups

    joins = False

    def announce(self, joins: Mapping[str, int]) -> None:
        """Refuse."""
        raise _refused("chords")

    def arrive(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """Refuse."""
        raise _refused("chords")

    def sent(self, joins: Collection[str]) -> None:
        """There is nothing to send."""

    def unsent(self, age: float) -> Mapping[str, Message]:
        """Know nothing."""
        return {}

    def joined(self, join: str) -> Joined | None:
        """Know nothing."""
        return None

    def widen(self, join: str, by: int) -> None:
        """Refuse."""
        raise _refused("chords")

    def close_joins(self, joins: Collection[str]) -> None:
        """There is nothing to close."""

    def put_group(self, group: str, payload: bytes, expires: float) -> None:
        """Refuse."""
        raise _refused("saved groups")

    def get_group(self, group: str) -> bytes | None:
        """Know nothing."""
        return None

    def forget_group(self, group: str) -> None:
        """There is nothing to delete."""

    def expire(self) -> int:
        """Nothing is there that could expire."""
        return 0

    def close(self) -> None:
        """There is nothing to release."""


def _refused(what: str) -> BackendError:
    return BackendError(f"{what} need a result store: set result_backend")


class DisabledListener:
    """See :class:`chervil.drivers.contracts.Listener`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._woken = threading.Event()

    def watch(self, ids: Collection[str], sent_here: bool) -> bool:
        """There will be no news."""
        return False

    def unwatch(self, ids: Collection[str]) -> None:
        """There was no news."""

    def wait(self, timeout: float) -> Sequence[Outcome]:
        """Wait until :meth:`wake` or the timeout in seconds."""
        self._woken.wait(timeout)
        self._woken.clear()
        return ()

    def wake(self) -> None:
        """End a wait early."""
        self._woken.set()

    def close(self) -> None:
        """End a wait early."""
        self._woken.set()
