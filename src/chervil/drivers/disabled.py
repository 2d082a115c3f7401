"""The result store that stores nothing: ``disabled://``."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chervil.drivers.chords import NoJoins
from chervil.exceptions import ImproperlyConfigured
from chervil.wire.message import Outcome


class DisabledResults(NoJoins):
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

    def expire(self) -> int:
        """Nothing is there that could expire."""
        return 0

    def close(self) -> None:
        """There is nothing to release."""


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
