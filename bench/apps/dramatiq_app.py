"""Dramatiq's tasks, without the middleware that no-op tasks have no use for."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.apps import body

RESULTS = "BENCH_IGNORE" not in os.environ

broker = RedisBroker(url=os.environ["BENCH_BROKER"], middleware=[])
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_RESULTS"])))
dramatiq.set_broker(broker)

options = {"store_results": True} if RESULTS else {}


@dramatiq.actor(**options)
def noop() -> int:
    return 1


@dramatiq.actor(**options)
def stamp() -> int:
    return body.stamp()


@dramatiq.actor(**options)
def frames() -> list[int]:
    return body.frames(("dramatiq",))
