"""``chervil call``: send one task by its name."""

from __future__ import annotations

import datetime as dt
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from chervil.cli import exitcodes
from chervil.cli.access import load_tasks
from chervil.cli.params import JsonValue, ParamType
from chervil.cli.result import show_failure, show_value
from chervil.cli.session import ChervilCommand, Session, pass_session

if TYPE_CHECKING:
    from chervil.app import Chervil

_HELP = """Send one task and print its id.

\b
  chervil -A hello call hello.add -a '[2, 3]'
  chervil -A hello call hello.add -k '{"x": 2, "y": 3}' --countdown 60
  chervil -A hello call hello.add -a '[2, 3]' --wait      print the result instead
  chervil -b sqlite:///hello.db call hello.add -a '[2, 3]'

Without -A, with only a broker, the task's name and arguments cannot be checked.
"""


class Moment(ParamType):
    """A time in ISO 8601, or (where allowed) a number of seconds from now."""

    name = "time"

    def __init__(self, seconds: bool) -> None:
        self.seconds = seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if self.seconds:
            try:
                return float(value)
            except ValueError:
                pass
        try:
            return dt.datetime.fromisoformat(value)
        except ValueError:
            number = "a number of seconds or " if self.seconds else ""
            return self.fail(
                f"{value!r} is not {number}a time such as 2030-01-31T08:00:00+01:00.", param, ctx
            )


def _complete_task(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the app's tasks; none when there is no app to ask."""
    try:
        names = known_tasks(ctx.ensure_object(Session).app(required=True))
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete)]


def known_tasks(app: Chervil) -> list[str]:
    """Names of the tasks that the app's own modules define."""
    load_tasks(app)
    return sorted(name for name in app.tasks if not name.startswith("celery."))


@click.command("call", cls=ChervilCommand, help=_HELP, epilog=exitcodes.HELP)
@click.argument("name", metavar="TASK", shell_complete=_complete_task)
@click.option(
    "-a",
    "--args",
    type=JsonValue(list, '[1, "two"]'),
    metavar="JSON",
    help="Positional arguments: a JSON array, such as '[1, \"two\"]'.",
)
@click.option(
    "-k",
    "--kwargs",
    type=JsonValue(dict, '{"x": 1}'),
    metavar="JSON",
    help="Keyword arguments: a JSON object, such as '{\"x\": 1}'.",
)
@click.option("--countdown", type=float, metavar="SECONDS", help="Run it this much later.")
@click.option("--eta", type=Moment(seconds=False), metavar="TIME", help="Run it at this time.")
@click.option(
    "--expires",
    type=Moment(seconds=True),
    metavar="TIME",
    help="Do not start it after this time, or number of seconds.",
)
@click.option("--queue", metavar="NAME", help="Send it to this queue.")
@click.option("--exchange", metavar="NAME", help="Send it to this exchange.")
@click.option("--routing-key", metavar="KEY", help="Send it with this routing key.")
@click.option("--priority", type=int, metavar="N", help="A larger number is served first.")
@click.option("--serializer", metavar="NAME", help="Serializer of the arguments, such as json.")
@click.option("--task-id", metavar="ID", help="Use this id instead of a new one.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait no longer than this; says --wait too.",
)
@click.option("--force", is_flag=True, help="Send it even if the app knows no such task.")
@pass_session
def command(
    session: Session,
    /,
    name: str,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    wait: bool,
    timeout: float | None,
    force: bool,
    **options: Any,
) -> None:
    if options["countdown"] is not None and options["eta"] is not None:
        raise click.UsageError("--countdown and --eta both say when; give one of them.")
    app = session.app(required=not session.has_broker)
    chosen = {key: value for key, value in options.items() if value is not None}
    send = {"args": args or [], "kwargs": kwargs or {}, **chosen}
    task = _find_task(session, app, name, force)
    try:
        result = task.apply_async(**send) if task is not None else app.send_task(name, **send)
    except TypeError as exc:
        raise click.ClickException(f"{name}: {exc}") from exc
    if not wait and timeout is None:
        click.echo(result.id)
        return
    session.note(f"Sent {name}[{result.id}], waiting for its result.")
    raise SystemExit(_wait(session, result, timeout))


def _find_task(session: Session, app: Chervil, name: str, force: bool) -> Any:
    """The task, or None when it is to be sent by name alone."""
    if not session.has_app:
        return None
    names = known_tasks(app)
    if name in app.tasks:
        return app.tasks[name]
    if force:
        return None
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    close += [known for known in names if known.endswith(f".{name}") and known not in close]
    if close:
        hint = f"Did you mean {' or '.join(close)}?"
    elif names:
        hint = f"It has: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}."
    else:
        hint = "It has no tasks; is the module that defines them imported by the app?"
    raise click.UsageError(f"The app has no task {name!r}. {hint} (--force sends it all the same.)")


def _wait(session: Session, result: Any, timeout: float | None) -> int:
    try:
        result.get(timeout=timeout, propagate=False)
    except TimeoutError:
        click.echo(
            f"No result within {timeout:g} s; the task is {result.state}. "
            f"See later with: chervil result {result.id}",
            err=True,
        )
        return exitcodes.NOT_READY
    if result.successful():
        show_value(result.result)
        return exitcodes.OK
    show_failure(session, result, with_traceback=True)
    return exitcodes.TASK_FAILED
