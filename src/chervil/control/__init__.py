"""Remote control: asking nodes, telling them what to do, and cancelling tasks.

The names are Celery's (``app.control``), and so are requests and replies on the wire:
nodes of either kind answer clients of either kind. (Source of the forms: celery/kombu
``kombu/pidbox.py``, celery/celery ``celery/app/control.py``.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chervil import clock
from chervil.control.asking import Asking, Replies
from chervil.control.cancelling import REVOKES_KEPT, end_waiting, stamp_names
from chervil.control.inspecting import Inspect

if TYPE_CHECKING:
    from chervil.app import Chervil

__all__ = ["REVOKES_KEPT", "Control", "Inspect"]


class Control(Asking):
    """``app.control``: what an app can tell its nodes and ask them.

    All methods that tell something take besides, as keywords, ``destination`` (names of
    nodes; all when None), ``pattern`` and ``matcher`` (``glob`` or ``pcre``, instead),
    ``reply`` (wait for the answers and return them), ``timeout`` (seconds to wait for
    them), ``limit`` (so many answers are enough) and ``callback`` (called with each).
    """

    # --- cancelling

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | int = "SIGTERM",
        **kwargs: Any,
    ) -> Replies | None:
        """Make sure that tasks do not start any more; those that no node has are REVOKED
        at once.

        The broker remembers it for 30 days, so it holds for nodes that start later. Nodes
        are asked whether they run it; a node that does not answer costs one second.

        :param task_id: id of a task, or several.
        :param terminate: also end them where they run.
        :param signal: how, in pools of processes: ``SIGTERM`` interrupts the task and ends
            its process when that does not help, ``SIGKILL`` ends the process,
            ``SIGUSR1`` raises ``SoftTimeLimitExceeded`` in the task.
        :raises BrokerUnavailable: nothing was stored.
        """
        ids = [task_id] if isinstance(task_id, str) else list(dict.fromkeys(task_id))
        held = self.app.broker.revoke(ids, clock.now() + REVOKES_KEPT)
        arguments = {"task_id": task_id if isinstance(task_id, str) else ids}
        replies = self._tell(
            "revoke",
            {**arguments, "terminate": terminate, "signal": signal},
            destination,
            stored=held is not None,
            **kwargs,
        )
        if held is not None:
            end_waiting(self.app, [i for i in ids if i not in held], self._who_has)
        return replies

    def _who_has(self, ids: Sequence[str]) -> tuple[Replies, bool]:
        if not self.app.broker.features.fanout:
            return [], False
        return self.ask("query_task", {"ids": list(ids)})

    def terminate(
        self,
        task_id: str | Iterable[str],
        destination: Sequence[str] | None = None,
        signal: str | int = "SIGTERM",
        **kwargs: Any,
    ) -> Replies | None:
        """:meth:`revoke` with ``terminate=True``."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **kwargs)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str | int = "SIGTERM",
        **kwargs: Any,
    ) -> Replies | None:
        """Make sure that tasks do not start that carry one of these values of a stamp.

        The broker remembers it for 30 days.

        :param headers: names of stamps to a value, or to several.
        :raises BrokerUnavailable: nothing was stored.
        """
        held = self.app.broker.revoke(stamp_names(headers), clock.now() + REVOKES_KEPT)
        arguments = {"headers": dict(headers), "terminate": terminate, "signal": signal}
        stored = held is not None
        return self._tell(
            "revoke_by_stamped_headers", arguments, destination, stored=stored, **kwargs
        )

    # --- telling

    def ping(
        self, destination: Sequence[str] | None = None, timeout: float = 1.0, **kwargs: Any
    ) -> Replies:
        """Which nodes are there: ``[{"name@host": {"ok": "pong"}}, ...]``."""
        found = self.broadcast("ping", {}, destination, reply=True, timeout=timeout, **kwargs)
        return found or []

    def rate_limit(
        self,
        task_name: str,
        rate_limit: str | float | None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Set the rate limit of a task: ``"10/s"``, ``"5/m"``, ``"100/h"``; 0 for none."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", arguments, destination, **kwargs)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Set the time limits of a task, in seconds."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **kwargs)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Have nodes take from another queue, too."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", arguments, destination, **kwargs)

    def cancel_consumer(
        self, queue: str, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> Replies | None:
        """Have nodes take from a queue no longer."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **kwargs)

    def enable_events(
        self, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> Replies | None:
        """Have nodes send events of tasks."""
        return self.broadcast("enable_events", {}, destination, **kwargs)

    def disable_events(
        self, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> Replies | None:
        """Have nodes send no events of tasks."""
        return self.broadcast("disable_events", {}, destination, **kwargs)

    def heartbeat(self, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Have nodes send a heartbeat at once."""
        return self.broadcast("heartbeat", {}, destination, **kwargs)

    def election(
        self,
        id: str,  # noqa: A002
        topic: str,
        action: Any = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Hold an election among Celery's workers."""
        return self.broadcast(
            "election", {"id": id, "topic": topic, "action": action}, None, **kwargs
        )

    def pool_grow(
        self, n: int = 1, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> Replies | None:
        """Have nodes run more executor processes."""
        return self.broadcast("pool_grow", {"n": n}, destination, **kwargs)

    def pool_shrink(
        self, n: int = 1, destination: Sequence[str] | None = None, **kwargs: Any
    ) -> Replies | None:
        """Have nodes run fewer executor processes."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **kwargs)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Have nodes replace their executors."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", arguments, destination, **kwargs)

    def autoscale(
        self,
        max: int,  # noqa: A002
        min: int,  # noqa: A002
        destination: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Replies | None:
        """Set the bounds of autoscaling."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **kwargs)

    def shutdown(self, destination: Sequence[str] | None = None, **kwargs: Any) -> Replies | None:
        """Have nodes finish what they run and end. They do not answer."""
        return self.broadcast("shutdown", {}, destination, **kwargs)

    def purge(self, connection: object = None) -> int:
        """Delete all waiting messages of the app's queues; how many."""
        app = self.app
        return sum(app.broker.purge(queue.name) for queue in app.router.select(None, None))

    discard_all = purge

    # --- asking

    def inspect(
        self,
        destination: Sequence[str] | str | None = None,
        timeout: float = 1.0,
        callback: Callable[[dict[str, Any]], object] | None = None,
        connection: object = None,
        app: Chervil | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> Inspect:
        """Ask nodes: ``app.control.inspect().active()``."""
        return Inspect(
            destination, timeout, callback, connection, app or self.app, limit, pattern, matcher
        )
