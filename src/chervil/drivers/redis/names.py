"""Names of keys: kombu's for what Celery shares, ``_chervil.*`` for what is ours.

The layout is written down in ``common.lua`` (source of kombu's names: celery/kombu
``kombu/transport/redis.py`` and ``kombu/transport/virtual/base.py``).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from typing import Final

from chervil.drivers.contracts import Queue
from chervil.drivers.redis.location import Location
from chervil.exceptions import ImproperlyConfigured

#: What kombu takes a priority for that is larger (``kombu/transport/virtual/base.py``).
_LARGEST_PRIORITY: Final = 9
RESULTS: Final = "celery-task-meta-"


class Names:
    """The names at one location."""

    def __init__(self, location: Location) -> None:
        self.prefix = location.global_keyprefix
        self._sep = location.sep
        self._steps = location.priority_steps
        #: What is put behind a queue's name for each priority step, first served first.
        self.suffixes = [f"{self._sep}{step}" if step else "" for step in self._steps]
        #: Behind those the list for what only our workers can do.
        self.suffixes.append(f"{self._sep}chervil")
        self._lists: dict[tuple[str, int], bytes] = {}
        self._channels = location.fanout_prefix.replace("{db}", str(location.db))
        self._keyed = location.fanout_patterns

    def list_of(self, queue: str, priority: int) -> bytes:
        """The list that a message of that priority goes to.

        As on Celery's Redis transport it is that of the largest step that is not above
        the priority, and the smallest steps are served first.
        """
        key = self._lists.get((queue, priority))
        if key is None:
            if len(self._lists) > 10_000:  # names made up at run time
                self._lists.clear()
            among = max(0, min(priority, _LARGEST_PRIORITY))
            suffix = self.suffixes[bisect(self._steps, among) - 1]
            key = self._lists[queue, priority] = self.key(self.check(queue) + suffix)
        return key

    def lists_of(self, queue: str) -> list[bytes]:
        """All lists of a queue: the inner one, then those for the priorities in their order."""
        return [self.inner_list(queue)] + [
            self.key(self.check(queue) + suffix) for suffix in self.suffixes[:-1]
        ]

    def inner_list(self, queue: str) -> bytes:
        """The list of a queue that Celery's workers do not read."""
        return self.key(self.check(queue) + self.suffixes[-1])

    def key(self, name: str) -> bytes:
        """The key of that name."""
        return (self.prefix + name).encode()

    def channel(self, exchange: str, key: str = "") -> bytes:
        """The channel on which an exchange tells all."""
        name = self._channels + exchange
        return self.key(f"{name}/{key}" if key and self._keyed else name)

    def binding(self, routing_key: str, queue: str) -> str:
        """How a queue that is bound with this key is entered in its exchange's table."""
        return self._sep.join((routing_key, "", queue))

    def bound_to(self, member: bytes, routing_key: str) -> str | None:
        """The queue of such an entry, if it is bound with that key."""
        parts = member.decode("utf-8", "replace").split(self._sep)
        return parts[2] if len(parts) == 3 and parts[0] == routing_key else None

    def own(self, name: str) -> bytes:
        """A key of ours."""
        return f"{self.prefix}_chervil.{name}".encode()

    def delayed(self, queue: str) -> bytes:
        """The set of a queue's delayed messages."""
        return self.own(f"delayed.{queue}")

    @staticmethod
    def check(queue: str) -> str:
        """The name of a queue, if it can be one.

        :raises ImproperlyConfigured: it cannot.
        """
        try:
            queue.encode()
        except UnicodeEncodeError as exc:
            raise ImproperlyConfigured(f"{queue!r} cannot be the name of a queue: {exc}") from None
        if not queue:
            raise ImproperlyConfigured("the name of a queue cannot be empty")
        return queue

    def bindings(self, queues: Iterable[Queue]) -> list[Sequence[bytes | str]]:
        """The commands that tell kombu which queues a named exchange sends to.

        Messages for the default exchange need none.
        """
        commands: list[Sequence[bytes | str]] = []
        for queue in queues:
            if not queue.exchange or queue.exchange_type == "fanout":
                continue
            routing_key = queue.routing_key or queue.name
            pattern = _pattern(routing_key) if queue.exchange_type == "topic" else ""
            member = self._sep.join((routing_key, pattern, queue.name))
            for table in ("_kombu.binding.", "_kombu.binding_permanent."):
                if table.endswith("permanent.") and "x-expires" in queue.queue_arguments:
                    continue
                commands.append(("SADD", self.key(table + queue.exchange), member))
        return commands


def result_prefix(location: Location) -> bytes:
    """What comes before the task id in the key of a result.

    Celery's result backend, unlike kombu, puts an underscore behind the prefix unless it
    ends with a separator (``celery/backends/base.py``).
    """
    prefix = location.global_keyprefix
    if prefix and prefix[-1] not in ":_-.":
        prefix += "_"
    return (prefix + RESULTS).encode()


def group_prefix(location: Location) -> bytes:
    """What comes before the id in the keys of a group."""
    return result_prefix(location)[: -len(RESULTS)] + b"celery-taskset-meta-"


def _pattern(routing_key: str) -> str:
    """The regular expression that kombu keeps for a topic (``virtual/exchange.py``)."""
    words = {"*": r".*?[^\.]", "#": r".*?"}
    parts = (words.get(word) or _escaped(word) for word in routing_key.split("."))
    return "^" + r"\.".join(parts) + "$"


def _escaped(word: str) -> str:
    return "".join(c if c.isalnum() or c in "#*" else f"\\{c}" for c in word)
