"""Exceptions as results carry them: class name, arguments, module.

``{"exc_type": qualified name, "exc_message": list of the arguments, "exc_module":
module}`` is Celery's form (source: celery/celery ``celery/backends/base.py``). The
errors of ``chervil.exceptions`` that Celery has too travel under Celery's modules, and
those modules' names always mean ours here, also when Celery is installed.

Reading looks for the class among the imported modules first and then imports the
module that is named, so that ``except`` clauses see the class they know. Whoever can
write results can thereby have any importable module imported (not called); pass
``import_modules=False`` to look at imported modules only, as Celery does. Only classes
of exceptions are ever called.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import sys
from typing import Any, ClassVar, Final

from chervil import exceptions
from chervil.exceptions import ChervilError, EncodeError, SecurityError, TaskError
from chervil.wire import serializers
from chervil.wire.saferepr import saferepr

_CELERY: Final = "celery.exceptions"
_BILLIARD: Final = "billiard.exceptions"
_OURS: Final = "chervil.exceptions"
#: Names that exist in both packages, and where Celery keeps them.
_SHARED: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "AlreadyRegistered",
            "BackendError",
            "BackendGetMetaError",
            "ChordError",
            "Ignore",
            "ImproperlyConfigured",
            "InvalidTaskError",
            "MaxRetriesExceededError",
            "NotRegistered",
            "QueueNotFound",
            "Reject",
            "Retry",
            "SecurityError",
            "TaskError",
            "TaskPredicate",
            "TaskRevokedError",
            "TimeoutError",
            "WorkerShutdown",
            "WorkerTerminate",
        ),
        _CELERY,
    ),
    **dict.fromkeys(
        ("SoftTimeLimitExceeded", "Terminated", "TimeLimitExceeded", "WorkerLostError"), _BILLIARD
    ),
}
#: Modules that do something to the user when imported.
_NOT_IMPORTED: Final = frozenset({"antigravity", "this", "idlelib", "turtledemo", "test"})


class RemoteError(ChervilError):
    """Stands in for an exception whose class cannot be found in this process.

    Each one is of a class of its own, which has the name of the original. An error of
    this kind that becomes a result again keeps the original's name and module.
    """

    #: Module and qualified name of the original.
    exc_module: ClassVar[str | None] = None
    exc_type: ClassVar[str] = "RemoteError"

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (self.exc_module, self.exc_type, self.args)


@functools.lru_cache(maxsize=1024)
def stand_in(module: str | None, qualname: str) -> type[RemoteError]:
    """The class that stands in for that one; the same for the same names."""
    name = qualname.rpartition(".")[2]
    if not name.isidentifier():
        name = "RemoteError"
    return type(
        name,
        (RemoteError,),
        {
            "__module__": _OURS,
            "__doc__": "Stands in for an exception that cannot be imported here.",
            "exc_module": module,
            "exc_type": qualname,
        },
    )


def _revive(module: str | None, qualname: str, args: tuple[Any, ...]) -> RemoteError:
    return stand_in(module, qualname)(*args)


# --- writing ----------------------------------------------------------------------------------


def exception_to_dict(exc: BaseException, serializer: str = "json") -> dict[str, Any]:
    """The map for a result; every exception has one, also when its class misbehaves.

    Arguments that the serializer refuses are replaced by their ``repr``.
    """
    module, qualname = _wire_name(exc)
    try:
        args = list(exc.args)
    except Exception:
        args = []
    try:
        serializers.dumps(args, serializer)
    except EncodeError:
        args = [acceptable(each, serializer) for each in args]
    return {"exc_type": qualname, "exc_message": args, "exc_module": module}


def _wire_name(exc: BaseException) -> tuple[str | None, str]:
    cls = type(exc)
    if issubclass(cls, RemoteError):
        return cls.exc_module, cls.exc_type
    module, qualname = cls.__module__, cls.__qualname__
    if module == _OURS:
        module = _SHARED.get(qualname, _OURS)
    return (module if isinstance(module, str) else None), qualname


def acceptable(value: Any, serializer: str) -> Any:
    """The value, or its text where the serializer refuses it."""
    try:
        serializers.dumps(value, serializer)
    except EncodeError:
        return saferepr(value)
    return value


def exception_for_pickle(exc: BaseException) -> Any:
    """The exception itself where pickle brings it back; else the map.

    Ours go as maps too, because Celery's processes cannot import their classes.
    """
    if type(exc).__module__ != _OURS:
        try:
            data = serializers.dumps(exc, "pickle")[2]
            back = serializers.loads(data, "application/x-python-serialize", "binary")
        except Exception:
            pass  # It, or something in it, pickles or unpickles only with an error.
        else:
            if type(back) is type(exc) and _texts(back) == _texts(exc):
                return exc
    return exception_to_dict(exc, "pickle")


def _texts(exc: BaseException) -> list[str | None]:
    """Tells a class that builds its message twice, when it is made of its own ``args``."""
    try:
        return [each if type(each) is str else None for each in exc.args]
    except Exception:
        return []


# --- reading ------------------------------------------------------------------------------------


def exception_from_dict(found: Any, import_modules: bool = True) -> BaseException:
    """The exception that a result holds; never raises.

    An original whose class cannot be found becomes a :class:`RemoteError`; what names
    something else than an exception becomes a :class:`~chervil.exceptions.SecurityError`;
    what is no exception map becomes a :class:`~chervil.exceptions.TaskError` that says so.

    :param import_modules: import the named module if it is not imported yet.
    """
    if isinstance(found, BaseException):
        return found
    if not isinstance(found, dict) or not isinstance(found.get("exc_type"), str):
        return _unexplained(found)
    qualname = found["exc_type"]
    module = found.get("exc_module")
    if not isinstance(module, str):
        module = None
    message = found.get("exc_message")
    if message is None:
        args: tuple[Any, ...] = ()
    else:
        args = tuple(message) if isinstance(message, (list, tuple)) else (message,)
    cls = _find(module, qualname, import_modules)
    if cls is None:
        return stand_in(module, qualname)(*args)
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):
        return SecurityError(
            f"the result names {module}.{qualname} as its exception, which is none "
            f"(arguments: {saferepr(args, 120)})"
        )
    return _make(cls, module, qualname, args)


def _unexplained(found: Any) -> TaskError:
    if found is None:
        return TaskError("the task failed; its result does not say with which exception")
    if isinstance(found, str):
        return TaskError(found)
    return TaskError(f"the task failed; its result holds no exception but {saferepr(found, 200)}")


def _find(module: str | None, qualname: str, import_modules: bool) -> Any:
    """The object of that name; None when there is none."""
    if module in (_CELERY, _BILLIARD, _OURS) and (qualname in _SHARED or module == _OURS):
        ours = getattr(exceptions, qualname, None)
        if isinstance(ours, type) and ours.__module__ == _OURS:
            return ours
    if module is None:
        return getattr(builtins, qualname, None) if qualname.isidentifier() else None
    found = sys.modules.get(module)
    if found is None and import_modules:
        found = _import(module)
    try:
        for name in qualname.split("."):
            found = getattr(found, name)
    except Exception:
        return None
    return found


_failed: set[str] = set()


def _import(module: str) -> Any:
    parts = module.split(".")
    if module in _failed or parts[0] in _NOT_IMPORTED or parts[-1] == "__main__":
        return None
    if not all(part.isidentifier() for part in parts):
        return None
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit):
        # Looked for once only: failing takes longer than all the rest.
        if len(_failed) >= 256:
            _failed.clear()
        _failed.add(module)
        return None


def _make(
    cls: type[BaseException], module: str | None, qualname: str, args: tuple[Any, ...]
) -> BaseException:
    """An instance, made by the class if it takes its own ``args``, past it if not."""
    try:
        made = cls(*args)
    except Exception:
        try:
            made = cls.__new__(cls, *args)
        except Exception:
            return stand_in(module, qualname)(*args)
    if not isinstance(made, BaseException):
        return stand_in(module, qualname)(*args)
    try:
        # A class that builds its message from other arguments would build it twice.
        if made.args != args:
            made.args = args
    except Exception:
        return stand_in(module, qualname)(*args)
    return made
