"""``chervil.current_app`` and ``chervil.current_task``: objects that stand for others.

They can be imported once and always mean the app, or the task, that is current
where they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import chervil.app as _app  # the default app can be made
from chervil import context

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.task import Task

__all__ = ["current_app", "current_task"]


class Proxy:
    """Passes everything on to the object that a function returns."""

    __slots__ = ("_find",)

    def __init__(self, find: Callable[[], Any]) -> None:
        object.__setattr__(self, "_find", find)

    def _get_current_object(self) -> Any:
        return object.__getattribute__(self, "_find")()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._get_current_object())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get_current_object()(*args, **kwargs)

    def __bool__(self) -> bool:
        return bool(self._get_current_object())

    def __eq__(self, other: object) -> bool:
        return bool(self._get_current_object() == other)

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())


#: The app of this thread, or the default app.
current_app = cast("Chervil", Proxy(context.current_app))
#: The task that runs in this thread or coroutine; false where none does.
current_task = cast("Task[Any, Any]", Proxy(context.current_task))

_ = _app
