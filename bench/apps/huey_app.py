"""Huey's tasks. On Redis its workers block until there is a task, and clients until there is a
result. On SQLite it waits for the disk at each commit as it comes (``synchronous=FULL``);
``BENCH_SYNCHRONOUS`` sets another level."""

from __future__ import annotations

import os
import sqlite3

from huey import Huey, RedisHuey
from huey.storage import SqliteStorage

from bench.apps import body


class Storage(SqliteStorage):
    """Huey's own, at the level of ``BENCH_SYNCHRONOUS``."""

    def _create_connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._create_connection()
        if level := os.environ.get("BENCH_SYNCHRONOUS"):
            connection.execute(f"pragma synchronous={level}")
        return connection


def _open(broker: str) -> Huey:
    results = "BENCH_IGNORE" not in os.environ
    if broker.startswith("redis:"):
        return RedisHuey("bench", url=broker, results=results, notify_result=results)
    return Huey("bench", storage_class=Storage, filename=broker, results=results)


huey = _open(os.environ["BENCH_BROKER"])


@huey.task()
def noop() -> int:
    return 1


@huey.task()
def stamp() -> int:
    return body.stamp()


@huey.task()
def frames() -> list[int]:
    return body.frames(("huey",))
