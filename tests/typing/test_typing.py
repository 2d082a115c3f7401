"""The types of the public API, as mypy in strict mode sees them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
_EXPECTED = re.compile(r"# E: ([\w-]+)")
_REPORTED = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")


def errors(path: Path, tmp_path: Path) -> tuple[set[tuple[int, str]], str]:
    """The line and code of each error that mypy finds in a file, and its whole output."""
    output, problems, _ = api.run(
        [
            "--strict",
            "--no-pretty",
            "--no-error-summary",
            "--follow-imports=silent",
            f"--config-file={ROOT / 'pyproject.toml'}",
            f"--cache-dir={tmp_path_cache(tmp_path)}",
            str(path),
        ]
    )
    assert not problems, problems
    found = set()
    for line in output.splitlines():
        match = _REPORTED.match(line)
        if match and Path(match["file"]).name == path.name:
            found.add((int(match["line"]), match["code"]))
    return found, output


def tmp_path_cache(tmp_path: Path) -> Path:
    """One cache for the tests of this run."""
    return tmp_path.parent / "mypy-cache"


@pytest.mark.timeout(240)
def test_what_is_right_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found, output = errors(HERE / "right.py", tmp_path)
    assert not found, output
    assert "error:" not in output, output


@pytest.mark.timeout(240)
def test_what_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = HERE / "wrong.py"
    expected = {
        (number, match[1])
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := _EXPECTED.search(line))
    }
    assert len(expected) > 15
    found, output = errors(path, tmp_path)
    assert found == expected, output
