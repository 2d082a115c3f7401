"""How many messages a node may claim now.

A node claims what its free slots can start at once, and a surplus that keeps
them busy until the next claim arrives: as much as the measured run times say
will be begun within ``AHEAD_SECONDS``. Long tasks therefore leave no surplus, so
that what this node cannot start soon is left to others.
"""

from __future__ import annotations

#: Work that may wait on the run queue, in seconds.
AHEAD_SECONDS = 0.02
#: No more than this many, however short the tasks are.
MOST_AHEAD = 512
#: What a task costs an executor beside its own run time, in seconds.
_OVERHEAD_SECONDS = 0.00003
#: Run time that is assumed after the surplus has had to be given back, in seconds.
_SLOW_SECONDS = 1.0


class Appetite:
    """Measures run times and says how many messages may be in flight.

    :param slots: how many tasks run at a time.
    :param multiplier: the surplus is at most this many times the slots; 0: no such limit.
    """

    def __init__(self, slots: int, multiplier: float = 0.0) -> None:
        self._slots = slots
        self._most = MOST_AHEAD
        if multiplier:
            # Celery's meaning: so many messages a slot, the running one included.
            self._most = min(MOST_AHEAD, int(slots * max(multiplier - 1, 0)))
        self._mean: float | None = None
        self.allowed = slots

    def ran(self, total: float, count: int) -> None:
        """``count`` tasks ended that ran ``total`` seconds together."""
        mean = total / count
        if self._mean is None:
            self._mean = mean
        else:
            self._mean += (mean - self._mean) * min(1.0, count * 0.05)
        ahead = AHEAD_SECONDS * self._slots / (self._mean + _OVERHEAD_SECONDS)
        self.allowed = self._slots + min(self._most, int(ahead))

    def resize(self, slots: int) -> None:
        """Another number of tasks runs at a time from now on."""
        self._slots = self.allowed = slots

    def waited(self) -> None:
        """The surplus had to be given back: tasks are longer than they were."""
        self._mean = max(self._mean or 0.0, _SLOW_SECONDS)
        self.allowed = self._slots
