"""Commands that change how the node runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from chervil.worker.control.registry import control_command, nok, ok
from chervil.worker.control.state import NoReply

if TYPE_CHECKING:
    from chervil.worker.control.state import State

logger = logging.getLogger("chervil.worker")


@control_command()
def shutdown(state: State, msg: Any = "Got shutdown from remote", **_kwargs: Any) -> Any:
    """Have the node finish what runs and end."""
    logger.warning("%s", msg)
    state.node.stop()
    raise NoReply


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: State, n: Any = 1, **_kwargs: Any) -> Any:
    """Add executor processes."""
    state.node.concurrency = state.on_hub(lambda node: node.resize(_count(n)))
    return ok("pool will grow")


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: State, n: Any = 1, **_kwargs: Any) -> Any:
    """Let executor processes end when their tasks have; one is left."""
    state.node.concurrency = state.on_hub(lambda node: node.resize(-_count(n)))
    return ok("pool will shrink")


@control_command()
def pool_restart(
    state: State, modules: Any = None, reload: Any = False, reloader: Any = None, **_kwargs: Any
) -> Any:
    """Replace the executors when their tasks have ended."""
    if modules or reload:
        return nok("modules are not reloaded in a running node: restart it")
    state.on_hub(lambda node: node.replace_executors())
    return ok("reload started")


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(state: State, max: Any = None, min: Any = None) -> Any:  # noqa: A002
    """Change the bounds of autoscaling, which nodes do not have yet."""
    raise ValueError("Autoscale not enabled")


@control_command(
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
    signature="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(state: State, queue: Any, **_options: Any) -> Any:
    """Take from another queue, too; not in this version."""
    if any(known.name == queue for known in state.node.queues):
        return ok(f"already consuming from {queue}")
    return nok("the queues of a running node cannot be changed in this version: restart it")


@control_command(args=[("queue", str)], signature="<queue>")
def cancel_consumer(state: State, queue: Any, **_options: Any) -> Any:
    """Take from a queue no longer; not in this version."""
    if all(known.name != queue for known in state.node.queues):
        return ok(f"no longer consuming from {queue}")
    return nok("the queues of a running node cannot be changed in this version: restart it")


@control_command()
def enable_events(state: State) -> Any:
    """Send events of tasks."""
    if state.node.task_events:
        return ok("task events already enabled")
    state.node.task_events = True
    return ok("task events enabled")


@control_command()
def disable_events(state: State) -> Any:
    """Send no events of tasks."""
    if not state.node.task_events:
        return ok("task events already disabled")
    state.node.task_events = False
    return ok("task events disabled")


@control_command()
def heartbeat(state: State) -> Any:
    """Send a heartbeat at once."""
    return None


@control_command(
    args=[("id", str), ("topic", str), ("action", str)], signature="<id> <topic> <action>"
)
def election(state: State, id: Any, topic: Any, action: Any = None, **_kwargs: Any) -> Any:  # noqa: A002
    """Take part in an election of Celery's; our nodes never stand."""
    return None


def _count(given: Any) -> int:
    number = int(given)
    if not 0 < number <= 1000:
        raise ValueError(f"how many executors is a number from 1 on, not {given!r}")
    return number
