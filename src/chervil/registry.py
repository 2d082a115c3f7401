"""The tasks that an app knows, by name, and how names are made."""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from types import FunctionType
from typing import TYPE_CHECKING, Any

from chervil.exceptions import AlreadyRegistered, NotRegistered

if TYPE_CHECKING:
    from chervil.task import Task

#: What multiprocessing calls the script's module in a spawned process.
_MAIN_NAMES = ("__main__", "__mp_main__")


class TaskRegistry(dict[str, "Task[Any, Any]"]):
    """A dict from name to task that says more when a name is missing."""

    def __missing__(self, name: str) -> Task[Any, Any]:
        raise NotRegistered(self.unknown(name))

    def unknown(self, name: str) -> str:
        """A text that says that there is no such task, and which is like it."""
        close = get_close_matches(str(name), self, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return (
            f"no task {name!r} is registered here.{hint} "
            "Is the module that defines it imported (include=, imports, autodiscover_tasks)?"
        )

    def register(self, task: Task[Any, Any]) -> Task[Any, Any]:
        """Add a task; the one that is already there when it is the same function again.

        :raises AlreadyRegistered: another function or class has this name.
        """
        known = self.get(task.name)
        if known is None:
            self[task.name] = task
            return task
        if known is task or same_definition(source_of(known), source_of(task)):
            return known
        raise AlreadyRegistered(
            f"two tasks are named {task.name!r}: {_where(source_of(known))} and "
            f"{_where(source_of(task))}. Give one of them another name=."
        )

    def unregister(self, name: str | Task[Any, Any]) -> None:
        """Remove a task.

        :raises NotRegistered: it is not here.
        """
        key = name if isinstance(name, str) else name.name
        if self.pop(key, None) is None:
            raise NotRegistered(self.unknown(key))


def source_of(task: Task[Any, Any]) -> Any:
    """The function or class that a task was made from."""
    return getattr(task, "__wrapped__", None) or type(task)


def same_definition(one: Any, other: Any) -> bool:
    """Whether two functions or classes are the same piece of source, perhaps loaded twice."""
    if one is other:
        return True
    name = str(one.__qualname__)
    if _home(one) != _home(other) or name != other.__qualname__:
        return False
    if "<lambda>" in name:  # all lambdas of a module are called the same
        return bool(_line(one) == _line(other))
    return True


def _home(source: Any) -> str:
    return module_name(getattr(source, "__module__", None))


def _line(source: Any) -> Any:
    code = source.__code__ if isinstance(source, FunctionType) else None
    return (code.co_filename, code.co_firstlineno) if code else None


def _where(source: Any) -> str:
    line = _line(source)
    place = f" ({line[0]}:{line[1]})" if line else ""
    return f"{_home(source)}.{getattr(source, '__qualname__', source)}{place}"


def module_name(module: str | None) -> str:
    """A module's name; of a script, the name by which it could be imported.

    So a task in ``hello.py`` is ``hello.add`` both in ``python hello.py`` and in
    ``chervil -A hello worker``.
    """
    if module and module not in _MAIN_NAMES:
        return module
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in _MAIN_NAMES:  # python -m package.module
        return str(spec.name)
    path = getattr(main, "__file__", None)
    if not path:  # an interactive session
        return "__main__"
    return os.path.splitext(os.path.basename(str(path)))[0]


def gen_task_name(app_main: str | None, name: str, module: str | None) -> str:
    """The name of a task that was not given one: its module's and its function's.

    :param app_main: the first argument of ``Chervil``; stands for the module in
        tasks that a script defines, as in Celery.
    """
    if (not module or module in _MAIN_NAMES) and app_main:
        return f"{app_main}.{name}"
    return f"{module_name(module)}.{name}"
