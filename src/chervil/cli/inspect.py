"""``chervil inspect``: ask nodes."""

from __future__ import annotations

import click

from chervil.cli import remote
from chervil.cli.session import ChervilCommand, Session, pass_session

_HELP = """Ask running nodes what they do; 'chervil inspect' alone lists the questions.

\b
  chervil -A hello inspect ping
  chervil -A hello inspect active
  chervil -A hello inspect stats -d chervil@host --json

Workers of Celery on the same broker answer, too. Exit code 0 when a node has answered.
"""


@click.command("inspect", cls=ChervilCommand, help=_HELP)
@click.argument("method", required=False, metavar="COMMAND")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENTS]")
@remote.options
@pass_session
def command(
    session: Session,
    /,
    method: str | None,
    arguments: tuple[str, ...],
    as_json: bool,
    timeout: float | None,
    destination: list[str] | None,
) -> None:
    app = session.app()
    if method is None:
        click.echo(remote.listing("inspect"))
        return
    known = remote.command_of("inspect", method)
    given = remote.arguments_of(known, arguments)
    answers = remote.ask(session, app, known, given, destination, timeout)
    remote.show(session, answers, as_json)
    if remote.failed(answers):
        raise click.exceptions.Exit(1)
