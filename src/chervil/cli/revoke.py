"""``chervil revoke``: keep tasks from being started."""

from __future__ import annotations

import click

from chervil.cli.access import expect_database
from chervil.cli.output import plural
from chervil.cli.session import ChervilCommand, Session, pass_session

_HELP = """Keep tasks from being started: those that wait, and those that are delayed.

\b
  chervil -A hello revoke 01a1f897-130b-7e7c-9d49-6949c64654b7
  chervil -A hello revoke ID ID ID

When its turn comes, such a task is not run but ends as REVOKED; until then it stays in
'chervil queues'. The broker remembers the ids for 30 days, also for nodes that are started
later. It is not known whether there is a task of such an id.

A task that is running already is not stopped, and one that has ended keeps its result.
"""


@click.command("revoke", cls=ChervilCommand, help=_HELP)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@pass_session
def command(session: Session, /, ids: tuple[str, ...]) -> None:
    app = session.app()
    wanted = list(dict.fromkeys(part.strip() for part in ids))
    if not all(wanted):
        raise click.UsageError("An id is empty.")
    expect_database(session, app.conf.broker_url, app.conf.broker_transport_options)
    app.revoke(wanted)
    click.echo(
        f"Revoked {plural(len(wanted), 'id')}: what has not been started under "
        f"{'it' if len(wanted) == 1 else 'them'} will not be."
    )
