"""Messages that wait in the broker until they are due.

Whole seconds are waited in the queues of kombu's native delayed delivery: the queue
``celery_delayed_n`` keeps a message for 2\\ :sup:`n` seconds, and the 28 binary digits in
front of a routing key say in which of them a message stays (form of the topology:
celery/kombu ``kombu/transport/native_delayed_delivery.py``). It is declared as kombu does,
so that both can use it; but the last word of a routing key of ours belongs to one queue
only, which is bound with it, so that it works for all exchange types and no other queue
gets a copy.

What is left below a second is waited first, in a queue for each 25 ms. Such a queue goes
when nobody has declared it for ten minutes; who sends there declares it every minute.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from chervil import clock
from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.location import Location

#: Levels, and so binary digits.
LEVELS: Final = 28
#: Most seconds; who is due later comes up then, and is sent back for the rest.
LONGEST: Final = (1 << LEVELS) - 1
_FIRST: Final = f"celery_delayed_{LEVELS - 1}"
#: Where messages come out.
DELIVERY: Final = "celery_delayed_delivery"
#: Milliseconds between the queues for parts of a second.
_STEP: Final = 25
_UNUSED_MS: Final = 600_000
_DECLARE_AGAIN: Final = 60.0

Call = tuple[Any, ...]


def topology(location: Location) -> list[Call]:
    """The calls that declare all levels, the same as kombu's."""
    calls: list[Call] = []
    for level in range(LEVELS - 1, -1, -1):
        name = _level(level)
        below = _level(level - 1) if level else DELIVERY
        calls += [
            _exchange(name),
            (
                m.QUEUE_DECLARE,
                name,
                False,
                True,
                False,
                False,
                False,
                _waiting(location, (1 << level) * 1000, below),
            ),
            (m.QUEUE_BIND, name, name, _digits(level, "1"), False, {}),
        ]
    calls.append(_exchange(DELIVERY))
    for level in range(LEVELS - 1, -1, -1):
        below = _level(level - 1) if level else DELIVERY
        calls.append((m.EXCHANGE_BIND, below, _level(level), _digits(level, "0"), False, {}))
    return calls


def _level(level: int) -> str:
    return f"celery_delayed_{level}"


def _digits(level: int, digit: str) -> str:
    """The pattern of keys that have that digit at a level."""
    return "*." * (LEVELS - 1 - level) + digit + ".#"


def _exchange(name: str) -> Call:
    return (m.EXCHANGE_DECLARE, name, "topic", False, True, False, False, False, {})


def _waiting(location: Location, milliseconds: int, then: str) -> dict[str, Any]:
    """Arguments of a queue in which messages wait that long, and then go there."""
    arguments: dict[str, Any] = {
        "x-queue-type": location.delayed_queue_type,
        "x-overflow": "reject-publish",
        "x-message-ttl": milliseconds,
        "x-dead-letter-exchange": then,
    }
    if location.delayed_queue_type == "quorum":
        # It goes on to the next only when it is stored there.
        arguments["x-dead-letter-strategy"] = "at-least-once"
    return arguments


def word(queue: str) -> str:
    """The last word of a routing key that leads to a queue and to no other."""
    return "chervil~" + queue.replace("%", "%25").replace(".", "%2E")


def binding(queue: str) -> Call:
    """The call by which a queue gets what was delayed for it."""
    return (m.QUEUE_BIND, queue, DELIVERY, f"#.{word(queue)}", False, {})


class Delays:
    """Knows what is declared, and what is still to be.

    Belongs to one broker object; shared by its threads, which at worst declare twice.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._declared = False
        self._bound: set[str] = set()
        #: Milliseconds -> monotonic time of the last declaration.
        self._steps: dict[int, float] = {}

    def address(self, queue: str, delay: float) -> tuple[str, str]:
        """Exchange and routing key for a message that waits that many seconds."""
        seconds, step = _split(delay)
        digits = ".".join(f"{seconds:0{LEVELS}b}")
        exchange = _step_name(step) if step else _FIRST
        return exchange, f"{digits}.{word(queue)}"

    def missing(self, queues: Iterable[str], delays: Iterable[float]) -> list[Call]:
        """The calls without which messages for these queues would not arrive."""
        calls: list[Call] = []
        if not self._declared:
            calls += topology(self._location)
        calls += [binding(queue) for queue in queues if queue not in self._bound]
        now = clock.monotonic()
        for step in {_split(delay)[1] for delay in delays}:
            if step and now - self._steps.get(step, -_UNUSED_MS) > _DECLARE_AGAIN:
                calls += self._step(step)
        return calls

    def done(self, queues: Iterable[str], delays: Iterable[float]) -> None:
        """What :meth:`missing` said was carried out."""
        self._declared = True
        self._bound.update(queues)
        now = clock.monotonic()
        for step in {_split(delay)[1] for delay in delays}:
            if now - self._steps.get(step, -_UNUSED_MS) > _DECLARE_AGAIN:
                self._steps[step] = now

    def forget(self) -> None:
        """Something is not there any more: declare all of it again when it is needed."""
        self._declared = False
        self._bound.clear()
        self._steps.clear()

    def _step(self, step: int) -> list[Call]:
        name = _step_name(step)
        arguments = _waiting(self._location, step, _FIRST) | {"x-expires": _UNUSED_MS}
        return [
            (m.EXCHANGE_DECLARE, name, "fanout", False, True, True, False, False, {}),
            (m.QUEUE_DECLARE, name, False, True, False, False, False, arguments),
            (m.QUEUE_BIND, name, name, "", False, {}),
        ]


def _step_name(step: int) -> str:
    return f"chervil.delayed.{step}ms"


def _split(delay: float) -> tuple[int, int]:
    """Whole seconds, and milliseconds in steps; together never less than the delay."""
    if delay >= LONGEST:
        return LONGEST, 0
    seconds = int(delay)
    step = math.ceil((delay - seconds) * 1000 / _STEP) * _STEP
    return (seconds + 1, 0) if step == 1000 else (seconds, step)
