"""Tables, JSON and progress on the terminal; plain text in a pipe.

rich is imported only for a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click

from chervil.cli.session import Session


def print_json(value: Any) -> None:
    """One indented JSON document; values that JSON does not know become text."""
    import json

    click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(
    session: Session,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    right: Sequence[str] = (),
    alarm: Sequence[str] = (),
) -> None:
    """A table on a terminal; aligned columns in a pipe.

    :param right: columns that are aligned to the right.
    :param alarm: columns that are red when they are not 0.
    """
    if not sys.stdout.isatty():
        _print_plain(columns, rows, right)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        cells = [
            Text(cell, style="bold red" if name in alarm and cell != "0" else "")
            for name, cell in zip(columns, row, strict=True)
        ]
        table.add_row(*cells)
    Console(no_color=not session.color, highlight=False).print(table)


def _print_plain(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> None:
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        parts = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


class Progress(Protocol):
    """Takes note of how far some work is."""

    def advance(self, steps: int = 1) -> None: ...


class _Silent:
    def advance(self, steps: int = 1) -> None:
        pass


class _Bar:
    def __init__(self, bar: Any, task: Any) -> None:
        self._bar = bar
        self._task = task

    def advance(self, steps: int = 1) -> None:
        self._bar.advance(self._task, steps)


@contextmanager
def progress(session: Session, text: str, total: int) -> Iterator[Progress]:
    """A progress bar on stderr while the block runs; nothing without a terminal."""
    if session.quiet or not sys.stderr.isatty():
        yield _Silent()
        return
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True, no_color=not session.color)
    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        yield _Bar(bar, bar.add_task(text, total=total))


def duration(seconds: float) -> str:
    """``0.8s``, ``12s``, ``3m 20s``, ``5h 02m``, ``3d 4h``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02}m"
    return f"{hours // 24}d {hours % 24}h"


def plural(count: int, word: str, many: str = "") -> str:
    """``1 message``, ``2,000 messages``."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"
