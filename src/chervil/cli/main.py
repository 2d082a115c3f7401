"""``chervil``: the group of all commands, and its global options.

A command's module is imported when the command is invoked; ``--help`` needs
none of them, and none of the commands that must start fast imports rich.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from chervil import __version__
from chervil.cli import exitcodes
from chervil.cli.session import GLOBAL_OPTIONS, ChervilCommand, add_options
from chervil.exceptions import ChervilError

#: Name of a command -> (module that defines ``command``, line for ``--help``).
COMMANDS: dict[str, tuple[str, str]] = {
    "worker": ("chervil.cli.worker", "Run tasks: start a worker node."),
    "beat": ("chervil.cli.beat", "Send periodic tasks when they are due."),
    "schedule": ("chervil.cli.schedule", "List and change periodic tasks."),
    "call": ("chervil.cli.call", "Send one task by its name."),
    "result": ("chervil.cli.result", "Show the state and result of a task."),
    "revoke": ("chervil.cli.revoke", "Cancel tasks: those that wait, and those that run."),
    "status": ("chervil.cli.status", "Show which nodes are running."),
    "inspect": ("chervil.cli.inspect", "Ask nodes what they do."),
    "control": ("chervil.cli.control", "Tell nodes what to do."),
    "health": ("chervil.cli.health", "Ask a worker of this machine whether it is well."),
    "queues": ("chervil.cli.queues", "Show what waits in the queues."),
    "dead": ("chervil.cli.dead", "List, replay or drop messages that could not be run."),
    "purge": ("chervil.cli.purge", "Delete all waiting messages of queues."),
    "report": ("chervil.cli.report", "Show versions, platform and settings, for bug reports."),
    "shell": ("chervil.cli.shell", "Open a Python shell with the app and its tasks."),
    "demo": ("chervil.cli.demo", "See Chervil work: real tasks, nothing to set up."),
    "completion": ("chervil.cli.completion", "Print the completion script for your shell."),
}

_HELP = """Chervil, a distributed task queue for Python.

\b
Start here:
  chervil demo                      see it work
  chervil -A hello worker           run the tasks of hello.py
  chervil -A hello call hello.add -a '[2, 3]' --wait
"""


class LazyGroup(click.Group):
    """A group that imports a command's module only when it is needed."""

    command_class = ChervilCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = importlib.import_module(entry[0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            close = get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"There is no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=line)
            for name, (_, line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ChervilError as exc:
            if os.environ.get("CHERVIL_DEBUG"):
                raise
            raise click.ClickException(str(exc)) from exc
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            raise click.exceptions.Exit(exitcodes.INTERRUPTED) from None


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"chervil {__version__}")
    ctx.exit()


@click.group(
    "chervil",
    cls=LazyGroup,
    help=_HELP,
    epilog=f"Run 'chervil COMMAND --help' to read about one command. {exitcodes.HELP}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Print the version and exit.",
)
def cli() -> None:
    pass


add_options(cli, GLOBAL_OPTIONS, root=True)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The entry point of ``chervil``; ends the process with an exit code."""
    try:
        cli.main(args, prog_name="chervil")
    except KeyboardInterrupt:  # in a moment in which click does not listen
        raise SystemExit(exitcodes.INTERRUPTED) from None
    raise SystemExit(exitcodes.OK)  # click has exited already
