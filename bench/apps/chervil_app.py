"""Chervil's tasks; the broker's URL comes from the environment."""

from __future__ import annotations

import asyncio
import os
import time

from bench.apps import body
from chervil import Chervil

app = Chervil(
    "bench",
    broker=os.environ["BENCH_BROKER"],
    backend=os.environ["BENCH_RESULTS"],
)


@app.task(ignore_result="BENCH_IGNORE" in os.environ)
def noop() -> int:
    return 1


@app.task
def stamp() -> int:
    return body.stamp()


@app.task
def frames() -> list[int]:
    return body.frames(("chervil",))


@app.task
async def nap(seconds: float) -> list[float]:
    begin = time.monotonic()
    await asyncio.sleep(seconds)
    return [begin, time.monotonic()]
