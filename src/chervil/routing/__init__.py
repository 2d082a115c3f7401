"""Queues, exchanges and the way of each task to them."""

from __future__ import annotations

from chervil.routing.entities import Broadcast, Exchange, Queue, binding
from chervil.routing.queues import Queues, topic_matches
from chervil.routing.router import Route, Router

__all__ = [
    "Broadcast",
    "Exchange",
    "Queue",
    "Queues",
    "Route",
    "Router",
    "binding",
    "topic_matches",
]
