"""The tasks of ``flows`` on a node that dies the first time it is to call a chord's body."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from chervil.drivers.contracts import Delivery, Settlement
from chervil.drivers.sqlite.broker import SqliteBroker
from chervil.drivers.sqlite.consumer import SqliteConsumer
from chervil.wire.message import Message
from tests.apps.flows import app

__all__ = ["app"]

_publish, _exchange = SqliteBroker.publish, SqliteConsumer.exchange


def _die_first(messages: Iterable[Message]) -> None:
    if any(message.headers["task"] == "celery.chord_unlock" for message in messages):
        died = Path(os.environ["DIED"])
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def publish(self: Any, messages: Sequence[Message]) -> None:
    _die_first(messages)
    _publish(self, messages)


def exchange(self: Any, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
    _die_first(message for settlement in settlements for message in settlement.publish)
    return _exchange(self, settlements, limit)


SqliteBroker.publish = publish  # type: ignore[method-assign]
SqliteConsumer.exchange = exchange  # type: ignore[method-assign]
