"""How long to wait before the next attempt."""

from __future__ import annotations

#: Doubling more often than this is pointless, and overflows floats at 1,024.
_MOST_DOUBLINGS = 64


def exponential_backoff(
    factor: float, retries: int, maximum: float, full_jitter: bool = False
) -> float:
    """The delay before retry number ``retries``: ``factor * 2 ** retries`` seconds.

    Whole numbers give whole numbers, as Celery's ``retry_backoff`` does.

    :param factor: seconds before the first retry.
    :param retries: how many retries there were already.
    :param maximum: never more seconds than this.
    :param full_jitter: choose evenly between 0 and the delay instead, so that tasks
        that failed together do not come back together. See
        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    delay = min(maximum, factor * (1 << max(0, min(retries, _MOST_DOUBLINGS))))
    if delay <= 0:
        return 0
    if full_jitter:
        import random  # costs 2 ms, and most clients never need it

        if isinstance(delay, int):
            return random.randrange(delay + 1)
        return random.uniform(0, delay)
    return delay


class Backoff:
    """Growing delays between attempts to reach something.

    :param base: seconds after the first failure.
    :param cap: never more seconds than this.
    :param jitter: the share of each delay that is left to chance, from 0 (none)
        to 1 (all of it).
    :raises ValueError: an argument is out of range.
    """

    __slots__ = ("attempts", "base", "cap", "jitter")

    def __init__(self, base: float = 0.1, cap: float = 10.0, jitter: float = 0.5) -> None:
        if base <= 0 or cap < base:
            raise ValueError(f"need 0 < base <= cap, not base={base!r}, cap={cap!r}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be between 0 and 1, not {jitter!r}")
        self.base = base
        self.cap = cap
        self.jitter = jitter
        #: How many delays were given out since the last :meth:`reset`.
        self.attempts = 0

    def next(self) -> float:
        """Seconds to wait now."""
        delay = float(exponential_backoff(self.base, self.attempts, self.cap))
        self.attempts += 1
        if self.jitter:
            import random

            delay -= delay * self.jitter * random.random()
        return delay

    def reset(self) -> None:
        """The last attempt succeeded: start over."""
        self.attempts = 0
