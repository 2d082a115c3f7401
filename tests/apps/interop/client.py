"""A client that does what its standard input says, one JSON object a line.

``python -m tests.apps.interop.client celery`` (or ``chervil``) reads
``{"do": "t.add.delay(1, 2).get(timeout=9)", "with": {...}}`` and writes
``{"value": "3"}``, the value's ``repr``, or what was raised. The expressions are the same for
both sides, since the two have one API:

* ``app``, ``t``: the app and its tasks; ``on(**conf)`` makes others with other settings.
* ``sent``: results of what ``send(result)`` was called with, by id.
"""

from __future__ import annotations

import datetime as dt
import decimal
import importlib
import json
import os
import sys
import time
import traceback
import uuid
import zoneinfo
from types import SimpleNamespace
from typing import Any

sent: dict[str, Any] = {}


def send(result: Any) -> str:
    """Keep a result and tell its id."""
    sent[result.id] = result
    return str(result.id)


def described(result: Any) -> dict[str, Any]:
    """What can be told of a task that ended with an exception."""
    error = result.result
    return {
        "state": result.state,
        "class": type(error).__qualname__,
        "module": type(error).__module__,
        "args": getattr(error, "args", None),
        "traceback": result.traceback,
    }


def names_for(side: str) -> dict[str, Any]:
    """What expressions can use."""
    module = importlib.import_module(f"tests.apps.interop.on_{side}")

    made: dict[str, SimpleNamespace] = {}

    def on(**conf: Any) -> SimpleNamespace:
        key = repr(conf)
        if key not in made:
            app, tasks = module.make(**conf)
            made[key] = SimpleNamespace(app=app, t=tasks)
        return made[key]

    package = importlib.import_module(side)
    default = on()
    return {
        "app": default.app, "t": default.t, "on": on, "send": send, "sent": sent,
        "described": described, "package": package, "dt": dt, "time": time,
        "inf": float("inf"), "Decimal": decimal.Decimal, "UUID": uuid.UUID,
        "ZoneInfo": zoneinfo.ZoneInfo,
    }  # fmt: skip


def answer(line: str, names: dict[str, Any]) -> dict[str, Any]:
    """Carry out one call."""
    call = json.loads(line)
    try:
        return {"value": repr(eval(call["do"], {**names, **call["with"]}))}
    except Exception as exc:
        return {
            "raised": type(exc).__qualname__,
            "args": repr(exc.args),
            "text": "".join(traceback.format_exception(exc)),
        }


def main() -> None:
    # What libraries print does not belong among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    names = names_for(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(answer(line, names)), file=answers, flush=True)


if __name__ == "__main__":
    main()
