"""The tasks on Chervil, for its own worker and clients."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import chervil.exceptions
from chervil import Chervil
from tests.apps.interop import tasks

# As if the other side were not installed here.
for name in ("celery", "kombu", "billiard"):
    assert name not in sys.modules
    sys.modules[name] = None  # type: ignore[assignment]

SIDE = "chervil"
CONF: dict[str, Any] = json.loads(os.environ["INTEROP_CONF"])


def make(**conf: Any) -> tuple[Any, Any]:
    """An app and its tasks."""
    app = Chervil("interop", set_as_current=False, **{**CONF, **conf})
    return app, tasks.register(app, SIDE, chervil.exceptions)


app, _ = make()
