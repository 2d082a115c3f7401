"""The result of a task that ran in the process that called it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from chervil import clock, states
from chervil.joining import assert_may_block
from chervil.result import AsyncResult

if TYPE_CHECKING:
    from chervil.app import Chervil

R = TypeVar("R")


class EagerResult(AsyncResult[R]):
    """The result of a task that ran in this process, by ``apply`` or ``task_always_eager``."""

    __slots__ = ()

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        ret_value: R | BaseException,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
        app: Chervil | None = None,
    ) -> None:
        super().__init__(id, None, name, app)
        self._meta: dict[str, Any] = {
            "status": state,
            "result": ret_value,
            "traceback": traceback,
            "task_id": id,
            "children": [],
            "date_done": dt.datetime.fromtimestamp(clock.now(), dt.UTC),
        }

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, R], object] | None = None,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """The result, at once; the parameters are those of :meth:`AsyncResult.get`."""
        if disable_sync_subtasks:
            assert_may_block(self.app.conf.task_always_eager)
        return self._deliver(propagate, callback)

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, R], object] | None = None,
        on_message: Callable[[dict[str, Any]], object] | None = None,
    ) -> R:
        """The result, at once."""
        return self._deliver(propagate, callback)

    def ready(self) -> bool:
        """True: it ran already."""
        return True

    def forget(self) -> None:
        """Nothing was stored."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Too late; only the state changes."""
        self._meta["status"] = states.REVOKED

    def __copy__(self) -> EagerResult[R]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        meta = self._meta
        return type(self), (
            self.id,
            meta["result"],
            meta["status"],
            meta["traceback"],
            self.task_name,
        )

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"
