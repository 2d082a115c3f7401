"""What a worker prints when it starts. Pure: from values to text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

import msgspec

from chervil.settings.masking import mask_url

#: How many task names are listed before "and N more".
MAX_TASKS = 40


class NodeInfo(msgspec.Struct, frozen=True):
    """What the banner says about a node."""

    name: str
    version: str
    app: str
    broker: str
    results: str
    pool: str
    concurrency: int
    processes: int
    queues: Sequence[str]
    tasks: Sequence[str]
    config: str = ""


def banner(node: NodeInfo) -> str:
    """The text, without colours and with a newline at its end."""
    lines = [
        f"chervil {node.version} on Python {sys.version.split()[0]}, {_system()}",
        "",
        f"  node     {node.name}",
        f"  app      {node.app}",
        f"  broker   {mask_url(node.broker)}",
        f"  results  {_results(node.results)}",
        f"  pool     {pool_line(node)}",
        f"  queues   {', '.join(node.queues) or 'none'}",
        "",
        *task_lines(node.tasks),
    ]
    return "\n".join(lines) + "\n"


def _results(url: str) -> str:
    if not url or url.startswith("disabled"):
        return "none: results are not kept"
    return mask_url(url)


def pool_line(node: NodeInfo) -> str:
    """How many tasks can run at once, in words."""
    if node.pool == "solo":
        return "solo: one task at a time, in this process"
    total = node.concurrency
    if node.pool == "prefork" and total == 1:
        return "prefork, 1 process"
    unit = {"prefork": "processes", "threads": "threads", "asyncio": "coroutines"}.get(
        node.pool, "slots"
    )
    if node.pool == "prefork" or node.processes <= 1:
        return f"{node.pool}, {total} {unit}"
    return f"{node.pool}, {total} {unit} in {node.processes} processes"


def task_lines(tasks: Iterable[str]) -> list[str]:
    """The tasks of the app; those that the package brings itself are left out."""
    own = sorted(name for name in tasks if not name.startswith("celery."))
    if not own:
        return [
            "  No tasks. Is the module that defines them imported by the app?",
            "  (include=[...], -I module, or app.autodiscover_tasks())",
        ]
    lines = [f"  tasks    {own[0]}"]
    lines += [f"           {name}" for name in own[1:MAX_TASKS]]
    if len(own) > MAX_TASKS:
        lines.append(f"           and {len(own) - MAX_TASKS} more")
    return lines


def _system() -> str:
    if not hasattr(os, "uname"):
        return sys.platform
    system = os.uname()
    return f"{system.sysname} {system.machine}"
