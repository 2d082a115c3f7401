"""The page of guarantees names, for each fault and broker, tests that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guide" / "guarantees.md"
HEAD = ["Fault", "Kept", "May run twice", "How long"]
#: Suites of conformance: what is in them is run for each broker.
SUITES = "src/chervil/testing/"


def places() -> dict[str, list[Path]]:
    """All tests, and where they are."""
    found: dict[str, list[Path]] = {}
    for folder in (ROOT / "tests", ROOT / SUITES):
        for path in folder.rglob("*.py"):
            text = path.read_text()
            for name in re.findall(r"^\s*(?:async )?def (test_\w+)\(", text, re.MULTILINE):
                found.setdefault(name, []).append(path)
    return found


TESTS = places()


def is_about(path: Path, broker: str) -> bool:
    """Whether a test in that file can be one of that broker."""
    where = path.relative_to(ROOT).as_posix()
    if where.startswith(SUITES):
        return True
    others = {"SQLite": "tests/redis/", "Redis": "drivers/sqlite/"}
    mentions = broker.lower() in path.read_text().lower() or broker == "SQLite"
    return mentions and others.get(broker, "\0") not in where


def rows(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The faults of all tables of a page, each with its cells by broker."""
    brokers: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            brokers = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[: len(HEAD)] == HEAD:
            brokers = cells[len(HEAD) :]
        elif brokers and set(cells[0]) != {"-"}:
            assert len(cells) == len(HEAD) + len(brokers), line
            yield cells[0], dict(zip(brokers, cells[len(HEAD) :], strict=True))


def complaints(broker: str, cell: str) -> list[str]:
    """What is wrong with a cell of tests."""
    names = re.findall(r"`(test_\w+)`", cell)
    if not names and not cell.startswith(("soak", "— ")):
        return ["names no test"]
    wrong = [f"there is no {name}" for name in names if name not in TESTS]
    for name in set(names) & set(TESTS):
        if not any(is_about(path, broker) for path in TESTS[name]):
            wrong.append(f"{name} is not about {broker}")
    return wrong


FAULTS = list(rows(PAGE.read_text()))


@pytest.mark.parametrize(("fault", "cells"), FAULTS, ids=[fault for fault, _ in FAULTS])
def test_each_cell_names_its_tests(fault: str, cells: dict[str, str]) -> None:
    assert set(cells) >= {"SQLite", "Redis"}
    wrong = {broker: found for broker, cell in cells.items() if (found := complaints(broker, cell))}
    assert not wrong, fault


def test_every_name_in_the_text_is_a_test() -> None:
    assert [n for n in re.findall(r"`(test_\w+)`", PAGE.read_text()) if n not in TESTS] == []
    assert len(FAULTS) > 20


@pytest.mark.parametrize(
    ("broker", "cell"),
    [
        ("Redis", ""),
        ("Redis", "works"),
        ("SQLite", "`test_that_nobody_wrote`"),
        ("SQLite", "`test_the_primary_is_killed`"),
        ("Redis", "`test_a_damaged_file_is_named`"),
    ],
)
def test_a_cell_can_be_wrong(broker: str, cell: str) -> None:
    assert complaints(broker, cell)
