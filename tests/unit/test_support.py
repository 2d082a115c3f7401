"""The helpers that other tests rely on must themselves be able to fail."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support.processes import Tree, own_children
from tests.support.waiting import wait_until

ORPHAN = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         start_new_session=True)
child.returncode = 0
print(child.pid, flush=True)
"""


def test_wait_until_returns_the_value() -> None:
    values = iter([0, None, "", 7])
    assert wait_until(lambda: next(values), 5) == 7


def test_wait_until_names_what_did_not_happen() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: pigs fly \(last value: None\)"):
        wait_until(lambda: None, 0.01, "pigs fly")


def test_a_process_that_outlives_its_parent_is_found_and_ended(tmp_path: Path) -> None:
    tree = Tree()
    process = tree.start([sys.executable, "-c", ORPHAN], tmp_path, {}, tmp_path / "log")
    assert process.wait(20) == 0
    orphan = int((tmp_path / "log").read_text())
    assert tree.pids() == {orphan}

    left = tree.close(grace=0.1)

    assert len(left) == 1
    assert left[0].startswith(f"{orphan} (")
    wait_until(lambda: not tree.pids(), 5)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    tree = Tree()
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('on', flush=True); time.sleep(60)"
    )
    process = tree.start([sys.executable, "-c", code], tmp_path, {}, tmp_path / "log")
    wait_until(lambda: "on" in (tmp_path / "log").read_text(), 20)
    assert process.pid in own_children()

    assert tree.close(timeout=0.2) == []
    assert process.returncode == -signal.SIGKILL
    assert process.pid not in own_children()
