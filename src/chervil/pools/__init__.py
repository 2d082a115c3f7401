"""How an executor process runs tasks: one file a pool.

``prefork``, ``threads`` and ``asyncio`` are functions of a
:class:`~chervil.pools.seat.Seat`; ``solo`` runs in the hub itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from chervil.exceptions import ImproperlyConfigured

#: Names of the pools whose executors are processes, and their modules.
_POOLS = {
    "prefork": "chervil.pools.prefork",
    "threads": "chervil.pools.threads",
    "asyncio": "chervil.pools.asyncio",
}
_ALIASES = {"processes": "prefork", "thread": "threads", "aio": "asyncio"}
_KNOWN = (*_POOLS, "solo")
#: Of Celery's; what they are used for goes with others.
_NOT_YET = ("gevent", "eventlet")


def pool_name(name: str) -> str:
    """The pool's own name for a name or alias.

    :raises ImproperlyConfigured: there is no such pool.
    """
    name = _ALIASES.get(name, name)
    if name in _NOT_YET:
        raise ImproperlyConfigured(
            f"the {name} pool is not in this version of Chervil; for tasks that wait for the "
            "network use threads, or asyncio with 'async def' tasks"
        )
    if name not in _KNOWN:
        close = get_close_matches(name, _KNOWN, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ImproperlyConfigured(f"unknown pool {name!r}{hint} (known: {', '.join(_KNOWN)})")
    return name


def pool_function(name: str) -> Callable[[Any], None]:
    """The function that runs an executor of that pool."""
    run: Callable[[Any], None] = importlib.import_module(_POOLS[name]).run
    return run
