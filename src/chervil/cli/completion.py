"""``chervil completion``: the script that makes Tab complete commands and options."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from chervil.cli.session import ChervilCommand

_HELP = """Print the completion script for a shell.

\b
  bash   echo 'eval "$(chervil completion bash)"' >> ~/.bashrc
  zsh    echo 'eval "$(chervil completion zsh)"' >> ~/.zshrc
  fish   chervil completion fish > ~/.config/fish/completions/chervil.fish

Without SHELL, the one that $SHELL names. After '-A hello call', Tab completes the names of
the app's tasks.
"""
SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=ChervilCommand, help=_HELP)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell: str | None) -> None:
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise click.UsageError(f"Which shell? One of: {', '.join(SHELLS)}.")
    found = get_completion_class(name)
    assert found is not None
    root = click.get_current_context().find_root()
    click.echo(found(root.command, {}, "chervil", "_CHERVIL_COMPLETE").source())
