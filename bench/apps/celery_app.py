"""Celery's tasks. On Redis it prefetches 100 messages a process (by default four, with which
no-op tasks wait for it). On SQLite it gets WAL, ``synchronous=NORMAL`` and polls every
millisecond (its own default: a full fsync for each commit and one second)."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from kombu.transport import sqlalchemy as transport
from sqlalchemy import event
from sqlalchemy.engine import Engine

from bench.apps import body

transport.Transport.polling_interval = 0.001


@event.listens_for(Engine, "connect")
def _pragmas(connection: Any, _record: Any) -> None:
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")
    connection.execute("pragma busy_timeout=10000")


app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_RESULTS"])
app.conf.update(
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=100,
)


@app.task(ignore_result="BENCH_IGNORE" in os.environ)
def noop() -> int:
    return 1


@app.task
def stamp() -> int:
    return body.stamp()


@app.task
def frames() -> list[int]:
    return body.frames(("celery", "billiard", "kombu"))
