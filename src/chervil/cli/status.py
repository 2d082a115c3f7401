"""``chervil status``: which nodes are there."""

from __future__ import annotations

from typing import Any

import click

from chervil.cli import remote
from chervil.cli.output import duration, plural, print_json, print_table
from chervil.cli.session import ChervilCommand, Session, pass_session

_HELP = """Show which nodes are running, and how much they run.

\b
  chervil -A hello status
  chervil -A hello status --json

Exit code 0 when a node has answered. Workers of Celery answer, too.
"""
_COLUMNS = ("node", "pool", "slots", "taken", "up for", "pid")


@click.command("status", cls=ChervilCommand, help=_HELP)
@remote.options
@pass_session
def command(
    session: Session,
    /,
    as_json: bool,
    timeout: float | None,
    destination: list[str] | None,
) -> None:
    app = session.app()
    stats = remote.command_of("inspect", "stats")
    answers = remote.ask(session, app, stats, {}, destination, timeout)
    found = {name: _summary(answer) for name, answer in sorted(answers.items())}
    if as_json:
        print_json(found)
        return
    rows = [
        [
            name,
            str(node["pool"]),
            str(node["slots"]),
            f"{node['taken']:,}",
            duration(node["uptime"]),
            str(node["pid"]),
        ]
        for name, node in found.items()
    ]
    print_table(session, _COLUMNS, rows, right=_COLUMNS[2:])
    session.note(f"{plural(len(rows), 'node')} online.")


def _summary(answer: Any) -> dict[str, Any]:
    stats = answer if isinstance(answer, dict) else {}
    pool = stats.get("pool") or {}
    implementation = str(pool.get("implementation", "?"))
    return {
        "pool": implementation.removeprefix("chervil.pools."),
        "slots": pool.get("max-concurrency", "?"),
        "taken": sum((stats.get("total") or {}).values()),
        "uptime": float(stats.get("uptime") or 0),
        "pid": stats.get("pid", "?"),
    }
