"""From the value of ``-A`` to the app.

``hello``            the app in module ``hello``
``hello.app``        that attribute of module ``hello``, or the app in module ``hello.app``
``proj``             a package: also looked for in ``proj.app``, ``proj.celery``, ``proj.chervil``
``module:attribute`` exactly that

In a module the app is its attribute ``app`` or ``celery``, or its only
instance of :class:`~chervil.app.Chervil`.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from types import ModuleType
from typing import IO, Any

import click

from chervil.app import Chervil
from chervil.exceptions import ChervilError

#: Attributes that are looked at first, in this order.
ATTRIBUTES = ("app", "celery")
#: Submodules of a package in which its app may be.
SUBMODULES = ("app", "celery", "chervil")

#: The folder of this package.
_OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


class AppNotFound(click.ClickException):
    """The value of ``-A`` does not lead to an app; the message says why."""

    exit_code = 2


class AppBroken(click.ClickException):
    """The module was found, but its own code failed; shows that traceback."""

    def __init__(self, name: str, error: BaseException) -> None:
        self.error = error
        reason = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        super().__init__(f"importing {name} failed: {reason}")

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(user_traceback(self.error), file=file, err=file is None, nl=False)
        super().show(file)


def enter_workdir(workdir: str | None) -> None:
    """Change to the directory, if one is given, and make its modules importable."""
    if workdir is not None:
        try:
            os.chdir(workdir)
        except OSError as exc:
            raise click.UsageError(f"--workdir {workdir!r}: {exc.strerror}") from exc
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def find_app(name: str) -> Chervil:
    """The app that ``name`` leads to; the working directory is on ``sys.path``.

    :raises AppNotFound: there is no such module, attribute or app.
    :raises AppBroken: importing the module raised an error.
    """
    if "/" in name or (name.endswith(".py") and os.path.exists(name)):
        dotted = name.removesuffix(".py").strip("./").replace("/", ".")
        raise AppNotFound(f"-A takes a module, not a file: try -A {dotted}")
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        module = _import(module_name)
        if module is None:
            raise _no_module(name, module_name)
        return _checked(_attribute(module, attribute), f"{module_name}:{attribute}")
    module = _import(name)
    if module is not None:
        return _in_module(module)
    parent, _, attribute = name.rpartition(".")
    module = _import(parent) if parent else None
    if module is None:
        raise _no_module(name, name)
    found = _attribute(module, attribute)
    return _in_module(found) if isinstance(found, ModuleType) else _checked(found, name)


def _import(name: str) -> ModuleType | None:
    """The module; None when there is none of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            return None
        raise AppBroken(name, exc) from exc
    except (ValueError, TypeError) as exc:
        if not name or name.startswith("."):
            raise AppNotFound(f"{name!r} is not the name of a module") from exc
        raise AppBroken(name, exc) from exc
    except (Exception, SystemExit) as exc:
        raise AppBroken(name, exc) from exc


@contextmanager
def importing(what: str) -> Iterator[None]:
    """Errors of the user's code that is imported in the block are shown as such.

    :raises AppBroken: any of them, except those that this package raises for
        wrong settings.
    """
    try:
        yield
    except ChervilError:
        raise
    except (Exception, SystemExit) as exc:
        raise AppBroken(what, exc) from exc


def import_user_module(name: str, option: str) -> None:
    """Import a module of the user's that an option names.

    :raises AppNotFound: there is none of that name.
    :raises AppBroken: importing it raised an error.
    """
    if _import(name) is None:
        raise AppNotFound(f"{option} {name}: no module {name!r} in {os.getcwd()} or on sys.path")


def _attribute(module: ModuleType, path: str) -> object:
    value: object = module
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise AppNotFound(_no_attribute(module, path)) from None
    return value


def _no_attribute(module: ModuleType, path: str) -> str:
    found = instances(module)
    if found:
        return f"module {module.__name__!r} has no attribute {path!r}; its apps: " + ", ".join(
            f"-A {module.__name__}:{name}" for name in found
        )
    close = get_close_matches(path, vars(module), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"module {module.__name__!r} ({_where(module)}) has no attribute {path!r}{hint}"


def instances(module: ModuleType) -> list[str]:
    """Names of the apps in a module, each app once."""
    seen: dict[int, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, Chervil):
            seen.setdefault(id(value), name)
    return list(seen.values())


def _in_module(module: ModuleType) -> Chervil:
    found = _search(module)
    looked = [module.__name__]
    if found is None and hasattr(module, "__path__"):
        for part in SUBMODULES:
            name = f"{module.__name__}.{part}"
            looked.append(name)
            submodule = _import(name)
            found = _search(submodule) if submodule is not None else None
            if found is not None:
                break
    if found is not None:
        return found
    for attribute in ATTRIBUTES:
        other = getattr(module, attribute, None)
        if other is not None and not isinstance(other, ModuleType):
            return _checked(other, f"{module.__name__}:{attribute}")
    raise AppNotFound(
        f"there is no app in module {module.__name__!r} ({_where(module)}). Looked for an "
        f"attribute 'app' or 'celery', or any Chervil instance, in: {', '.join(looked)}. "
        "Define one: app = Chervil('name')"
    )


def _search(module: ModuleType) -> Chervil | None:
    for attribute in ATTRIBUTES:
        value = getattr(module, attribute, None)
        if isinstance(value, Chervil):
            return value
        if isinstance(value, ModuleType) and value is not module:
            for inner in ATTRIBUTES:
                candidate = getattr(value, inner, None)
                if isinstance(candidate, Chervil):
                    return candidate
    names = instances(module)
    if len(names) > 1:
        choices = ", ".join(f"-A {module.__name__}:{name}" for name in names)
        raise AppNotFound(f"module {module.__name__!r} has {len(names)} apps; say which: {choices}")
    return getattr(module, names[0]) if names else None


def _checked(value: object, name: str) -> Chervil:
    if isinstance(value, Chervil):
        return value
    kind = type(value)
    if kind.__module__.partition(".")[0] == "celery":
        raise AppNotFound(
            f"{name!r} is an app of Celery; for Chervil define it with "
            "'from chervil import Chervil as Celery'"
        )
    raise AppNotFound(
        f"{name!r} is not an app but a {kind.__module__}.{kind.__qualname__}; "
        "-A must lead to an instance of chervil.Chervil"
    )


def _no_module(name: str, module: str) -> AppNotFound:
    top = module.partition(".")[0]
    here = [
        entry.removesuffix(".py")
        for entry in os.listdir()
        if entry.endswith(".py") or os.path.exists(os.path.join(entry, "__init__.py"))
    ]
    close = get_close_matches(top, here, n=1)
    found = candidates()
    if top in here:
        hint = f"{top!r} is there, but {module!r} is not in it."
    elif close:
        hint = f"Did you mean {close[0]!r}?"
    elif found:
        hint = f"Modules here that define an app: {', '.join(found)}."
    else:
        hint = "No module here defines an app; is this the right directory (--workdir)?"
    return AppNotFound(f"-A {name}: no module {module!r} in {os.getcwd()} or on sys.path. {hint}")


def candidates(limit: int = 200) -> list[str]:
    """Modules of the working directory whose text seems to define an app."""
    found = []
    for entry in sorted(os.listdir())[:limit]:
        if entry.endswith(".py") and _mentions_app(entry):
            found.append(entry[:-3])
        elif os.path.exists(os.path.join(entry, "__init__.py")) and any(
            _mentions_app(os.path.join(entry, f"{part}.py")) for part in ("__init__", *SUBMODULES)
        ):
            found.append(entry)
    return found


def _mentions_app(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(100_000)
    except OSError:
        return False
    return "chervil" in text and ("Chervil(" in text or "Celery(" in text)


def _where(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "a namespace package: a folder without __init__.py"


def user_traceback(error: BaseException) -> str:
    """The traceback without the frames of this package and of importlib."""
    summary = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = summary
    while part is not None:
        kept = [f for f in part.stack if not _is_ours(f.filename)]
        part.stack = traceback.StackSummary.from_list(kept)
        part = part.__cause__ or part.__context__
    return "".join(summary.format())


def _is_ours(filename: str) -> bool:
    return (
        filename.startswith((_OURS, "<frozen importlib"))
        or f"importlib{os.sep}__init__.py" in filename
    )
