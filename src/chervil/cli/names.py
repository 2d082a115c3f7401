"""Names of nodes, and the %-abbreviations in them and in paths, as Celery has them."""

from __future__ import annotations

import os
import re

_ABBREVIATION = re.compile(r"%(.)")
DEFAULT_NAME = "chervil"
#: Environment variable of a worker under ``--reload``: the file into which it writes
#: what it has loaded.
RELOAD_REPORT = "CHERVIL_RELOAD_REPORT"


def host_name() -> str:
    """This machine's name."""
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "local")


def expand(pattern: str, keys: dict[str, str]) -> str:
    """Replace ``%x`` by ``keys['x']`` and ``%%`` by ``%``.

    :raises ValueError: an abbreviation is not in ``keys``.
    """

    def value(match: re.Match[str]) -> str:
        letter = match[1]
        if letter == "%":
            return "%"
        try:
            return keys[letter]
        except KeyError:
            known = ", ".join(f"%{k}" for k in keys)
            raise ValueError(
                f"%{letter} in {pattern!r} means nothing here (known: {known}, %%)"
            ) from None

    return _ABBREVIATION.sub(value, pattern)


def node_name(hostname: str | None, host: str | None = None) -> str:
    """The full name ``name@host`` of a node.

    :param hostname: value of ``-n``: ``name``, ``name@host`` or ``@host``, with
        ``%h`` the host, ``%n`` its first part and ``%d`` its domain.
    :param host: this machine's name, found out when None.
    :raises ValueError: an unknown abbreviation.
    """
    host = host or host_name()
    short, _, domain = host.partition(".")
    name, at, on = (hostname or "").partition("@")
    if at and not on:
        on = host
    pattern = f"{name or DEFAULT_NAME}@{on or host}"
    return expand(pattern, {"h": host, "n": short, "d": domain})


def node_path(pattern: str, node: str) -> str:
    """A log or pid file's path: ``%n`` and ``%h`` are the node's name and host,
    ``%p`` both, ``%d`` the domain; ``%i`` and ``%I`` are empty or 0, as in the
    parent process of Celery.

    :raises ValueError: an unknown abbreviation.
    """
    name, _, host = node.partition("@")
    domain = host.partition(".")[2]
    keys = {"n": name, "h": host, "p": node, "d": domain, "i": "0", "I": ""}
    return os.path.expanduser(expand(pattern, keys))
