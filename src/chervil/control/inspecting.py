"""Asking nodes what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from chervil.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from chervil.app import Chervil


class Inspect:
    """Questions to nodes; each returns ``{"name@host": answer}``, None when nobody answered.

    Where ``destination`` is one name, it is that node's answer alone.
    """

    def __init__(
        self,
        destination: Sequence[str] | str | None = None,
        timeout: float = 1.0,
        callback: Callable[[dict[str, Any]], object] | None = None,
        connection: object = None,
        app: Chervil | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        if app is None:
            raise ImproperlyConfigured("an Inspect needs its app: use app.control.inspect()")
        self.app = app
        self.destination = destination
        self._options: dict[str, Any] = {
            "timeout": timeout,
            "callback": callback,
            "limit": limit,
            "pattern": pattern,
            "matcher": matcher,
        }

    def _request(self, command: str, **arguments: Any) -> Any:
        replies = self.app.control.broadcast(
            command, arguments, self.destination, reply=True, **self._options
        )
        by_node: dict[str, Any] = {}
        for reply in replies or ():
            by_node.update(reply)
        if isinstance(self.destination, str):
            return by_node.get(self.destination)
        return by_node or None

    def report(self) -> Any:
        """Versions and settings."""
        return self._request("report")

    def clock(self) -> Any:
        """Logical clocks."""
        return self._request("clock")

    def active(self, safe: bool | None = None) -> Any:
        """The tasks that run; ``safe``: texts instead of arguments."""
        return self._request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Delayed tasks that workers hold: only Celery's do."""
        return self._request("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:
        """The tasks that were taken and have not begun."""
        return self._request("reserved")

    def stats(self) -> Any:
        """Figures."""
        return self._request("stats")

    def revoked(self) -> Any:
        """The ids of revoked tasks."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """The tasks that nodes know, with these of their options."""
        return self._request("registered", taskinfoitems=list(taskinfoitems))

    registered_tasks = registered

    def ping(self, destination: Sequence[str] | str | None = None) -> Any:
        """Which nodes are there."""
        if destination:
            self.destination = destination
        return self._request("ping")

    def active_queues(self) -> Any:
        """The queues that nodes take from."""
        return self._request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """What nodes have of these tasks."""
        wanted = ids[0] if len(ids) == 1 and isinstance(ids[0], (list, tuple)) else ids
        return self._request("query_task", ids=list(wanted))

    def conf(self, with_defaults: bool = False) -> Any:
        """Settings, without secrets."""
        return self._request("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Sequence[str] | None = None) -> Any:
        """Exchange what was revoked, as starting nodes of Celery do."""
        return self._request("hello", from_node=from_node, revoked=list(revoked or ()))

    def memsample(self) -> Any:
        """Memory that the nodes' processes use."""
        return self._request("memsample")

    def dead_letters(self) -> Any:
        """How many messages of each queue a node put into the dead-letter queue since it
        started. Celery's workers do not know this."""
        return self._request("dead_letters")

    def memdump(self, samples: int = 10) -> Any:
        """The same, over time."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:  # noqa: A002
        """A picture of objects, of workers of Celery."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)
