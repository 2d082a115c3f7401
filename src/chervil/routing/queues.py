"""The queues that an app knows, and the way from exchanges and keys to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from chervil.drivers import contracts
from chervil.exceptions import ImproperlyConfigured, QueueNotFound
from chervil.routing.entities import Broadcast, Exchange, Queue, as_queue, binding, to_contract

if TYPE_CHECKING:
    from chervil.settings import Settings

_MOST_REMEMBERED = 1000


class Queues(Mapping[str, Queue]):
    """The queues of ``task_queues``, or else the default queue, by name.

    :raises ImproperlyConfigured: two of them contradict each other, or one is wrong.
    """

    def __init__(self, settings: Settings) -> None:
        default = settings.task_default_queue
        self._create = settings.task_create_missing_queues
        self._max_priority = settings.task_queue_max_priority
        self._default_key = settings.task_default_routing_key or default
        self.default_exchange = Exchange(
            settings.task_default_exchange or default, settings.task_default_exchange_type
        )
        #: Name of the queue that nothing else was said for.
        self.default = default
        self._queues: dict[str, Queue] = {}
        self._aliases: dict[str, Queue] = {}
        self._matches: dict[tuple[str, str], tuple[str, ...]] = {}
        for name, value in _declared(settings.task_queues):
            self._add(as_queue(name, value))
        if not self._queues:
            self._add(Queue(default, self.default_exchange, self._default_key))
        self._check_exchanges()

    def _add(self, queue: Queue) -> None:
        known = self._queues.get(queue.name)
        if known is not None and known != queue:
            raise ImproperlyConfigured(f"queue {queue.name!r} is twice in task_queues")
        queue = self._completed(queue)
        self._queues[queue.name] = queue
        if queue.alias:
            self._aliases[queue.alias] = queue

    def _completed(self, queue: Queue) -> Queue:
        """The same queue with everything that it leaves to the defaults."""
        done = object.__new__(type(queue))
        vars(done).update(vars(queue))
        if not done.bindings:
            named = done.exchange is not None and done.exchange.name
            done.routing_key = done.routing_key or (self._default_key if named else done.name)
            done.exchange = queue.exchange if named else self.default_exchange
        if self._max_priority is not None:
            done.queue_arguments = {"x-max-priority": self._max_priority, **done.queue_arguments}
        return done

    def _check_exchanges(self) -> None:
        types: dict[str, tuple[str, str]] = {}
        for queue in self._queues.values():
            for one in _bindings(queue):
                exchange = one.exchange or self.default_exchange
                kind, owner = types.setdefault(exchange.name, (exchange.type, queue.name))
                if kind != exchange.type:
                    raise ImproperlyConfigured(
                        f"exchange {exchange.name!r} is {kind!r} for queue {owner!r} and "
                        f"{exchange.type!r} for queue {queue.name!r}"
                    )

    # --- by name -----------------------------------------------------------------

    def __getitem__(self, name: str) -> Queue:
        """The queue of that name or alias, made up when that is allowed.

        :raises QueueNotFound: it is not in ``task_queues``, and
            ``task_create_missing_queues`` is off.
        """
        found = self._queues.get(name) or self._aliases.get(name)
        if found is not None:
            return found
        if not self._create:
            raise self._not_found(name)
        # Not remembered: names that callers make up would fill the memory.
        return self._completed(Queue(name, Exchange(name), name))

    def find(self, queue: str | Queue) -> Queue:
        """The queue of a name, or the one that was given, with its defaults filled in.

        :raises QueueNotFound: as for ``queues[name]``.
        """
        if isinstance(queue, str):
            return self[queue]
        if queue.name in self or not self._create:
            return self[queue.name]
        return self._completed(as_queue(queue.name, queue))

    def _not_found(self, name: str) -> QueueNotFound:
        close = get_close_matches(name, self._queues, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return QueueNotFound(
            f"there is no queue {name!r} in task_queues (known: {', '.join(self._queues)}){hint} "
            "Add it there, or switch task_create_missing_queues on."
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._queues)

    def __len__(self) -> int:
        return len(self._queues)

    def __contains__(self, name: object) -> bool:
        return name in self._queues or name in self._aliases

    # --- by exchange and key -------------------------------------------------------

    def exchange_type(self, exchange: str) -> str | None:
        """Type of an exchange that some queue is bound to; None when none is."""
        for queue in self._queues.values():
            for one in _bindings(queue):
                if one.exchange is not None and one.exchange.name == exchange:
                    return one.exchange.type
        return None

    def queues_for(self, exchange: str, routing_key: str) -> tuple[str, ...]:
        """The queues that a message of this address belongs into, as a broker's exchange
        would find them among the queues of this app; empty when there are none.

        In the default exchange ``""`` the key is the name of a queue.

        :raises QueueNotFound: in the default exchange, as for ``queues[name]``.
        """
        if not exchange:
            return (self[routing_key].name,)
        try:
            return self._matches[exchange, routing_key]
        except KeyError:
            pass
        found = tuple(
            queue.name
            for queue in self._queues.values()
            if not (isinstance(queue, Broadcast) and queue.private)
            and any(_leads(one, exchange, routing_key) for one in _bindings(queue))
        )
        if len(self._matches) >= _MOST_REMEMBERED:
            self._matches.clear()
        self._matches[exchange, routing_key] = found
        return found

    # --- for a worker -----------------------------------------------------------------

    def select(
        self, names: str | Iterable[str] | None = None, exclude: str | Iterable[str] | None = None
    ) -> list[contracts.Queue]:
        """The queues that a worker serves.

        :param names: those of ``-Q``, as a list or separated by commas; None: all.
        :param exclude: those of ``-X``.
        :raises QueueNotFound: a name is not known.
        :raises ImproperlyConfigured: none is left.
        """
        wanted = {queue.name: queue for queue in map(self.__getitem__, _split(names))}
        if not wanted:
            wanted = dict(self._queues)
        for name in _split(exclude):
            if name not in self and name not in wanted:
                raise ImproperlyConfigured(
                    f"cannot exclude queue {name!r}: it is not among {', '.join(wanted)}"
                )
            wanted.pop(self[name].name, None)
        if not wanted:
            raise ImproperlyConfigured(
                f"no queue is left to serve: {', '.join(_split(exclude))} excluded"
            )
        return [to_contract(queue) for queue in wanted.values()]


def _declared(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    else:
        yield from ((getattr(item, "name", item), item) for item in value or ())


def _bindings(queue: Queue) -> Iterable[Queue | binding]:
    return queue.bindings or (queue,)


def _split(names: str | Iterable[str] | None) -> list[str]:
    if names is None:
        return []
    parts = names.split(",") if isinstance(names, str) else list(names)
    return [part.strip() for part in parts if part.strip()]


def _leads(one: Queue | binding, exchange: str, routing_key: str) -> bool:
    if one.exchange is None or one.exchange.name != exchange:
        return False
    if one.exchange.type == "fanout":
        return True
    if one.exchange.type == "topic":
        return topic_matches(one.routing_key, routing_key)
    return one.routing_key == routing_key


def topic_matches(pattern: str, key: str) -> bool:
    """Whether a topic exchange's pattern matches a routing key.

    Words are separated by dots; ``*`` is one word, ``#`` any number of them, also
    none (AMQP 0-9-1, section 3.1.3.3).
    """
    # Every word brings the dot before it, so that "#" can stand for none at all.
    words = {"*": r"(?:\.[^.]*)", "#": r"(?:\.[^.]*)*"}
    text = "".join(words.get(word, r"\." + re.escape(word)) for word in pattern.split("."))
    return re.fullmatch(text, f".{key}" if key else "") is not None
