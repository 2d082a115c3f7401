"""``shared_task``: tasks of libraries, which do not know the app that will have them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from chervil.context import current_app
from chervil.decorators import TaskDecorator, from_function

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.task import Task

_shared: list[SharedTask] = []
_finalized: weakref.WeakSet[Chervil] = weakref.WeakSet()


class SharedTask:
    """Stands for the task that the current app has made of a function."""

    def __init__(self, fun: Callable[..., Any], options: Mapping[str, Any]) -> None:
        set_own = super().__setattr__
        set_own("_fun", fun)
        set_own("_options", dict(options))
        set_own("_tasks", weakref.WeakKeyDictionary())
        set_own("__wrapped__", fun)
        set_own("__doc__", getattr(fun, "__doc__", None))
        set_own("__module__", getattr(fun, "__module__", __name__))

    if TYPE_CHECKING:
        _fun: Callable[..., Any]
        _options: dict[str, Any]
        _tasks: weakref.WeakKeyDictionary[Chervil, Task[Any, Any]]

    def make(self, app: Chervil) -> Task[Any, Any]:
        """The task of one app, made when it is not there yet."""
        task = self._tasks.get(app)
        if task is None:
            task = self._tasks[app] = from_function(app, self._fun, self._options)
        return task

    def _get_current_object(self) -> Task[Any, Any]:
        return self.make(current_app())

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._get_current_object())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get_current_object()(*args, **kwargs)

    def __reduce__(self) -> Any:
        return self._get_current_object().__reduce__()

    def __or__(self, other: Any) -> Any:
        return self._get_current_object() | other

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._get_current_object()

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())


def shared_tasks() -> list[SharedTask]:
    """All that were defined, in their order."""
    return list(_shared)


def _share(fun: Callable[..., Any], options: Mapping[str, Any]) -> SharedTask:
    shared = SharedTask(fun, options)
    _shared.append(shared)
    for app in list(_finalized):
        shared.make(app)
    return shared


def note_finalized(app: Chervil) -> None:
    """Remember an app that has its shared tasks, so that it gets later ones at once."""
    _finalized.add(app)


def _shared_task(fun: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task for every app, also for those that do not exist yet.

    Options are those of :meth:`chervil.app.Chervil.task`. Using the task means that
    of the current app.
    """
    if fun is None:
        return lambda fun: _share(fun, options)
    return _share(fun, options)


shared_task = cast("TaskDecorator", _shared_task)
