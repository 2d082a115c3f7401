"""Descriptions in the shapes of Celery's replies."""

from __future__ import annotations

import os
import resource
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from chervil import clock
from chervil.exceptions import ChervilError
from chervil.wire import envelope
from chervil.wire.celery_v2 import decode_body
from chervil.wire.serializers import accept_types

if TYPE_CHECKING:
    from chervil.drivers.contracts import Queue
    from chervil.worker.control.state import State
    from chervil.worker.flight import Flight


def describe(
    flight: Flight, state: State, place: tuple[int, float] | None, safe: bool
) -> dict[str, Any]:
    """A task that the node has (source: celery ``celery/worker/request.py``, ``info``).

    :param place: process id and monotonic time at which it began, where it runs.
    :param safe: texts that show the arguments instead of the arguments.
    """
    delivery, name = flight.delivery, flight.task.name
    message = envelope.decode(delivery.head, delivery.body)
    headers = message.headers
    args, kwargs = headers.get("argsrepr", ""), headers.get("kwargsrepr", "")
    if not safe:
        try:
            args, kwargs, _ = decode_body(
                message.body,
                message.content_type,
                message.content_encoding,
                headers.get("compression"),
                accept_types(state.app.conf.accept_content),
            )
        except ChervilError:
            pass  # the texts do
    return {
        "id": flight.task_id,
        "name": name,
        "args": args,
        "kwargs": kwargs,
        "type": name,
        "hostname": state.hostname,
        "time_start": None if place is None else clock.now() - (monotonic() - place[1]),
        "acknowledged": flight.acked,
        "delivery_info": {
            "exchange": message.exchange,
            "routing_key": message.routing_key or delivery.queue,
            "priority": message.priority,
            "redelivered": delivery.deliveries > 1,
        },
        "worker_pid": None if place is None else place[0],
    }


def queue_info(queue: Queue) -> dict[str, Any]:
    """A queue, as kombu describes it."""
    exchange = queue.exchange or queue.name
    return {
        "name": queue.name,
        "exchange": {
            "name": exchange,
            "type": queue.exchange_type,
            "arguments": None,
            "durable": queue.durable,
            "passive": False,
            "auto_delete": False,
            "delivery_mode": None,
            "no_declare": False,
        },
        "routing_key": queue.routing_key or queue.name,
        "queue_arguments": dict(queue.queue_arguments) or None,
        "binding_arguments": dict(queue.binding_arguments) or None,
        "consumer_arguments": None,
        "durable": queue.durable,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        "no_declare": None,
        "expires": None,
        "message_ttl": None,
        "max_length": None,
        "max_length_bytes": None,
        "max_priority": queue.max_priority,
    }


def broker_info(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Where the broker is, as kombu describes it; without the password."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return {
        "hostname": parts.hostname,
        "userid": parts.username,
        "virtual_host": parts.path.strip("/") or "/",
        "port": port,
        "insist": False,
        "ssl": parts.scheme in ("rediss", "amqps"),
        "transport": parts.scheme,
        "connect_timeout": None,
        "transport_options": options,
        "login_method": None,
        "uri_prefix": None,
        "heartbeat": 0.0,
        "failover_strategy": None,
        "alternates": [],
        "credential_provider": None,
    }


def pool_info(state: State) -> dict[str, Any]:
    """The pool and its processes."""
    node = state.node
    total = sum(state.totals().values())
    return {
        "implementation": f"chervil.pools.{node.pool}",
        "max-concurrency": node.concurrency,
        "processes": node.pids() or [os.getpid()],
        "max-tasks-per-child": node.max_tasks or "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": [node.soft_time_limit, node.time_limit],
        "writes": {
            "total": total,
            "avg": "N/A",
            "all": "N/A",
            "raw": "N/A",
            "strategy": "fair",
            "inqueues": {"total": 1, "active": 1},
        },
    }


_USAGE = (
    "utime stime maxrss ixrss idrss isrss minflt majflt nswap inblock oublock msgsnd msgrcv "
    "nsignals nvcsw nivcsw"
)


def usage() -> dict[str, Any]:
    """What this process has used."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return {name: getattr(found, f"ru_{name}") for name in _USAGE.split()}
