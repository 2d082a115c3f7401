"""Where a database is and how it is to be used: the URL and its options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from chervil.exceptions import ImproperlyConfigured

#: OFF is not offered: a power cut could then damage the file, not only its last commits.
_SYNCHRONOUS = ("NORMAL", "FULL", "EXTRA")


class Location(msgspec.Struct, frozen=True):
    """A database file and its options."""

    #: Absolute, with symbolic links resolved: one file has one name.
    path: str
    #: ``PRAGMA synchronous``: NORMAL survives the death of any process, and a power
    #: cut may take the last commits; FULL waits for the disk at each commit
    #: (https://www.sqlite.org/pragma.html#pragma_synchronous).
    synchronous: str = "NORMAL"
    #: Seconds to wait for other writers before giving up.
    busy_timeout: float = 5.0
    #: Page cache of one connection, in KiB.
    cache_size: int = 8192


def parse(url: str, options: Mapping[str, Any]) -> Location:
    """Read ``sqlite:///relative/path.db?option=value``; four slashes for absolute paths.

    Relative paths are taken from the present working directory, now.

    :param options: the same as in the URL's query, which wins.
    :raises ImproperlyConfigured: the URL, an option's name or its value is wrong.
    """
    address, _, query = url.partition("?")
    given: dict[str, Any] = {**options, **dict(parse_qsl(query, keep_blank_values=True))}
    checked = {name: _option(url, name, value) for name, value in given.items()}
    return Location(path=os.path.realpath(_path(url, address)), **checked)


def _path(url: str, address: str) -> str:
    _, _, rest = address.partition(":")
    if rest.strip("/") in ("", ":memory:", "memory:"):
        raise ImproperlyConfigured(
            f"{url!r} names no file: write sqlite:///name.db (relative) or "
            f"sqlite:////dir/name.db (absolute); for a broker inside this process, memory://"
        )
    if not rest.startswith("///"):
        raise ImproperlyConfigured(
            f"{url!r} needs three slashes before a relative path and four before an "
            f"absolute one: sqlite:///{rest.lstrip('/')}"
        )
    path = unquote(rest[3:])
    if "\0" in path:
        raise ImproperlyConfigured(f"{url!r}: a file name cannot contain a NUL character")
    if path.endswith("/") or os.path.isdir(path):
        raise ImproperlyConfigured(f"{url!r} names a directory; add the name of a file")
    return path


def _option(url: str, name: str, value: Any) -> Any:
    check = _OPTIONS.get(name)
    if check is None:
        close = get_close_matches(name, _OPTIONS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ImproperlyConfigured(
            f"unknown option {name!r} for {url!r}{hint} (known: {', '.join(sorted(_OPTIONS))})"
        )
    try:
        return check(value)
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"option {name!r} for {url!r}: {exc}") from None


def _synchronous(value: Any) -> str:
    text = str(value).upper()
    if text not in _SYNCHRONOUS:
        raise ValueError(f"{value!r} is none of {', '.join(_SYNCHRONOUS)}")
    return text


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no number of seconds") from None
    if not 0 <= seconds <= 3600:
        raise ValueError(f"{value!r} is not between 0 and 3600 seconds")
    return seconds


def _kibibytes(value: Any) -> int:
    try:
        size = int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no whole number of KiB") from None
    if not 64 <= size <= 4_194_304:
        raise ValueError(f"{value!r} is not between 64 and 4194304 KiB")
    return size


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "synchronous": _synchronous,
    "busy_timeout": _seconds,
    "cache_size": _kibibytes,
}
