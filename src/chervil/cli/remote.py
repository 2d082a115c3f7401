"""What ``inspect``, ``control`` and ``status`` have in common: a command to nodes, and
their answers on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from chervil.cli import exitcodes
from chervil.cli.access import expect_database
from chervil.cli.output import duration, print_json, print_table
from chervil.cli.params import COMMA_LIST

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.cli.session import Session
    from chervil.worker.control import Command


class NoAnswer(click.ClickException):
    """No node has answered."""

    exit_code = exitcodes.NOT_FOUND


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that all three have."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON: node -> answer."),
        click.option(
            "-t",
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=None,
            metavar="SECONDS",
            help="Wait for answers so long (1, where a command does not say otherwise).",
        ),
        click.option(
            "-d",
            "--destination",
            type=COMMA_LIST,
            metavar="NODE,NODE",
            help="Only these nodes, as name@host.",
        ),
    ):
        command = option(command)
    return command


def commands(kind: str) -> dict[str, Command]:
    """The commands of a kind by name, without aliases."""
    from chervil.worker.control import Panel, builtin

    _ = builtin
    found = Panel.commands.items()
    return {name: c for name, c in sorted(found) if c.kind == kind and c.name == name}


def listing(kind: str) -> str:
    """The commands of a kind, for ``--help``."""
    rows = [
        (f"{name} {command.signature}".rstrip(), command.help)
        for name, command in commands(kind).items()
        if command.visible
    ]
    return "\n".join(f"  {what}\n      {text}" for what, text in rows)


def command_of(kind: str, name: str) -> Command:
    """The command of that name or alias.

    :raises click.UsageError: there is none; names the closest.
    """
    known = commands(kind)
    from chervil.worker.control import Panel

    command = Panel.commands.get(name)
    if command is not None and command.kind == kind:
        return command
    if command is not None:
        raise click.UsageError(f"{name!r} is a command of 'chervil {command.kind}'.")
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise click.UsageError(f"There is no command {name!r}.{hint} (Known: {', '.join(known)}.)")


def arguments_of(command: Command, given: Sequence[str]) -> dict[str, Any]:
    """What was given on the command line, by the names of the command's arguments.

    :raises click.UsageError: there is too much, or it is of a wrong type.
    """
    left, found = list(given), {}
    for name, convert in command.args:
        if name == command.variadic or not left:
            continue
        text = left.pop(0)
        try:
            found[name] = _truth(text) if convert is bool else convert(text)
        except (ValueError, TypeError) as exc:
            raise click.UsageError(f"{command.name}: {name}: {exc}") from None
    if command.variadic:
        found[command.variadic] = left
    elif left:
        usage = f"{command.name} {command.signature}".rstrip()
        raise click.UsageError(f"{command.name}: too many arguments; usage: {usage}")
    return found


def _truth(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def ask(
    session: Session,
    app: Chervil,
    command: Command,
    arguments: dict[str, Any],
    destination: Sequence[str] | None,
    timeout: float | None,
) -> dict[str, Any]:
    """The answers of the nodes by their names.

    :raises NoAnswer: there are none.
    """
    expect_database(session, app.conf.broker_url, app.conf.broker_transport_options)
    seconds = command.default_timeout if timeout is None else timeout
    replies = app.control.broadcast(
        command.name, arguments, destination, reply=True, timeout=seconds
    )
    answers = {name: answer for reply in replies or () for name, answer in reply.items()}
    missing = [name for name in destination or () if name not in answers]
    if not answers or missing:
        who = f"{', '.join(missing)} did not answer" if missing else "No node answered"
        if missing and answers:
            click.echo(f"{who} within {seconds:g} s.", err=True)
        else:
            raise NoAnswer(f"{who} within {seconds:g} s.")
    return answers


def show(session: Session, answers: dict[str, Any], as_json: bool) -> None:
    """Print the answers, node by node; a table where they are lists of tasks."""
    if as_json:
        print_json(answers)
        return
    if all(_is_tasks(answer) for answer in answers.values()):
        _show_tasks(session, answers)
        return
    for name, answer in sorted(answers.items()):
        if isinstance(answer, dict) and set(answer) == {"ok"}:
            click.echo(f"{name}: {answer['ok']}")
        elif isinstance(answer, dict) and set(answer) == {"error"}:
            click.secho(f"{name}: ERROR: {answer['error']}", fg="red", color=session.color or None)
        else:
            click.echo(f"{name}:")
            for line in _lines(answer):
                click.echo(f"  {line}")


def failed(answers: dict[str, Any]) -> bool:
    """Whether a node has answered with an error."""
    return any(isinstance(a, dict) and set(a) == {"error"} for a in answers.values())


def _is_tasks(answer: Any) -> bool:
    return isinstance(answer, list) and all(
        isinstance(item, dict) and "id" in item and "name" in item for item in answer
    )


def _show_tasks(session: Session, answers: dict[str, Any]) -> None:
    import time

    rows = []
    for node, tasks in sorted(answers.items()):
        for task in tasks:
            began = task.get("time_start")
            since = duration(max(0.0, time.time() - began)) if began else "-"
            arguments = f"{task.get('args', '')} {task.get('kwargs') or ''}".strip()
            pid = task.get("worker_pid")
            row = [node, task["id"], task["name"], since, str(pid or "-"), arguments[:60]]
            rows.append(row)
    if not rows:
        click.echo(f"None, on {', '.join(sorted(answers))}.")
        return
    columns = ("node", "id", "task", "runs for", "pid", "arguments")
    print_table(session, columns, rows, right=("runs for", "pid"))


def _lines(value: Any, depth: int = 0) -> Iterable[str]:
    """A value as indented text."""
    pad = "  " * depth
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                yield f"{pad}{key}:"
                yield from _lines(item, depth + 1)
            else:
                yield f"{pad}{key}: {item}"
    elif isinstance(value, list) and value:
        for item in value:
            if isinstance(item, (dict, list)) and item:
                first, *rest = _lines(item, depth + 1)
                yield f"{pad}- {first.strip()}"
                yield from rest
            else:
                yield f"{pad}- {item}"
    else:
        yield f"{pad}{value if value not in (None, [], {}) else '-'}"
