"""``chervil revoke``: cancel tasks."""

from __future__ import annotations

import click

from chervil.cli.access import expect_database
from chervil.cli.output import plural
from chervil.cli.session import ChervilCommand, Session, pass_session

_HELP = """Cancel tasks: they do not start any more, and with --terminate, what runs is ended.

\b
  chervil -A hello revoke 01a1f897-130b-7e7c-9d49-6949c64654b7
  chervil -A hello revoke ID ID ID --terminate

Tasks that wait are REVOKED at once (on RabbitMQ when their turn comes); their messages stay
in 'chervil queues' until their turn comes. The broker remembers the ids for 30 days, also
for nodes that are started later. It is not known whether there is a task of such an id.

Without --terminate a task that is running already is not stopped. One that has ended keeps
its result.
"""


@click.command("revoke", cls=ChervilCommand, help=_HELP)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("-T", "--terminate", is_flag=True, help="Also end those that run.")
@click.option(
    "-s",
    "--signal",
    default="SIGTERM",
    show_default=True,
    metavar="NAME",
    help="How to end them: SIGTERM, SIGKILL, or SIGUSR1 for SoftTimeLimitExceeded.",
)
@pass_session
def command(
    session: Session,
    /,
    ids: tuple[str, ...],
    terminate: bool,
    signal: str,
) -> None:
    app = session.app()
    wanted = list(dict.fromkeys(part.strip() for part in ids))
    if not all(wanted):
        raise click.UsageError("An id is empty.")
    expect_database(session, app.conf.broker_url, app.conf.broker_transport_options)
    app.control.revoke(wanted, terminate=terminate, signal=_signal_name(signal))
    click.echo(
        f"Revoked {plural(len(wanted), 'id')}: what has not been started under "
        f"{'it' if len(wanted) == 1 else 'them'} will not be"
        + (", and what runs is told to end." if terminate else ".")
    )


def _signal_name(text: str) -> str:
    """The name of a signal that was given by name or number.

    :raises click.UsageError: there is none.
    """
    import signal

    try:
        if text.isdigit():
            return signal.Signals(int(text)).name
        name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
        return signal.Signals[name].name
    except (KeyError, ValueError):
        raise click.UsageError(f"There is no signal {text!r}.") from None
