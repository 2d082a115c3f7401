from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from chervil import Chervil
from chervil.cli import demo, demo_tasks, shell
from chervil.cli.output import duration, plural
from tests.unit.cli.conftest import Cli

# --- report ---------------------------------------------------------------------------


def test_report_masks_secrets(run: Cli, app: Chervil, monkeypatch: pytest.MonkeyPatch) -> None:
    app.conf.task_time_limit = 77
    app.conf.broker_transport_options = {"password": "geheim"}
    monkeypatch.setenv("CHERVIL_BROKER_URL", "redis://me:geheim@host/0")
    said = run("report").stdout
    assert "task_time_limit: 77" in said
    assert sys.version.split()[0] in said
    assert "redis://me:********@host/0" in said
    assert "geheim" not in said


def test_report_as_json(run: Cli) -> None:
    found = json.loads(run("report", "--json").stdout)
    assert found["app"]["name"] == "shop"
    assert found["software"]["chervil"]
    assert "broker_url" in found["settings"]


# --- completion -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_script(run: Cli, name: str) -> None:
    done = run("completion", name)
    assert done.exit_code == 0
    assert "_CHERVIL_COMPLETE" in done.stdout


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash to check its syntax")
def test_bash_accepts_the_script(run: Cli) -> None:
    script = run("completion", "bash").stdout
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_of_the_users_shell(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert "compdef" in run("completion").stdout
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    done = run("completion")
    assert done.exit_code == 2
    assert "bash, zsh, fish" in done.output


def complete(words: str, folder: Path) -> list[str]:
    """What Tab offers for the last word."""
    parts = words.split(" ")
    environment = {
        **os.environ,
        "_CHERVIL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(parts) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "chervil"], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_tab_completes_commands_options_and_tasks(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from chervil import Chervil\napp = Chervil('shop')\n@app.task\ndef order(): pass\n"
    )
    assert complete("chervil wo", tmp_path) == ["worker"]
    assert "--concurrency" in complete("chervil worker --con", tmp_path)
    assert complete("chervil -A shop call sho", tmp_path) == ["shop.order"]
    assert complete("chervil -A nothing call sho", tmp_path) == []


# --- shell ----------------------------------------------------------------------------


def test_shell_namespace(app: Chervil) -> None:
    names = shell.namespace(app)
    assert names["app"] is app
    assert names["add"].name == "shop.add"
    assert "add" not in shell.namespace(app, tasks=False)


def test_python_shell(run: Cli) -> None:
    done = run("shell", "--python", stdin="print('sum', add(2, 3))\n")
    assert done.exit_code == 0
    assert "sum 5" in done.output


def test_shell_that_is_not_installed(run: Cli) -> None:
    done = run("shell", "--bpython")
    assert done.exit_code == 2
    assert "pip install bpython" in done.output


# --- demo -----------------------------------------------------------------------------


def test_demo_counts_words(tmp_path: Path) -> None:
    path = tmp_path / "text.py"
    path.write_bytes(b"def Spam(spam): return eggs  # \xff ab\n")
    assert demo_tasks.count_words(str(path)) == Counter(
        {"def": 1, "spam": 2, "return": 1, "eggs": 1}
    )


def test_the_standard_library_is_found() -> None:
    paths = demo.standard_library()
    assert len(paths) > 500
    assert os.__file__ in paths
    assert not any("site-packages" in path for path in paths)
    assert demo.standard_library(3) == paths[:3]


# --- words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (0.84, "0.8s"), (12.4, "12s"), (59.7, "1m 00s"), (200, "3m 20s"),
     (18_120, "5h 02m"), (277_000, "3d 4h")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plural() -> None:
    assert plural(1, "message") == "1 message"
    assert plural(2000, "message") == "2,000 messages"
    assert plural(2, "process", "processes") == "2 processes"
