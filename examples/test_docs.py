"""What README and documentation say works: their Python blocks run, and the
commands in them exist with the options that they are shown with."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from chervil.cli.main import cli

EXAMPLES = Path(__file__).resolve().parent
ROOT = EXAMPLES.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_SHELL = re.compile(r"^ *```(sh|console)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    if "```python" not in (text := page.read_text()) and "{.python}" not in text:
        pytest.skip("no Python here")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHERVIL_")}
    environment["PYTHONPATH"] = str(EXAMPLES)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "run_blocks.py"), str(page)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each ``chervil ...`` line in blocks of shell commands."""
    for block in _SHELL.finditer(page.read_text()):
        prompt = "$ " if block[1] == "console" else ""
        for line in block[2].splitlines():
            words = line.strip()
            if not words.startswith(prompt):
                continue
            words = words.removeprefix(prompt)
            if words.startswith(("chervil ", "python -m chervil ")):
                yield shlex.split(words.partition("chervil ")[2], comments=True)


def parse(command: click.Command, args: list[str], parent: click.Context | None = None) -> None:
    """Parse a command line as click does when it is about to run it."""
    args = [arg for arg in args if arg != "&"]
    with command.make_context(command.name, args, parent=parent) as ctx:
        if isinstance(command, click.Group):
            _, sub, rest = command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
            assert sub is not None
            parse(sub, rest, ctx)


CASES = [(page, args) for page in PAGES for args in commands(page)]


@pytest.mark.parametrize(("page", "args"), CASES, ids=lambda value: str(value)[-60:])
def test_command_lines_are_right(page: Path, args: list[str]) -> None:
    parse(cli, args)


def test_command_lines_are_found() -> None:
    assert len(CASES) > 20
