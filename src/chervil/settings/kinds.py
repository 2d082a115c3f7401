"""The kinds of values that settings take.

A :class:`Kind` checks a value that code gave and reads one from the text of an
environment variable. Both return what is to be kept, or raise ``ValueError`` with
what would have been right; the caller adds the setting's name and the value.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from typing import Any


class Kind:
    """What values a setting takes.

    :param label: for people: "whole number of at least 1".
    :param annotation: for type checkers: "int | None".
    """

    __slots__ = ("annotation", "check", "label", "parse")

    def __init__(
        self,
        label: str,
        annotation: str,
        check: Callable[[Any], Any],
        parse: Callable[[str], Any],
    ) -> None:
        self.label = label
        self.annotation = annotation
        self.check = check
        self.parse = parse


# --- numbers ----------------------------------------------------------------------

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
_NOTHING = frozenset({"", "none", "null"})
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)"


def _check_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if type(value) is int and value in (0, 1):
        return bool(value)
    raise ValueError("True or False")


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise ValueError("true or false (also 1/0, yes/no, on/off)")


BOOL = Kind("True or False", "bool", _check_bool, _parse_bool)


def integer(minimum: int | None = None) -> Kind:
    """Whole numbers, from ``minimum`` on."""
    label = "whole number" if minimum is None else f"whole number of at least {minimum}"

    def check(value: Any) -> int:
        if type(value) is not int or (minimum is not None and value < minimum):
            raise ValueError(f"a {label}")
        return value

    def parse(text: str) -> int:
        try:
            return check(int(text.strip().replace("_", "")))
        except ValueError:
            raise ValueError(f"a {label}") from None

    return Kind(label, "int", check, parse)


def seconds(minimum: float = 0, exclusive: bool = False) -> Kind:
    """A length of time: a number of seconds or a ``timedelta``; kept as seconds."""
    bound = "more than" if exclusive else "at least"
    label = f"seconds, {bound} {minimum:g}"
    expected = f"{label}, as a number or a timedelta"

    def check(value: Any) -> float:
        if isinstance(value, dt.timedelta):
            value = value.total_seconds()
            value = int(value) if value == int(value) else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(expected)
        if not minimum <= value < float("inf") or (exclusive and value == minimum):
            raise ValueError(expected)
        return value

    def parse(text: str) -> float:
        text = text.strip().lower()
        if unit := re.fullmatch(_DURATION, text):
            number = float(unit[1]) * _UNITS[unit[2]]
        else:
            try:
                number = float(text)
            except ValueError:
                raise ValueError(f"{label}, such as 90, 1.5, 30s, 5m, 2h or 1d") from None
        return check(int(number) if number.is_integer() else number)

    return Kind(label, "float", check, parse)


# --- text -------------------------------------------------------------------------


def _check_text(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise ValueError("text that is not empty")


TEXT = Kind("text", "str", _check_text, lambda text: _check_text(text.strip()))


def choice(*values: str | int, aliases: Mapping[Any, Any] | None = None) -> Kind:
    """One of some values.

    :param aliases: other spellings of them.
    """
    annotation = "int" if isinstance(values[0], int) else "str"
    label = "one of " + ", ".join(map(repr, values))
    allowed = {value: value for value in values} | dict(aliases or {})

    def check(value: Any) -> Any:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise ValueError(label)
        if value not in allowed:
            raise ValueError(label)
        return allowed[value]

    def parse(text: str) -> Any:
        text = text.strip()
        return check(int(text) if text.isdigit() and annotation == "int" else text)

    return Kind(label, annotation, check, parse)


_RATE = r"\d+(\.\d+)?(/[smh])?"


def _check_rate(value: Any) -> str | float:
    if isinstance(value, str) and re.fullmatch(_RATE, value.strip()):
        return value.strip()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("tasks per second as a number, or text such as '10/s', '100/m' or '5/h'")


RATE = Kind("rate such as '10/s', '100/m', '5/h'", "str | float", _check_rate, _check_rate)


def _check_timezone(value: Any) -> str | dt.tzinfo:
    if isinstance(value, dt.tzinfo):
        return value
    expected = "the name of a time zone, such as 'Europe/Berlin' or 'UTC', or a tzinfo"
    if not isinstance(value, str):
        raise ValueError(expected)
    if value.upper() != "UTC":
        import zoneinfo

        try:
            zoneinfo.ZoneInfo(value)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            raise ValueError(f"{expected}, that is installed here") from None
    return value


TIMEZONE = Kind("name of a time zone", "str | tzinfo", _check_timezone, _check_timezone)


# --- collections --------------------------------------------------------------------


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ValueError("a list of names")
    if not all(isinstance(name, str) and name for name in value):
        raise ValueError("a list of names, each of them text")
    return sorted(value) if isinstance(value, (set, frozenset)) else list(value)


NAMES = Kind("list of names", "list[str]", _names, _split)
MODULES = Kind(
    "list of modules",
    "tuple[str, ...]",
    lambda value: tuple(_names(value)),
    lambda text: tuple(_split(text)),
)


def from_json(text: str) -> Any:
    """What a JSON text says; for settings that need more than one word."""
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("JSON text") from None


def checked(label: str, annotation: str, check: Callable[[Any], Any]) -> Kind:
    """A kind with a check of its own, read from JSON in the environment."""
    return Kind(label, annotation, check, lambda text: check(from_json(text)))


def _check_options(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise ValueError("a dict whose keys are text")


OPTIONS = checked("dict", "dict[str, Any]", _check_options)


def optional(kind: Kind, empty: tuple[Any, ...] = (None,)) -> Kind:
    """The same, or nothing.

    :param empty: what else means nothing, besides None; kept as None.
    """
    nothing = _NOTHING | {str(value).lower() for value in empty}

    def check(value: Any) -> Any:
        if any(value is none or value == none for none in empty):
            return None
        try:
            return kind.check(value)
        except ValueError as exc:
            raise ValueError(f"{exc}, or None") from None

    def parse(text: str) -> Any:
        return None if text.strip().lower() in nothing else kind.parse(text)

    return Kind(f"{kind.label}, or None", f"{kind.annotation} | None", check, parse)
