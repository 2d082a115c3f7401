"""``chervil health``: whether a worker of this machine is well."""

from __future__ import annotations

import click

from chervil.cli import exitcodes
from chervil.cli.names import node_name
from chervil.cli.output import print_json
from chervil.cli.session import ChervilCommand

_HELP = """Ask a worker of this machine whether it is well.

\b
  chervil health                      the node chervil@<this host>
  chervil health -n main@%h --live    for a liveness probe

\b
  live   its loops make progress
  ready  live, the broker answers, all executors are there

Exit codes: 0 yes; 1 no, or nobody answers; 2 wrong command line.
"""


@click.command("health", cls=ChervilCommand, help=_HELP)
@click.option("-n", "--hostname", metavar="NAME", help="As for the worker; default: chervil@%h.")
@click.option("--live", is_flag=True, help="Only whether it is live, not whether it is ready.")
@click.option("--json", "as_json", is_flag=True, help="Print all that it says, as JSON.")
@click.option("--timeout", default=5.0, show_default=True, help="Seconds to wait for its answer.")
def command(hostname: str | None, live: bool, as_json: bool, timeout: float) -> None:
    from chervil.worker.health import ask_all

    try:
        name = node_name(hostname)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    question = "/live" if live else "/ready"
    try:
        states = ask_all(name, question, timeout)
    except OSError as exc:
        click.echo(f"Error: node {name} does not answer: {exc}", err=True)
        raise SystemExit(exitcodes.ERROR) from exc
    if not states:
        click.echo(f"Error: there is no node {name} of this user on this machine", err=True)
        raise SystemExit(exitcodes.ERROR)
    fine = [state.live if live else state.ready for state in states]
    for state, good in zip(states, fine, strict=True):
        if as_json:
            print_json({name: getattr(state, name) for name in state.__struct_fields__})
        elif good:
            click.echo(f"{state.node} is {question[1:]}")
        else:
            click.echo(f"{state.node} is not {question[1:]}: {'; '.join(state.problems)}")
    raise SystemExit(exitcodes.OK if all(fine) else exitcodes.ERROR)
