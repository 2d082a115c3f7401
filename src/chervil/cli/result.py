"""``chervil result``: the state of a task, and its result when it has ended."""

from __future__ import annotations

import json
from typing import Any

import click

from chervil import states
from chervil.cli import exitcodes
from chervil.cli.access import expect_database, load_tasks
from chervil.cli.output import print_json
from chervil.cli.session import ChervilCommand, Session, pass_session

_HELP = """Print the result of the task with this id.

\b
  chervil -A hello result 4e1d5f1c-...
  chervil -A hello result 4e1d5f1c-... --traceback     where a failed task failed
  chervil -A hello result 4e1d5f1c-... --timeout 30    wait for it

Prints the result alone if the task succeeded; otherwise its state, to stderr.
"""


@click.command("result", cls=ChervilCommand, help=_HELP, epilog=exitcodes.HELP)
@click.argument("task_id", metavar="ID")
@click.option(
    "-t",
    "--task",
    "task_name",
    metavar="NAME",
    help="The task's name, if its class reads results in a way of its own.",
)
@click.option("--traceback", is_flag=True, help="Print the traceback of a failed task.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait up to this long for the end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, as JSON.")
@pass_session
def command(
    session: Session,
    /,
    task_id: str,
    task_name: str | None,
    traceback: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    app = session.app()
    conf = app.conf
    expect_database(session, conf.effective_result_backend, conf.result_backend_transport_options)
    if task_name is not None:
        load_tasks(app)
        if task_name not in app.tasks:
            raise click.UsageError(f"The app has no task {task_name!r}.")
        result: Any = app.tasks[task_name].AsyncResult(task_id)
    else:
        result = app.AsyncResult(task_id)
    if timeout is not None:
        try:
            result.get(timeout=timeout, propagate=False)
        except TimeoutError:
            pass
    if as_json:
        print_json(describe(result))
        raise SystemExit(_code(result.state))
    raise SystemExit(_show(session, result, traceback))


def _show(session: Session, result: Any, traceback: bool) -> int:
    state = result.state
    if state == states.SUCCESS:
        if traceback:
            session.note("The task succeeded; there is no traceback.")
        show_value(result.result)
    elif state in states.PROPAGATE_STATES:
        if traceback:
            click.echo(result.traceback or "No traceback was stored.")
        show_failure(session, result, with_traceback=False)
    elif state == states.PENDING:
        click.echo(
            f"{state}: no result under this id. The task has not been started, its results are "
            "not kept, the result has expired, or the id is wrong.",
            err=True,
        )
    else:
        meta = result.info
        detail = f" {_text(meta)}" if meta is not None else ""
        click.echo(f"{state}{detail}", err=True)
    return _code(state)


def _code(state: str) -> int:
    if state == states.SUCCESS:
        return exitcodes.OK
    return exitcodes.TASK_FAILED if state in states.READY_STATES else exitcodes.NOT_READY


def describe(result: Any) -> dict[str, Any]:
    """What is known of a result, for ``--json``."""
    value = result.result
    return {
        "id": result.id,
        "state": result.state,
        "result": repr(value) if isinstance(value, BaseException) else value,
        "traceback": result.traceback,
        "date_done": result.date_done,
        "name": result.name,
        "worker": result.worker,
        "retries": result.retries,
        "queue": result.queue,
    }


def show_value(value: Any) -> None:
    """A string as it is, all else as JSON where that is possible."""
    click.echo(value if isinstance(value, str) else _text(value))


def _text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def show_failure(session: Session, result: Any, with_traceback: bool) -> None:
    """Why a task failed, to stderr."""
    if with_traceback and result.traceback and not session.quiet:
        click.echo(result.traceback.rstrip(), err=True)
    exc = result.result
    reason = f"{type(exc).__name__}: {exc}" if isinstance(exc, BaseException) else _text(exc)
    click.echo(f"{result.state} {reason}", err=True)
