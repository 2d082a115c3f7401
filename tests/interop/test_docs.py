"""The page for users lists what is checked here, all of it and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from tests.interop.sides import ROOT

PAGE = ROOT / "docs" / "running-beside-celery.md"
HERE = Path(__file__)


def test_the_table_names_every_test() -> None:
    tests = {
        name
        for path in HERE.parent.glob("test_*.py")
        if path != HERE
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = re.findall(r"`(test_\w+)`", PAGE.read_text())
    assert sorted(named) == sorted(tests)
