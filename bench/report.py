"""The table for people and the JSON for later."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.core import BARE, CHERVIL, Measure, Session
from bench.procs import CORES, ROOT
from bench.systems import SYSTEMS, load


def machine() -> dict[str, Any]:
    """What this ran on."""
    cpu = ""
    try:
        with open("/proc/cpuinfo") as lines:
            cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    except OSError:
        cpu = platform.processor()
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu,
        "cores used": min(CORES, os.cpu_count() or 1),
        "load before": round(os.getloadavg()[0], 2),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
    }


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Of all that is measured."""
    found = {}
    for system in SYSTEMS:
        for name in load(system).DISTRIBUTIONS:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "missing"
    return found


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(measure: Measure, system: str) -> str:
    """Chervil against another system: how many times better."""
    if system not in measure.values or CHERVIL not in measure.values:
        return ""
    mine, theirs = measure.values[CHERVIL].median, measure.values[system].median
    if not mine or not theirs:
        return ""
    if system == BARE:
        return f" ({mine / theirs:.0%})"
    better = mine / theirs if measure.unit.endswith("/s") else theirs / mine
    return f" ({better:.1f}×)"


def _cell(measure: Measure, system: str) -> str:
    if system in measure.errors:
        return "[red]failed[/]"
    if system not in measure.values:
        return ""
    return number(measure.values[system].median) + _ratio(measure, system) * (system != CHERVIL)


def _goals(measure: Measure) -> str:
    marks = {True: "[green]met[/]", False: "[red]not met[/]", None: "[dim]?[/]"}
    return "\n".join(
        f"{g.text(measure.unit)}: {marks[g.met(measure.values)]}" for g in measure.goals
    )


def table(session: Session, about: dict[str, Any], used: dict[str, str]) -> Table:
    """All measurements, the systems side by side."""
    facts = ", ".join(f"{k} {v}" for k, v in about.items() if v != "" and k != "time")
    result = Table(
        title="In brackets: Chervil's share of the bare loop, or how many times better Chervil is",
        caption=f"{', '.join(f'{k} {v}' for k, v in used.items())}\n{facts}",
        title_justify="left",
        caption_justify="left",
    )
    result.add_column("Measured")
    result.add_column("Unit")
    columns = [CHERVIL, BARE, *(name for name in SYSTEMS if name != CHERVIL)]
    for column in columns:
        result.add_column(column, justify="right")
    result.add_column("Goal", no_wrap=True)
    for measure in session.measures.values():
        cells = [_cell(measure, column) for column in columns]
        result.add_row(measure.title, measure.unit, *cells, _goals(measure))
    return result


#: More than this many runnable processes beside ours, and figures are not to be trusted.
BUSY = 0.5


def show(session: Session, about: dict[str, Any]) -> None:
    """Print the table and what went wrong."""
    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    console.print(table(session, about, versions()))
    if about["load before"] > BUSY:
        console.print(
            f"[yellow]Other programs were using this machine (load {about['load before']} "
            "before the first measurement): figures are lower and vary more.[/]"
        )
    for measure in session.measures.values():
        for system, error in measure.errors.items():
            console.print(f"[red]failed[/] {measure.title}, {system}: {error}", markup=True)


def save(session: Session, about: dict[str, Any], directory: Path) -> Path:
    """Write everything as JSON; the path of the file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{about['time'].replace(':', '')}.json"
    goals = {
        m.name: [{"goal": g.text(m.unit), "met": g.met(m.values)} for g in m.goals]
        for m in session.measures.values()
    }
    document = {
        "machine": about,
        "versions": versions(),
        "quick": session.quick,
        "measures": list(session.measures.values()),
        "goals": goals,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    return path
