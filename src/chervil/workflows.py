"""What an app has for workflows: their classes, their results, saved groups."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from chervil import clock, resultsets
from chervil.calls import note_child
from chervil.canvas.freezing import Node
from chervil.result import AsyncResult
from chervil.resultsets import result_from_tuple
from chervil.wire import serializers

if TYPE_CHECKING:
    from chervil.drivers.contracts import ResultStore
    from chervil.settings import Settings


class Workflows:
    """Part of :class:`chervil.app.Chervil`."""

    if TYPE_CHECKING:

        @property
        def conf(self) -> Settings: ...
        @property
        def backend(self) -> ResultStore: ...
        @property
        def address(self) -> str: ...
        @property
        def tasks(self) -> Any: ...

    def GroupResult(
        self,
        id: str | None = None,  # noqa: A002
        results: Any = (),
        parent: Any = None,
    ) -> resultsets.GroupResult[Any]:
        """The results of a group, by the group's id."""
        return resultsets.GroupResult(id, results, parent, self)  # type: ignore[arg-type]

    def ResultSet(self, results: Any = ()) -> resultsets.ResultSet[Any]:
        """Several results as one."""
        return resultsets.ResultSet(results, self)  # type: ignore[arg-type]

    def result_of(self, node: Node, ignored: Collection[str] = ()) -> Any:
        """The result that a plan says there will be, with those of the steps before.

        :param ignored: ids of tasks whose results nobody keeps.
        """
        found: list[Any] = []
        at: Node | None = node
        while at is not None:
            found.append(self._one_result(at, ignored))
            at = at.parent
        for result, parent in pairwise(found):
            result.parent = parent
        return found[0]

    def _one_result(self, node: Node, ignored: Collection[str]) -> Any:
        if node.members is not None:
            members = [self.result_of(member, ignored) for member in node.members]
            return resultsets.GroupResult(node.id, members, app=self)  # type: ignore[arg-type]
        result: AsyncResult[Any] = AsyncResult(node.id, None, node.task, self)  # type: ignore[arg-type]
        result._sent_from = self.address
        task = self.tasks.get(node.task)
        result.ignored = node.id in ignored or (task is not None and task.ignore_result)
        return result

    def note_child(self, result: Any) -> None:
        """Remember something as sent by the task that is running, if one is."""
        note_child(self, result)  # type: ignore[arg-type]

    def result_from_tuple(self, value: Any) -> Any:
        """The result that an ``as_tuple`` described."""
        return result_from_tuple(value, self)  # type: ignore[arg-type]

    # --- groups that are saved

    def save_group(self, group: resultsets.GroupResult[Any]) -> None:
        """Store which results belong to a group, as Celery does."""
        conf = self.conf
        data = serializers.dumps({"result": group.as_tuple()}, conf.result_serializer)[2]
        expires = clock.now() + conf.result_expires if conf.result_expires else 0.0
        self.backend.put_group(group.id or "", data, expires)

    def restore_group(self, group_id: str) -> resultsets.GroupResult[Any] | None:
        """What :meth:`save_group` stored; None when nothing was."""
        payload = self.backend.get_group(group_id)
        if payload is None:
            return None
        (content_type,) = serializers.accept_types([self.conf.result_serializer])
        found = serializers.loads(payload, content_type, "utf-8", None)
        group: resultsets.GroupResult[Any] = result_from_tuple(found["result"], self)  # type: ignore[arg-type]
        return group

    def delete_group(self, group_id: str) -> None:
        """Delete what :meth:`save_group` stored."""
        self.backend.forget_group(group_id)
