"""Commands that only look create no database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chervil.cli import exitcodes
from tests.unit.cli.conftest import Cli


@pytest.mark.parametrize(
    "args",
    [
        ("queues",),
        ("queues", "--json"),
        ("dead", "list"),
        ("dead", "show", "1"),
        ("dead", "replay", "--all"),
        ("dead", "drop", "--all", "-f"),
        ("purge", "-f"),
        ("revoke", "some-id"),
    ],
)
def test_no_database(
    run: Cli, args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    done = run("-b", "sqlite:///typo.db", *args, app=False)
    assert done.exit_code == exitcodes.NOT_FOUND
    assert f"there is no database {tmp_path / 'typo.db'}" in done.output
    assert sorted(os.listdir()) == before


def test_no_results(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    done = run("--result-backend", "sqlite:///typo.db", "result", "some-id", app=False)
    assert done.exit_code == exitcodes.NOT_FOUND
    assert "typo.db" in done.output
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("args", [("queues",), ("dead", "list"), ("result", "x"), ("revoke", "x")])
def test_neither_app_nor_broker(run: Cli, args: tuple[str, ...]) -> None:
    done = run(*args, app=False)
    assert done.exit_code == exitcodes.USAGE
    assert "No app or broker given" in done.output


def test_a_wrong_option_in_the_url_is_told(run: Cli) -> None:
    done = run("-b", "sqlite:///typo.db?sychronous=FULL", "queues", app=False)
    assert done.exit_code == exitcodes.ERROR
    assert "did you mean 'synchronous'" in done.output


def test_report_looks_at_no_database(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    assert run("-b", "sqlite:///typo.db", "report", app=False).exit_code == 0
    assert sorted(os.listdir()) == before
