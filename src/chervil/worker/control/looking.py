"""Commands that look at the node."""

from __future__ import annotations

import os
import platform
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from chervil.settings.masking import mask_url
from chervil.worker.control import info
from chervil.worker.control.registry import inspect_command, ok

if TYPE_CHECKING:
    from chervil.worker.control.state import State


@inspect_command()
def ping(state: State, **_kwargs: Any) -> Any:
    """Say that the node is there."""
    return ok("pong")


@inspect_command()
def clock(state: State, **_kwargs: Any) -> Any:
    """The node's logical clock."""
    return {"clock": state.clock}


@inspect_command()
def stats(state: State, **_kwargs: Any) -> Any:
    """Figures of the node."""
    conf = state.app.conf
    return {
        "total": state.totals(),
        "pid": os.getpid(),
        "clock": str(state.clock),
        "uptime": round(monotonic() - state.started),
        "pool": info.pool_info(state),
        "broker": info.broker_info(conf.broker_url, {}),
        "prefetch_count": state.claims_ahead,
        "rusage": info.usage(),
    }


@inspect_command()
def dead_letters(state: State, **_kwargs: Any) -> Any:
    """How many messages of each queue the node has put into the dead-letter queue."""
    return state.dead_letters()


@inspect_command()
def active_queues(state: State, **_kwargs: Any) -> Any:
    """The queues that the node takes from."""
    return [info.queue_info(queue) for queue in state.node.queues]


@inspect_command(
    alias="dump_conf", signature="[include_defaults=False]", args=[("with_defaults", bool)]
)
def conf(state: State, with_defaults: Any = False, **_kwargs: Any) -> Any:
    """The settings; secrets are masked."""
    found: dict[str, Any] = state.app.conf.table(bool(with_defaults))
    return found


@inspect_command()
def report(state: State, **_kwargs: Any) -> Any:
    """Versions and settings, for bug reports."""
    conf = state.app.conf
    python, implementation = platform.python_version(), platform.python_implementation()
    lines = [
        f"software -> chervil:{state.node.version} py:{python}",
        f"platform -> system:{platform.system()} arch:{platform.machine()}",
        f"            kernel version:{platform.release()} imp:{implementation}",
        f"settings -> broker:{mask_url(conf.broker_url)} "
        f"results:{mask_url(conf.effective_result_backend)}",
        "",
        conf.humanize(),
    ]
    return ok("\n" + "\n".join(lines) + "\n")


@inspect_command()
def memsample(state: State, **_kwargs: Any) -> Any:
    """The memory of the node's process, as a text."""
    return f"{info.usage()['maxrss'] / (1024 if sys.platform != 'darwin' else 1 << 20):.2f}MB"


@inspect_command(args=[("samples", int)], signature="[n_samples=10]")
def memdump(state: State, samples: Any = 10, **_kwargs: Any) -> Any:
    """The largest memory that the node's process has had."""
    return f"- rss: {memsample(state)}\n"
