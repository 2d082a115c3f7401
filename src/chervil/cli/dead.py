"""``chervil dead``: the messages that could not be run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from chervil.cli import exitcodes
from chervil.cli.access import broker_of, expect_database, expect_queues
from chervil.cli.deadletters import Choice, Letter, details, find, summary
from chervil.cli.output import plural, print_json, print_table, progress
from chervil.cli.session import ChervilGroup, Session, pass_session

if TYPE_CHECKING:
    from chervil.drivers.contracts import Broker

_HELP = """The dead-letter queue: messages that could not be run, and why.

\b
  chervil -A hello dead list
  chervil -A hello dead show 17
  chervil -A hello dead replay --task hello.add --dry-run
  chervil -A hello dead drop --reason 'not registered'

A message gets here when

\b
  - no node knew its task, after it was offered several times;
  - it cannot be decoded;
  - it was started several times, and each time its process died or was ended;
  - its task rejected it: raise Reject(requeue=False);
  - its task failed or exceeded its time limit, and has acks_late=True and
    acks_on_failure_or_timeout=False.

Nothing is deleted unless you drop it.
"""
#: Keys that are replayed or dropped at once.
BATCH = 200


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--reason", metavar="TEXT", help="Only those whose reason contains this."),
        click.option("--task", metavar="NAME", help="Only those of this task."),
        click.option("-Q", "--queue", metavar="NAME", help="Only those of this queue."),
    ):
        command = option(command)
    return command


def _chooser(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--dry-run", is_flag=True, help="Only say which and how many."),
        click.option("--all", "everything", is_flag=True, help="All dead letters."),
    ):
        command = option(command)
    return click.argument("keys", nargs=-1, metavar="[KEY|TASK-ID]...")(_filters(command))


@click.group("dead", cls=ChervilGroup, help=_HELP, epilog=exitcodes.HELP)
def command() -> None:
    pass


@command.command("list")
@_filters
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="Show at most this many, the oldest.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_session
def list_(
    session: Session,
    /,
    queue: str | None,
    task: str | None,
    reason: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List dead letters, oldest first."""
    broker = _open(session, queue)
    letters = list(islice(find(broker, Choice((), queue, task, reason)), limit + 1))
    shown = letters[:limit]
    if as_json:
        print_json([summary(letter) for letter in shown])
        return
    if not shown:
        session.note("No dead letters.")
        return
    columns = ("key", "died", "task", "id", "queue", "times", "reason")
    rows = [
        [
            letter.key,
            letter.died[:19],
            letter.task,
            letter.task_id,
            letter.raw.queue,
            str(letter.raw.deliveries),
            letter.raw.reason,
        ]
        for letter in shown
    ]
    print_table(session, columns, rows, right=("times",))
    if len(letters) > limit:
        session.note(f"There are more than {limit}; see them with --limit.")


@command.command("show")
@click.argument("key", metavar="KEY|TASK-ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_session
def show(session: Session, /, key: str, as_json: bool) -> None:
    """Show one dead letter: its arguments, and why it died."""
    broker = _open(session)
    found = _not_empty(list(islice(find(broker, Choice((key,))), 2)), (key,))
    exact = [letter for letter in found if key in (letter.key, letter.task_id)] or found
    if len(exact) > 1:
        raise click.UsageError(f"{key!r} fits more than one dead letter; give more of it.")
    known = details(session.app(), exact[0])
    if as_json:
        print_json(known)
        return
    detail, headers = known.pop("detail"), known.pop("headers")
    for name, value in known.items():
        text = value if isinstance(value, str) else json.dumps(value, default=repr)
        click.echo(f"{name + ':':13}{text}")
    for name in ("origin", "root_id", "parent_id", "retries", "eta"):
        if headers.get(name):
            click.echo(f"{name + ':':13}{headers[name]}")
    if detail:
        click.echo(f"\n{detail.rstrip()}")


@command.command("replay")
@_chooser
@pass_session
def replay(session: Session, /, everything: bool, dry_run: bool, **choice: Any) -> None:
    """Put dead letters back on their queues.

    They are run again from the start, with their count of deliveries at 0.
    """
    broker = _open(session, choice["queue"])
    letters = _choose(broker, choice, everything)
    if dry_run:
        _announce(letters, "would be put back on their queues")
        return
    count = _in_batches(session, letters, broker.replay, "Replaying")
    click.echo(f"Put {plural(count, 'message')} back.")


@command.command("drop")
@_chooser
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_session
def drop(session: Session, /, everything: bool, dry_run: bool, force: bool, **choice: Any) -> None:
    """Delete dead letters for good; asks before."""
    broker = _open(session, choice["queue"])
    letters = _choose(broker, choice, everything)
    if dry_run:
        _announce(letters, "would be deleted")
        return
    if not force:
        _announce(letters, "will be deleted for good")
        click.confirm("Delete?", abort=True)
    count = _in_batches(session, letters, broker.drop, "Deleting")
    click.echo(f"Deleted {plural(count, 'dead letter')}.")


def _open(session: Session, queue: str | None = None) -> Broker:
    app = session.app()
    expect_database(session, app.conf.broker_url, app.conf.broker_transport_options)
    if queue is not None:
        expect_queues(app, [queue])
    return broker_of(app)


def _choose(broker: Broker, choice: dict[str, Any], everything: bool) -> list[Letter]:
    wanted = Choice(**choice)
    if everything and wanted.keys:
        raise click.UsageError("--all and keys contradict each other; give one of them.")
    if not everything and not wanted.narrows:
        raise click.UsageError(
            "Which ones? Give keys or task ids (see 'chervil dead list'), --queue, --task or "
            "--reason, or --all."
        )
    return _not_empty(list(find(broker, wanted)), wanted.keys)


def _not_empty(letters: list[Letter], keys: Sequence[str]) -> list[Letter]:
    missing = [key for key in keys if not any(Choice((key,)).takes(found) for found in letters)]
    if letters and not missing:
        return letters
    which = f" {', '.join(missing)}" if missing else ""
    click.echo(f"No such dead letter{which}.", err=True)
    raise SystemExit(exitcodes.NOT_FOUND)


def _announce(letters: Sequence[Letter], what: str) -> None:
    counts: dict[tuple[str, str], int] = {}
    for letter in letters:
        place = (letter.raw.queue, letter.task)
        counts[place] = counts.get(place, 0) + 1
    click.echo(f"{plural(len(letters), 'dead letter')} {what}:")
    for (queue, task), count in sorted(counts.items()):
        click.echo(f"  {count:>6,}  {task} of queue {queue}")


def _in_batches(
    session: Session,
    letters: Sequence[Letter],
    act: Callable[[Sequence[str]], int],
    text: str,
) -> int:
    done = 0
    with progress(session, text, len(letters)) as bar:
        for start in range(0, len(letters), BATCH):
            keys = [letter.key for letter in letters[start : start + BATCH]]
            done += act(keys)
            bar.advance(len(keys))
    return done
