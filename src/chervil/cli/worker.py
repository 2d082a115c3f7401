"""``chervil worker``: its options, under Celery's names and letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chervil.cli import exitcodes
from chervil.cli.params import COMMA_LIST, LOG_LEVEL, ParamType
from chervil.cli.session import ChervilCommand, Session, pass_session

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])
POOLS = ("prefork", "threads", "asyncio", "solo")

_HELP = """Start a node that runs tasks.

\b
  chervil -A hello worker                      one process a CPU
  chervil -A hello worker -c 4 -l debug        four processes, every detail
  chervil -A hello worker -P asyncio -c 500    500 coroutines, for 'async def' tasks
  chervil -A hello worker -Q mail,images       only these queues
  chervil -A hello worker --reload             restart when the code changes

Ctrl-C or SIGTERM once: finish the running tasks and give the others back. Twice: stop
at once; what ran is run again by another worker.

SETTING=VALUE overrides settings of the app, for example worker_prefetch_multiplier=1.

Celery's -O, -s, -S (--statedb), --disable-prefetch, --without-gossip, --without-mingle,
--without-heartbeat and --heartbeat-interval are accepted and have no effect.
"""


class Pool(ParamType):
    """A pool's name or alias."""

    name = "pool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from chervil.exceptions import ImproperlyConfigured
        from chervil.pools import pool_name

        try:
            return pool_name(str(value))
        except ImproperlyConfigured as exc:
            self.fail(str(exc), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in POOLS if name.startswith(incomplete)]


def _refuse(reason: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            raise click.UsageError(f"{max(param.opts, key=len)} is not available: {reason}", ctx)

    return callback


def _refused(*decls: str, reason: str, **attrs: Any) -> Callable[[F], F]:
    return click.option(
        *decls,
        expose_value=False,
        callback=_refuse(reason),
        help=f"Not available: {reason}",
        **attrs,
    )


def _ignored(*decls: str, why: str, **attrs: Any) -> Callable[[F], F]:
    """An option of Celery's that command lines may keep."""
    help_text = f"Accepted for Celery's command lines; no effect: {why}"
    return click.option(*decls, expose_value=False, help=help_text, hidden=True, **attrs)


_option = click.option


@click.command("worker", cls=ChervilCommand, help=_HELP, epilog=exitcodes.WORKER_HELP)
@click.argument("overrides", nargs=-1, metavar="[SETTING=VALUE]...")
@_option(
    "-n",
    "--hostname",
    metavar="NAME",
    help="Node name, 'name@host'; %h host, %n its first part, %d its domain. Default: chervil@%h.",
)
@_option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tasks that run at once: processes, threads or coroutines, as the pool says.",
)
@_option(
    "-P",
    "--pool",
    type=Pool(),
    metavar="POOL",
    help=f"How tasks run: {', '.join(POOLS)}. Default: prefork.",
)
@_option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Spread the threads or coroutines over N processes.",
)
@_option("-Q", "--queues", type=COMMA_LIST, metavar="A,B", help="Consume only these queues.")
@_option("-X", "--exclude-queues", type=COMMA_LIST, metavar="A,B", help="All queues but these.")
@_option("-I", "--include", type=COMMA_LIST, metavar="M,M", help="More modules to import.")
@_option(
    "-l",
    "--loglevel",
    type=LOG_LEVEL,
    default=None,
    metavar="LEVEL",
    help="debug, info, warning, error or critical. Default: info.",
)
@_option("-f", "--logfile", metavar="FILE", help="Log here instead of stderr; %n and %h as in -n.")
@_option("--logfmt", type=click.Choice(["text", "json"]), help="Form of log lines.")
@_option(
    "-E",
    "--task-events",
    "--events",
    is_flag=True,
    default=None,
    help="Send events about tasks to monitors.",
)
@_option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End a task after this time (hard).",
)
@_option(
    "--soft-time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Raise SoftTimeLimitExceeded in a task after this time.",
)
@_option(
    "--max-tasks-per-child",
    type=click.IntRange(min=1),
    metavar="N",
    help="Replace a process after this many tasks.",
)
@_option(
    "--max-memory-per-child",
    type=click.IntRange(min=1),
    metavar="KIB",
    help="Replace a process that uses more memory than this.",
)
@_option(
    "--prefetch-multiplier",
    type=click.IntRange(min=0),
    metavar="N",
    help="Tasks to hold ready for each slot.",
)
@_option(
    "--lease",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="After this time without a sign of life others take this node's tasks over.",
)
@_option("--purge", "--discard", is_flag=True, help="First delete all waiting messages.")
@_option("--reload", is_flag=True, help="For development: restart when the code changes.")
@_option("--pidfile", metavar="FILE", help="Write the process id here; refuse to run twice.")
@_option("-D", "--detach", is_flag=True, help="Run in the background; returns when ready.")
@_option("--uid", metavar="USER", help="Run as this user (start as root).")
@_option("--gid", metavar="GROUP", help="Run as this group.")
@_option("--umask", metavar="OCTAL", help="File mode mask, such as 022.")
@_ignored(
    "-O",
    "--optimization",
    type=click.Choice(["default", "fair"]),
    why="tasks go to whoever is idle.",
)
@_ignored("--disable-prefetch", is_flag=True, why="busy slots hold no tasks back.")
@_ignored("--without-gossip", is_flag=True, why="nodes do not gossip.")
@_ignored("--without-mingle", is_flag=True, why="nodes do not mingle.")
@_ignored("--without-heartbeat", is_flag=True, why="the lease is the heartbeat.")
@_ignored("--heartbeat-interval", type=float, metavar="N", why="see --lease.")
@_ignored("-S", "--statedb", metavar="FILE", why="revoked ids are kept in the broker.")
@_refused("--autoscale", metavar="MAX,MIN", reason="give a number with -c.")
@_option("-B", "--beat", is_flag=True, help="Also send periodic tasks, as 'chervil beat' does.")
@_option("--scheduler", metavar="CLASS", help="With -B: class of the scheduler, 'module:name'.")
@_ignored(
    "-s",
    "--schedule",
    "--schedule-filename",
    metavar="FILE",
    why="the state is in the coordinator.",
)
@pass_session
def command(session: Session, /, **options: Any) -> None:
    soft, hard = options["soft_time_limit"], options["time_limit"]
    if soft and hard and soft >= hard:
        raise click.UsageError(
            f"--soft-time-limit {soft:g} is not below --time-limit {hard:g}, "
            "so it could never come first."
        )
    if options["scheduler"] and not options["beat"]:
        raise click.UsageError("--scheduler is for -B.")
    if options["reload"] and options["detach"]:
        raise click.UsageError("--reload and --detach do not go together.")
    if options.pop("reload"):
        from chervil.cli import reload

        if not reload.is_child():
            raise SystemExit(reload.run_with_reload())
        reload.die_with_parent()

    from chervil.cli.launch import launch

    raise SystemExit(launch(session, options))
