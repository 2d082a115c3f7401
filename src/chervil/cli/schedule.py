"""``chervil schedule``: periodic tasks listed and changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from chervil.cli import exitcodes
from chervil.cli.access import expect_database, load_tasks
from chervil.cli.output import plural, print_json, print_table
from chervil.cli.params import JsonValue
from chervil.cli.session import ChervilGroup, Session, pass_session

if TYPE_CHECKING:
    from chervil.beat import ScheduleEntry
    from chervil.beat.book import Book

_HELP = """Periodic tasks: what there is, when it is due, and what became of it.

\b
  chervil -A hello schedule list
  chervil -A hello schedule next report
  chervil -A hello schedule add report hello.report '30 9 * * mon-fri' --tz Europe/Berlin
  chervil -A hello schedule pause report
  chervil -A hello schedule backfill report --from 2026-03-01 --to 2026-03-08

Changes are stored and take effect at once, whichever 'chervil beat' sends. Entries of the code
can be paused, resumed and fired; other changes belong into the code.
"""
_ARGS = JsonValue(list, "'[1, 2]'")
_KWARGS = JsonValue(dict, "'{\"x\": 1}'")


def _fields(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--overlap",
            type=click.Choice(["allow", "skip", "queue", "cancel_previous"]),
            help="When the run before has not ended.",
        ),
        click.option(
            "--missed-window",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="Make up for missed times no longer than this.",
        ),
        click.option(
            "--missed",
            type=click.Choice(["skip", "once", "all"]),
            help="What to do about times that nobody was there for.",
        ),
        click.option("--jitter", type=click.FloatRange(min=0), metavar="SECONDS"),
        click.option("--end", metavar="TIME", help="Nothing is due after."),
        click.option("--start", metavar="TIME", help="Nothing is due before."),
        click.option("--tz", metavar="ZONE", help="Such as Europe/Berlin."),
        click.option("--options", type=_KWARGS, metavar="JSON", help="Of apply_async."),
        click.option("-k", "--kwargs", type=_KWARGS, metavar="JSON", help="Keyword arguments."),
        click.option("-a", "--args", type=_ARGS, metavar="JSON", help="Positional arguments."),
    ):
        command = option(command)
    return command


@click.group("schedule", cls=ChervilGroup, help=_HELP, epilog=exitcodes.HELP)
def command() -> None:
    pass


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_session
def list_(session: Session, /, as_json: bool) -> None:
    """List periodic tasks, with their last and next runs."""
    from chervil.beat.book import described

    book = _book(session)
    entries = book.list()
    results = _results(session, entries)
    if as_json:
        rows = [{**described(e), "last_result": results.get(e.name)} for e in entries]
        print_json({"leader": book.leader(), "entries": rows})
        return
    if not entries:
        session.note("No periodic tasks.")
        return
    columns = ("name", "task", "schedule", "next", "last", "result", "runs")
    print_table(session, columns, [_row(e, results) for e in entries], right=("runs",))
    leader = book.leader()
    if leader is None:
        session.note("No 'chervil beat' is running: nothing is sent.")
    else:
        session.note(f"Sent by {leader}.")


def _row(entry: ScheduleEntry, results: dict[str, str]) -> list[str]:
    state = entry.state
    following = "never" if state.due is None else entry.shown(state.due)
    return [
        entry.name,
        entry.task,
        entry.words(),
        "paused" if state.paused else following,
        entry.shown(state.runs[-1].at) if state.runs else "",
        results.get(entry.name, ""),
        str(state.count),
    ]


def _results(session: Session, entries: list[ScheduleEntry]) -> dict[str, str]:
    """By name, what became of the last run."""
    last = {entry.name: entry.state.runs[-1] for entry in entries if entry.state.runs}
    ids = [run.task_id for run in last.values() if run.task_id]
    found = session.app().backend.get(ids) if ids else {}
    return {
        name: found[run.task_id].status if run.task_id in found else run.what
        for name, run in last.items()
    }


@command.command("next")
@click.argument("name")
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=5, show_default=True)
@pass_session
def next_(session: Session, /, name: str, count: int) -> None:
    """Show when an entry is due next."""
    entry = _entry(session, name)
    click.echo(f"{entry.name}: {entry.words()}")
    for due in entry.upcoming(count):
        click.echo(f"  {entry.shown(due)}")
    if entry.state.paused:
        session.note("It is paused.")


@command.command("history")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_session
def history(session: Session, /, name: str, as_json: bool) -> None:
    """Show the last runs of an entry, and what became of them."""
    entry = _entry(session, name)
    runs = entry.state.runs
    ids = [run.task_id for run in runs if run.task_id]
    found = session.app().backend.get(ids) if ids else {}
    rows = [
        [
            entry.shown(run.due),
            entry.shown(run.at),
            run.what,
            found[run.task_id].status if run.task_id in found else "",
            run.task_id,
        ]
        for run in runs
    ]
    columns = ("due", "decided", "what", "result", "id")
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif rows:
        print_table(session, columns, rows)
    else:
        session.note("No runs yet.")


@command.command("add")
@click.argument("name")
@click.argument("task")
@click.argument("when", metavar="SCHEDULE")
@_fields
@click.option("--paused", is_flag=True, help="Begin paused.")
@pass_session
def add(session: Session, /, name: str, task: str, when: str, **fields: Any) -> None:
    """Add an entry. SCHEDULE is seconds or five fields of crontab, such as '30 9 * * mon-fri'."""
    given = {key: value for key, value in fields.items() if value is not None}
    entry = _book(session, create=True).add(name, _when(when), task, **given)
    click.echo(f"Added {name}: {entry.words()}.")
    _first(entry)


@command.command("edit")
@click.argument("name")
@click.option("--task", metavar="NAME", help="Another task.")
@click.option("--schedule", "when", metavar="SCHEDULE", help="Another schedule, as for add.")
@_fields
@pass_session
def edit(session: Session, /, name: str, when: str | None, **fields: Any) -> None:
    """Change an entry that was added at run time; what is not given stays."""
    given = {key: value for key, value in fields.items() if value is not None}
    if when is not None:
        given["schedule"] = _when(when)
    if not given:
        raise click.UsageError("Nothing to change was given.")
    book = _book(session)
    _expect(book, name)
    entry = book.update(name, **given)
    click.echo(f"Changed {name}: {entry.words()}.")
    _first(entry)


def _first(entry: ScheduleEntry) -> None:
    due = entry.state.due
    click.echo("It is never due." if due is None else f"Next: {entry.shown(due)}.")


@command.command("pause")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_session
def pause(session: Session, /, names: tuple[str, ...]) -> None:
    """Send nothing until it is resumed."""
    book = _book(session)
    for name in names:
        _expect(book, name)
        book.pause(name)
        click.echo(f"Paused {name}.")


@command.command("resume")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_session
def resume(session: Session, /, names: tuple[str, ...]) -> None:
    """End a pause; what was due meanwhile is not made up for."""
    book = _book(session)
    for name in names:
        _expect(book, name)
        entry = book.resume(name)
        click.echo(f"Resumed {name}.")
        _first(entry)


@command.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_session
def remove(session: Session, /, names: tuple[str, ...]) -> None:
    """Delete entries that were added at run time."""
    book = _book(session)
    for name in names:
        _expect(book, name)
        book.remove(name)
        click.echo(f"Removed {name}.")


@command.command("fire")
@click.argument("name")
@pass_session
def fire(session: Session, /, name: str) -> None:
    """Send an entry's task now, whatever its schedule says; prints the task's id."""
    book = _book(session)
    _expect(book, name)
    click.echo(book.fire(name))


@command.command("backfill")
@click.argument("name")
@click.option("--from", "start", required=True, metavar="TIME", help="Such as 2026-03-01T00:00.")
@click.option("--to", "end", metavar="TIME", help="Default: now.")
@click.option("--again", is_flag=True, help="Also what was sent already, under new ids.")
@click.option("--send", is_flag=True, help="Really send it, without asking.")
@click.option("--dry-run", is_flag=True, help="Only show what would be sent; the default.")
@pass_session
def backfill(
    session: Session,
    /,
    name: str,
    start: str,
    end: str | None,
    again: bool,
    send: bool,
    dry_run: bool,
) -> None:
    """Send what was due in a past range and was not sent. Shows it first."""
    if send and dry_run:
        raise click.UsageError("--send and --dry-run contradict each other.")
    book = _book(session)
    entry = _expect(book, name)
    found = book.backfill(name, start, end, again=again)
    for item in found[:20]:
        click.echo(f"  {entry.shown(item.due)}")
    if len(found) > 20:
        click.echo(f"  ... to {entry.shown(found[-1].due)}")
    what = plural(len(found), "due time")
    if not found or not send:
        click.echo(f"{what}{'' if not found else '; send with --send'}.")
        return
    done = book.backfill(name, start, end, again=again, dry_run=False)
    click.echo(f"Sent {plural(len(done), 'task')}.")


# --- what all of them need


def _book(session: Session, create: bool = False) -> Book:
    app = session.app(required=True)
    load_tasks(app)
    if not create:
        expect_database(session, app.conf.broker_url, app.conf.broker_transport_options)
    return app.schedule


def _entry(session: Session, name: str) -> ScheduleEntry:
    return _expect(_book(session), name)


def _expect(book: Book, name: str) -> ScheduleEntry:
    """The entry, or the end with a hint."""
    from chervil.exceptions import NotRegistered

    try:
        return book.get(name)
    except NotRegistered:
        from difflib import get_close_matches

        names = [entry.name for entry in book.list()]
        close = get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        click.echo(f"There is no periodic task {name!r}.{hint}", err=True)
        raise SystemExit(exitcodes.NOT_FOUND) from None


def _when(text: str) -> float | str:
    """Seconds, or a crontab expression."""
    try:
        return float(text)
    except ValueError:
        return text
