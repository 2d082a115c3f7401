"""The tasks on Celery, for its own worker and clients."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import celery.exceptions
from celery import Celery

from tests.apps.interop import tasks

# As if the other side were not installed here.
for name in ("chervil",):
    assert name not in sys.modules
    sys.modules[name] = None  # type: ignore[assignment]

SIDE = "celery"
CONF: dict[str, Any] = json.loads(os.environ["INTEROP_CONF"])


def make(**conf: Any) -> tuple[Any, Any]:
    """An app and its tasks."""
    app = Celery("interop", set_as_current=False, config_source={**CONF, **conf})
    return app, tasks.register(app, SIDE, celery.exceptions)


app, _ = make()
