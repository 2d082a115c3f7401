"""``chervil report``: what a bug report needs to say."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import click

from chervil import __version__
from chervil.cli.output import print_json
from chervil.cli.session import ChervilCommand, Session, pass_session
from chervil.settings.masking import masked

if TYPE_CHECKING:
    from chervil.app import Chervil

_HELP = """Print what a bug report needs: versions, platform and changed settings.

\b
  chervil -A hello report

Passwords and other secrets are replaced by stars; still, read it before you publish it.
"""
LIBRARIES = ("msgspec", "click", "rich", "pydantic", "PyYAML", "redis", "celery")


@click.command("report", cls=ChervilCommand, help=_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_session
def command(session: Session, /, as_json: bool) -> None:
    found = {
        "software": software(),
        "platform": platform_facts(),
        "app": app_facts(session.app()) if session.has_app else {},
        "settings": settings(session.app()),
    }
    if as_json:
        print_json(found)
        return
    for part, facts in found.items():
        click.echo(f"{part}:")
        for name, value in facts.items():
            click.echo(f"  {name}: {value}")
        if not facts:
            click.echo("  none" if part == "settings" else "  not given (-A)")


def software() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed."""
    versions = {
        "chervil": __version__,
        "python": sys.version.replace("\n", " "),
        "sqlite": sqlite3.sqlite_version,
    }
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def platform_facts() -> dict[str, str]:
    """The machine, and what variables say to this package."""
    facts = {
        "system": platform.platform(),
        "cpus": f"{os.cpu_count()}",
        "executable": sys.executable,
        "workdir": os.getcwd(),
    }
    if hasattr(os, "sched_getaffinity"):
        facts["cpus"] = f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"
    for name in sorted(os.environ):
        if name.startswith("CHERVIL_"):
            facts[name] = masked(os.environ[name], name)
    return facts


def app_facts(app: Chervil) -> dict[str, Any]:
    """The app's name and how many tasks it has."""
    return {"name": app.main, "tasks": len(app.tasks)}


def settings(app: Chervil) -> dict[str, str]:
    """The settings that differ from their defaults and where they were set; secrets masked."""
    return {
        name: f"{change.value!r}  (from {change.origin})"
        for name, change in sorted(app.conf.changes().items())
    }
