"""Chervil: a distributed task queue. Celery's API and wire format on a new engine.

::

    from chervil import Chervil

    app = Chervil("hello")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.delay(2, 3).get()

Names are imported when they are first used, so that ``import chervil`` is quick.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chervil.app import Chervil as Chervil
    from chervil.canvas.maps import chunks as chunks
    from chervil.canvas.maps import xmap as xmap
    from chervil.canvas.maps import xstarmap as xstarmap
    from chervil.canvas.primitives import chain as chain
    from chervil.canvas.primitives import chord as chord
    from chervil.canvas.primitives import group as group
    from chervil.canvas.signature import Signature as Signature
    from chervil.canvas.signature import maybe_signature as maybe_signature
    from chervil.canvas.signature import signature as signature
    from chervil.canvas.signature import subtask as subtask
    from chervil.eager import EagerResult as EagerResult
    from chervil.joining import allow_join_result as allow_join_result
    from chervil.proxies import current_app as current_app
    from chervil.proxies import current_task as current_task
    from chervil.result import AsyncResult as AsyncResult
    from chervil.resultsets import GroupResult as GroupResult
    from chervil.resultsets import ResultSet as ResultSet
    from chervil.routing import Broadcast as Broadcast
    from chervil.routing import Exchange as Exchange
    from chervil.routing import Queue as Queue
    from chervil.shared import shared_task as shared_task
    from chervil.task import AsyncTask as AsyncTask
    from chervil.task import Task as Task

__version__ = "0.1.0"

#: Where each public name is defined.
_HOMES = {
    "Chervil": "chervil.app",
    "shared_task": "chervil.shared",
    "Task": "chervil.task",
    "AsyncTask": "chervil.task",
    "AsyncResult": "chervil.result",
    "EagerResult": "chervil.eager",
    "allow_join_result": "chervil.joining",
    "GroupResult": "chervil.resultsets",
    "ResultSet": "chervil.resultsets",
    "chain": "chervil.canvas.primitives",
    "chord": "chervil.canvas.primitives",
    "group": "chervil.canvas.primitives",
    "chunks": "chervil.canvas.maps",
    "xmap": "chervil.canvas.maps",
    "xstarmap": "chervil.canvas.maps",
    "Signature": "chervil.canvas.signature",
    "signature": "chervil.canvas.signature",
    "maybe_signature": "chervil.canvas.signature",
    "subtask": "chervil.canvas.signature",
    "Queue": "chervil.routing",
    "Exchange": "chervil.routing",
    "Broadcast": "chervil.routing",
    "current_app": "chervil.proxies",
    "current_task": "chervil.proxies",
}

__all__ = [
    "AsyncResult",
    "AsyncTask",
    "Broadcast",
    "Chervil",
    "EagerResult",
    "Exchange",
    "GroupResult",
    "Queue",
    "ResultSet",
    "Signature",
    "Task",
    "__version__",
    "allow_join_result",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "group",
    "maybe_signature",
    "shared_task",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]


#: Names of Celery's that mean nothing yet.
_NOT_YET = frozenset({"abstract", "bootsteps"})


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        if name not in _NOT_YET:
            raise AttributeError(f"module 'chervil' has no attribute {name!r}")
        text = f"Celery's {name!r} is not in this version of Chervil"
        # "from chervil import chain" would replace an AttributeError by one of its own.
        if sys._getframe(1).f_code.co_name == "_handle_fromlist":
            raise ImportError(text, name="chervil")
        raise AttributeError(text, name=name, obj=sys.modules[__name__])
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
