"""Which tasks a soak test sends, with which arguments."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from chervil.exceptions import ImproperlyConfigured
from chervil.testing.soak import tasks

#: A task, its arguments, its options.
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]

_WAYS = ("exit", "kill", "segfault")


def _later(random: Random) -> Call:
    return tasks.quick, (), {"countdown": random.uniform(0.1, 2.0)}


#: By name: the share of all calls, and what makes one.
KINDS: dict[str, tuple[int, Callable[[Random], Call]]] = {
    "quick": (40, lambda _: (tasks.quick, (), {})),
    "sleeps": (14, lambda random: (tasks.sleeps, (random.uniform(0.01, 0.5),), {})),
    "waits": (10, lambda random: (tasks.waits, (random.uniform(0.01, 0.5),), {})),
    "retries": (
        6,
        lambda random: (tasks.retries, (random.randint(1, 2), random.choice((0, 0.3))), {}),
    ),
    "later": (6, _later),
    "linked": (8, lambda _: (tasks.quick, (), {"link": True})),
    "large": (3, lambda random: (tasks.large, ("x" * random.randint(20_000, 300_000),), {})),
    "fails": (3, lambda _: (tasks.fails, (), {})),
    "rejects": (1, lambda _: (tasks.rejects, (), {})),
    "once": (5, lambda random: (tasks.once, (random.uniform(0, 0.2),), {})),
    "overruns": (1, lambda _: (tasks.overruns, (), {})),
    "dies": (1, lambda random: (tasks.dies, (random.randint(1, 2), random.choice(_WAYS)), {})),
    "dies_always": (1, lambda random: (tasks.dies_always, (random.choice(_WAYS),), {})),
}


class Mix:
    """Chooses calls.

    :param text: ``name=share,...``; empty for all kinds.
    :raises ImproperlyConfigured: a name is unknown.
    """

    def __init__(self, text: str, random: Random) -> None:
        self._random = random
        shares = {name: share for name, (share, _) in KINDS.items()}
        if text:
            shares = {}
            for part in text.split(","):
                name, _, share = part.strip().partition("=")
                if name not in KINDS or not (share or "1").isdigit():
                    raise ImproperlyConfigured(
                        f"{part!r} is not of the form name=share, with a name of: "
                        + ", ".join(KINDS)
                    )
                shares[name] = int(share or 1)
        self._names = list(shares)
        self._shares = list(shares.values())

    def next(self) -> Call:
        """The next call."""
        name = self._random.choices(self._names, self._shares)[0]
        return KINDS[name][1](self._random)
