"""``chervil beat``: its options, under Celery's names and letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chervil.cli import exitcodes
from chervil.cli.params import COMMA_LIST, LOG_LEVEL
from chervil.cli.session import ChervilCommand, Session, pass_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from chervil.app import Chervil

_HELP = """Send periodic tasks when they are due.

\b
  chervil -A hello beat                        send what beat_schedule says
  chervil -A hello beat -l debug               with every detail
  chervil -A hello worker -B                   the same beside a worker

Run as many as you like, on as many machines: one sends, and when it is gone another takes
over within the lease. Each due time of each entry is sent once.

See and change the periodic tasks with 'chervil schedule'.

SETTING=VALUE overrides settings of the app, for example timezone=Europe/Berlin.
"""

_option = click.option


@click.command("beat", cls=ChervilCommand, help=_HELP, epilog=exitcodes.HELP)
@click.argument("overrides", nargs=-1, metavar="[SETTING=VALUE]...")
@_option(
    "-S",
    "--scheduler",
    metavar="CLASS",
    help="Class of the scheduler, 'module:name'. Default: the setting beat_scheduler.",
)
@_option(
    "--max-interval",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Sleep no longer than this. Changes wake it up in any case.",
)
@_option(
    "--lease",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="After this time without a sign of life another beat takes over. Default: 10.",
)
@_option("-I", "--include", type=COMMA_LIST, metavar="M,M", help="More modules to import.")
@_option(
    "-l",
    "--loglevel",
    type=LOG_LEVEL,
    default=None,
    metavar="LEVEL",
    help="debug, info, warning, error or critical. Default: info.",
)
@_option("-f", "--logfile", metavar="FILE", help="Log here instead of stderr.")
@_option("--logfmt", type=click.Choice(["text", "json"]), help="Form of log lines.")
@_option("--pidfile", metavar="FILE", help="Write the process id here; refuse to run twice.")
@_option("-D", "--detach", is_flag=True, help="Run in the background; returns when ready.")
@_option("--uid", metavar="USER", help="Run as this user (start as root).")
@_option("--gid", metavar="GROUP", help="Run as this group.")
@_option("--umask", metavar="OCTAL", help="File mode mask, such as 022.")
@_option(
    "-s",
    "--schedule",
    "schedule_filename",
    metavar="FILE",
    hidden=True,
    help="Accepted for Celery's command lines; no effect: the state is in the coordinator.",
)
@pass_session
def command(session: Session, /, **options: Any) -> None:
    from chervil.cli.daemon import PidFile, become, detach
    from chervil.cli.launch import _path, load_app

    app = load_app(session, options)
    logfile = _path("--logfile", options["logfile"], "beat")
    report = detach(logfile) if options["detach"] else None
    try:
        become(options["uid"], options["gid"], options["umask"])
        pidfile = PidFile(_path("--pidfile", options["pidfile"], "beat") or "")
        if options["pidfile"]:
            pidfile.acquire()
        try:
            _run(session, app, logfile, options, report)
        finally:
            pidfile.release()
    except Exception as exc:
        if report:
            problem = exc.format_message() if isinstance(exc, click.ClickException) else exc
            report(str(problem) or type(exc).__name__)
        raise


def _run(
    session: Session,
    app: Chervil,
    logfile: str | None,
    options: dict[str, Any],
    report: Callable[[str], None] | None,
) -> None:
    from chervil.beat import Service
    from chervil.cli.access import load_tasks
    from chervil.log import set_process_name, setup_logging

    setup_logging(
        app.conf,
        level=options["loglevel"] or "INFO",
        logfile=logfile,
        fmt=options["logfmt"] or "text",
        color=None if session.color else False,
    )
    load_tasks(app)
    set_process_name("beat")
    service = Service(
        app,
        options["max_interval"],
        options["schedule_filename"],
        options["scheduler"],
        lease=options["lease"],
        on_ready=(lambda: report("")) if report else None,
    )
    service.run()
