"""Noticing a node that could work and does not.

Two things are looked at, both without the connection that the hub waits on: whether
messages wait while the node has room and gets none (a wake-up was lost, a connection is
half open), and whether the hub's loop goes round at all.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol

from chervil.drivers.contracts import Broker

logger = logging.getLogger("chervil.worker")

#: Seconds between looks at the queues of an idle node.
_LOOK_SECONDS = 8.0
#: Seconds between looks while messages seem to wait for it.
_SUSPICIOUS_SECONDS = 1.0
#: How often in a row messages must be seen to wait: others may be about to take them.
_SEEN = 2
#: And how often until the consumer is given up.
_GIVE_UP = 7
#: Seconds that one turn of the hub may take before it is said.
_TURN_SECONDS = 30.0


class Loop(Protocol):
    """What is looked at: the hub."""

    #: Monotonic seconds since when there is room and nothing was claimed; None: it is not so.
    idle_since: float | None
    #: Monotonic seconds of the last turn.
    beat: float
    #: The ``get_ident()`` of the loop's thread.
    thread: int


class Watchdog:
    """Looks after one hub; not in the hub's thread.

    :param wake: makes the hub look for messages.
    :param reopen: has it replace its consumer, if it holds nothing; False when it does.
    :param turns: whether the loop is expected to go round (it runs no tasks itself).
    """

    def __init__(
        self,
        hub: Loop,
        broker: Broker,
        queues: Sequence[str],
        wake: Callable[[], None],
        reopen: Callable[[], bool],
        *,
        turns: bool,
    ) -> None:
        self._hub = hub
        self._broker = broker
        self._queues = queues
        self._wake = wake
        self._reopen = reopen
        self._turns = turns
        #: Since when it has been idle; and when the queues are looked at again.
        self._since: float | None = None
        self._next = 0.0
        #: How often in a row messages were waiting.
        self._seen = 0
        self._said_at = 0.0

    def look(self, now: float) -> None:
        """Compare what the hub does with what there is.

        :param now: monotonic seconds.
        :raises OperationalError: the broker does not say what there is.
        """
        if self._turns:
            self._look_at_loop(now)
        since = self._hub.idle_since
        if since is None or since != self._since:
            if self._seen >= _SEEN and since is not None:
                logger.info("This node gets messages again")
            self._since, self._next, self._seen = since, now + _LOOK_SECONDS, 0
            return
        if now < self._next:
            return
        self._next = now + _LOOK_SECONDS
        ready = sum(depth.ready for depth in self._broker.depths(self._queues).values())
        if not ready or self._hub.idle_since != since:
            self._seen = 0
            return
        self._next = now + _SUSPICIOUS_SECONDS
        self._seen += 1
        if self._seen >= _SEEN:
            self._act(ready)

    def _act(self, ready: int) -> None:
        if self._seen == _SEEN:
            logger.warning(
                "This node has room and was not told that %d messages wait (queues: %s): a "
                "wake-up was lost; it looks by itself now",
                ready,
                ", ".join(self._queues),
            )
        elif self._seen % _GIVE_UP == 0:
            replaced = self._reopen()
            logger.error(
                "This node has room and still gets none of the %d messages that wait (queues: "
                "%s); %s",
                ready,
                ", ".join(self._queues),
                "it connects anew" if replaced else "it goes on looking while its tasks run",
            )
        self._wake()

    def _look_at_loop(self, now: float) -> None:
        stuck = now - self._hub.beat
        if stuck < _TURN_SECONDS or now - self._said_at < _TURN_SECONDS:
            return
        self._said_at = now
        frame = sys._current_frames().get(self._hub.thread)
        where = "".join(traceback.format_stack(frame)) if frame is not None else "it has ended"
        logger.error(
            "The worker's loop has been at one step for %.0f s: no task is started or finished "
            "here until it ends. It is at:\n%s",
            stuck,
            where,
        )
