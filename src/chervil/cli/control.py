"""``chervil control``: tell nodes what to do."""

from __future__ import annotations

import click

from chervil.cli import remote
from chervil.cli.session import ChervilCommand, Session, pass_session

_HELP = """Tell running nodes what to do; 'chervil control' alone lists the commands.

\b
  chervil -A hello control terminate SIGTERM ID
  chervil -A hello control time_limit hello.add 20 30
  chervil -A hello control pool_grow 2 -d chervil@host
  chervil -A hello control shutdown -d chervil@host

To cancel tasks, 'chervil revoke' does more: it also holds where no node is running.
"""


@click.command("control", cls=ChervilCommand, help=_HELP)
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
        click.echo(remote.listing("control"))
        return
    known = remote.command_of("control", method)
    given = remote.arguments_of(known, arguments)
    if known.name == "shutdown":  # nobody answers that
        app.control.broadcast("shutdown", given, destination)
        session.note("Told to finish what runs and to end.")
        return
    answers = remote.ask(session, app, known, given, destination, timeout)
    remote.show(session, answers, as_json)
    if remote.failed(answers):
        raise click.exceptions.Exit(1)
