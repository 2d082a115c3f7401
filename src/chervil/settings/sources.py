"""Where settings come from: objects, modules and the environment."""

from __future__ import annotations

import datetime as dt
import importlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from chervil.exceptions import ChervilWarning, ImproperlyConfigured
from chervil.settings.celery_only import CELERY_ONLY, modern_name
from chervil.settings.table import SETTINGS

#: Where the files of this package are.
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_FAMILIES = tuple(
    sorted({f"{name.partition('_')[0]}_" for name in (*SETTINGS, *CELERY_ONLY) if "_" in name})
)
_PLAIN = (str, bytes, bool, int, float, list, tuple, set, frozenset, Mapping, dt.timedelta)
_CODE = (ModuleType, type, FunctionType, BuiltinFunctionType, MethodType)


class UnknownSetting(ImproperlyConfigured, AttributeError, KeyError):
    """There is no setting of this name."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown(name: str, remedy: str = "") -> UnknownSetting:
    """The error for a name that is in no table."""
    if modern := modern_name(name):
        return UnknownSetting(
            f"{name!r} is an old name of Celery's; write {modern!r}{remedy}", name=name
        )
    close = get_close_matches(name.lower(), SETTINGS, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return UnknownSetting(f"there is no setting {name!r}{hint}{remedy}", name=name)


def import_object(name: str) -> Any:
    """The module or object of a dotted name: "pkg.mod", "pkg.mod:attr", "pkg.mod.attr".

    :raises ModuleNotFoundError: no module of this name.
    :raises AttributeError: the module has no such attribute.
    """
    module, colon, path = name.partition(":")
    if not colon:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as exc:
            module, _, path = module.rpartition(".")
            if not module or not (exc.name and name.startswith(exc.name)):
                raise
    found: Any = importlib.import_module(module)
    for attribute in path.split("."):
        found = getattr(found, attribute)
    return found


def load(source: Any, silent: bool = False) -> Any:
    """The object that a dotted name stands for; other objects as they are.

    :param silent: return None when there is no such module.
    :raises ImproperlyConfigured: it cannot be imported.
    """
    if not isinstance(source, str):
        return source
    try:
        return import_object(source)
    except (ModuleNotFoundError, AttributeError, ValueError) as exc:
        missing = getattr(exc, "name", None)
        ours = not isinstance(exc, ModuleNotFoundError) or (
            missing is not None and f"{source}.".replace(":", ".").startswith(f"{missing}.")
        )
        if silent and ours:
            return None
        raise ImproperlyConfigured(
            f"cannot import the settings {source!r}: {exc} (write 'package.module' or "
            "'package.module:attribute'; the package must be on the module search path)"
        ) from exc


def items(source: Any) -> Iterator[tuple[str, Any]]:
    """The public names of a mapping, module, class or object with their values."""
    if isinstance(source, Mapping):
        yield from ((str(name), value) for name, value in source.items())
        return
    for name in dir(source):
        if not name.startswith("_"):
            try:
                yield name, getattr(source, name)
            except AttributeError:
                continue  # a property that has nothing to say


def read_object(source: Any, namespace: str | None = None) -> dict[str, Any]:
    """The settings that an object holds, by their names in the tables.

    Without a namespace, a mapping may hold nothing else. Modules, classes and
    objects may also hold code, private names, upper-case names that Celery never
    had, and objects that are no plain data under names unlike a setting's.

    :param namespace: take only names that start with this and an underscore, such
        as ``CELERY`` in Django's settings.
    :raises ImproperlyConfigured: a name is wrong.
    """
    found = dict(items(source))
    if namespace:
        return _read_namespace(found, namespace)
    settings: dict[str, Any] = {}
    for name, value in found.items():
        if name in SETTINGS or name in CELERY_ONLY:
            settings[name] = value
        elif name.isupper():
            modern = modern_name(name)
            if (modern and modern not in found) or isinstance(source, Mapping):
                raise unknown(name, " in lower case, or pass namespace='CELERY'" if modern else "")
        elif isinstance(source, Mapping):
            raise unknown(name)
        elif not _is_helper(name, value):
            raise unknown(name, "; start the names of helpers with an underscore")
    return settings


def _is_helper(name: str, value: Any) -> bool:
    """Whether that is code or an object of the module's own and not a misspelt setting."""
    if isinstance(value, _CODE):
        return True
    return not isinstance(value, _PLAIN) and not name.startswith(_FAMILIES)


def _read_namespace(found: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    prefix = f"{namespace.rstrip('_')}_"
    settings: dict[str, Any] = {}
    for name, value in found.items():
        rest = name[len(prefix) :].lower()
        if name.startswith(prefix) and (rest in SETTINGS or rest in CELERY_ONLY):
            settings[rest] = value
            continue
        modern = modern_name(name) if name.isupper() else None
        if modern:
            new = prefix + (modern.upper() if prefix.isupper() else modern)
            if new not in found:
                raise ImproperlyConfigured(f"{name!r} is an old name of Celery's; write {new!r}")
        elif name.startswith(prefix):
            close = get_close_matches(rest, SETTINGS, n=1)
            new = prefix + (close[0].upper() if prefix.isupper() else close[0]) if close else ""
            hint = f"; did you mean {new!r}?" if new else ""
            raise UnknownSetting(f"there is no setting {name!r}{hint}", name=name)
    return settings


def read_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The texts of the variables ``CHERVIL_<NAME>``, by setting.

    Other variables that begin so may belong to anybody (Kubernetes makes some for a
    service called ``chervil``), so that they warn only if they look like a mistake.
    """
    texts: dict[str, str] = {}
    for variable in environ:
        if variable.startswith("CHERVIL_"):
            name = variable[8:].lower()
            if name in SETTINGS:
                texts[name] = environ[variable]
            elif close := get_close_matches(name, SETTINGS, n=1, cutoff=0.85):
                warnings.warn(
                    f"environment variable {variable} is not a setting; did you mean "
                    f"CHERVIL_{close[0].upper()}?",
                    ChervilWarning,
                    stacklevel=3,
                )
    return texts


def _outside() -> int:
    """The stacklevel, for who called this, of the innermost line outside of this package."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    return level


def warn_no_effect(names: Iterable[str]) -> None:
    """One warning for each reason why some of Celery's settings have no effect."""
    stacklevel = _outside()
    reasons: dict[str, list[str]] = {}
    for name in names:
        reasons.setdefault(CELERY_ONLY[name].why, []).append(name)
    for why, which in reasons.items():
        verb = "has" if len(which) == 1 else "have"
        warnings.warn(
            f"{', '.join(which)} {verb} no effect because {why}",
            ChervilWarning,
            stacklevel=stacklevel,
        )
