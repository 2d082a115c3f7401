"""What is measured: cases, their values for each system, and the goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

CHERVIL = "Chervil"
BARE = "Bare loop"

Kind = Literal["at least", "at most"]


class Goal(msgspec.Struct, frozen=True):
    """What Chervil's value has to be, by itself or against another system's."""

    kind: Kind
    number: float
    #: The system whose value ``number`` multiplies; empty: ``number`` is absolute.
    of: str = ""

    def text(self, unit: str) -> str:
        """The goal in words."""
        sign = "≥" if self.kind == "at least" else "≤"
        if not self.of:
            return f"{sign} {self.number:,g} {unit}"
        if self.of == BARE:
            return f"{sign} {self.number:.0%} of the bare loop"
        return f"{sign} {self.number:g} × {self.of}"

    def met(self, values: dict[str, Value]) -> bool | None:
        """Whether it is met; None when a value is missing."""
        if CHERVIL not in values or (self.of and self.of not in values):
            return None
        limit = self.number * (values[self.of].median if self.of else 1)
        mine = values[CHERVIL].median
        return mine >= limit if self.kind == "at least" else mine <= limit


class Value(msgspec.Struct):
    """All runs of one measurement on one system."""

    runs: list[float] = []
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.runs)


class Measure(msgspec.Struct):
    """One line of the table."""

    name: str
    title: str
    unit: str
    goals: list[Goal] = []
    values: dict[str, Value] = {}
    #: Systems that could not be measured, and why.
    errors: dict[str, str] = {}

    def add(self, system: str, value: float, note: str = "") -> None:
        """Note down one run."""
        entry = self.values.setdefault(system, Value())
        entry.runs.append(value)
        if note:
            entry.note = note


class Session(msgspec.Struct):
    """One run of the benchmark: its options and what it has found so far."""

    quick: bool
    directory: Path
    systems: frozenset[str]
    repeat: int
    say: Callable[[str], None]
    measures: dict[str, Measure] = {}

    def measure(self, name: str, title: str, unit: str, *goals: Goal) -> Measure:
        """The line of that name."""
        if name not in self.measures:
            self.measures[name] = Measure(name, title, unit, list(goals))
        return self.measures[name]

    def wants(self, system: str) -> bool:
        """Whether this system is to be measured."""
        return not self.systems or system in self.systems

    def attempt(
        self, measures: Measure | list[Measure], system: str, run: Callable[[], Any]
    ) -> None:
        """Run one measurement; a failure is noted in the lines it would have filled."""
        measures = measures if isinstance(measures, list) else [measures]
        if not self.wants(system) or any(system in m.errors for m in measures):
            return
        self.say(f"{measures[0].title}: {system}")
        try:
            run()
        except Exception as exc:
            for measure in measures:
                measure.errors[system] = f"{type(exc).__name__}: {exc}"


class Case(msgspec.Struct, frozen=True):
    """Something to be selected by name on the command line."""

    name: str
    doc: str
    run: Callable[[Session], None]


CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Callable[[Session], None]], Callable[[Session], None]]:
    """Register a function as the case of that name."""

    def register(run: Callable[[Session], None]) -> Callable[[Session], None]:
        CASES[name] = Case(name, (run.__doc__ or "").strip().splitlines()[0], run)
        return run

    return register
