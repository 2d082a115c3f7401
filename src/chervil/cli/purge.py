"""``chervil purge``: delete all waiting messages."""

from __future__ import annotations

import click

from chervil.cli.access import broker_of, expect_database, expect_queues, queue_names
from chervil.cli.output import plural, progress
from chervil.cli.params import COMMA_LIST
from chervil.cli.session import ChervilCommand, Session, pass_session
from chervil.settings.masking import mask_url

_HELP = """Delete all messages that wait in queues. They cannot be brought back.

\b
  chervil -A hello purge                 the app's queues; asks before
  chervil -A hello purge -Q mail -f      this queue, without asking

Running tasks and dead letters (see 'chervil dead') stay, and on RabbitMQ delayed messages.
"""


@click.command("purge", cls=ChervilCommand, help=_HELP)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("-Q", "--queues", "names", type=COMMA_LIST, metavar="A,B", help="Only these queues.")
@click.option(
    "-X",
    "--exclude-queues",
    "excluded",
    type=COMMA_LIST,
    metavar="A,B",
    help="All queues of the app but these.",
)
@pass_session
def command(
    session: Session, /, force: bool, names: list[str] | None, excluded: list[str] | None
) -> None:
    app = session.app()
    expect_database(session, app.conf.broker_url, app.conf.broker_transport_options)
    broker = broker_of(app)
    expect_queues(app, [*(names or ()), *(excluded or ())])
    chosen = [name for name in names or queue_names(app) if name not in (excluded or ())]
    if not chosen:
        raise click.UsageError("No queue is left after -X.")
    depths = broker.depths(chosen)
    waiting = sum(depth.ready + (depth.delayed or 0) for depth in depths.values())
    if not force:
        if any(depth.delayed is None for depth in depths.values()):
            delayed = "delayed ones stay"
        else:
            delayed = f"{sum(depth.delayed or 0 for depth in depths.values()):,} of them delayed"
        click.confirm(
            f"Delete {plural(waiting, 'message')} ({delayed}) of "
            f"{', '.join(chosen)} in {mask_url(app.conf.broker_url)}?",
            abort=True,
        )
    deleted = 0
    with progress(session, "Deleting", len(chosen)) as bar:
        for name in chosen:
            deleted += broker.purge(name)
            bar.advance()
    click.echo(f"Deleted {plural(deleted, 'message')} from {plural(len(chosen), 'queue')}.")
