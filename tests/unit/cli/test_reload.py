"""The reloading parent, with a small script in the worker's place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chervil.cli.names import RELOAD_REPORT
from chervil.cli.reload import changes, project_files, report_files, snapshot

PARENT = """
import sys
from chervil.cli.reload import Reloader
sys.exit(Reloader([sys.executable, "child.py"], interval=0.05).run())
"""
CHILD = """
import signal, sys
from chervil.cli import reload
print("start", flush=True)
try:
    import project
except BaseException as exc:
    reload.report_files(exc)
    raise
signal.signal(signal.SIGTERM, lambda *_: (print("term", flush=True), sys.exit(0)))
signal.signal(signal.SIGINT, lambda *_: (print("int", flush=True), sys.exit(0)))
reload.report_files()
print("ready", project.NAME, flush=True)
while True:
    signal.pause()
"""


class Parent:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "out.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PARENT], cwd=folder, stdout=out, stderr=out
            )

    def expect(self, text: str, count: int = 1, deadline: float = 15) -> None:
        self.until(lambda: self.output().count(text) >= count, f"{text!r} x {count}", deadline)

    def until(self, condition: Callable[[], bool], what: str, deadline: float = 15) -> None:
        end = time.monotonic() + deadline
        while not condition():
            assert time.monotonic() < end, f"no {what} in: {self.output()}"
            time.sleep(0.01)

    def output(self) -> str:
        return self.log.read_text()

    def write(self, text: str) -> None:
        path = self.folder / "project.py"
        path.write_text(text)
        later = path.stat().st_mtime_ns + 1_000_000
        os.utime(path, ns=(later, later))


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "project.py").write_text("NAME = 'one'\n")
    parent = Parent(tmp_path)
    yield parent
    if parent.process.poll() is None:
        parent.process.send_signal(signal.SIGTERM)
        parent.process.wait(10)


def test_a_change_restarts_the_child(parent: Parent) -> None:
    parent.expect("ready one")
    parent.write("NAME = 'two two'\n")
    parent.expect("ready two two")
    assert "term" in parent.output()
    assert "Reloading: project.py" in parent.output()


def test_a_new_module_restarts_the_child(parent: Parent) -> None:
    parent.expect("ready one")
    (parent.folder / "more.py").write_text("")
    parent.expect("ready one", 2)


def test_ctrl_c_is_passed_on_once(parent: Parent) -> None:
    parent.expect("ready one")
    parent.process.send_signal(signal.SIGINT)
    assert parent.process.wait(10) == 0
    assert parent.output().count("int") == 1
    assert "term" not in parent.output()


def test_an_import_error_waits_for_the_next_change(parent: Parent) -> None:
    parent.expect("ready one")
    parent.write("NAME = (\n")
    parent.expect("SyntaxError")
    parent.expect("waiting for a change")
    parent.write("NAME = 'mended'\n")
    parent.expect("ready mended")


def test_ctrl_c_ends_the_wait_for_a_change(parent: Parent) -> None:
    parent.expect("ready one")
    parent.write("1/0\n")
    parent.expect("waiting for a change")
    parent.process.send_signal(signal.SIGINT)
    assert parent.process.wait(10) == 130


def test_project_files_are_neither_python_nor_installed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("")
    files = [str(mine), os.__file__, pytest.__file__, str(tmp_path / "gone.py"), "<frozen x>"]
    assert project_files(files) == {os.path.realpath(mine)}


def test_report_names_the_file_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def (:\n")
    report = tmp_path / "report.json"
    monkeypatch.setenv(RELOAD_REPORT, str(report))
    with pytest.raises(SyntaxError) as caught:
        compile(bad.read_text(), str(bad), "exec")
    report_files(caught.value)
    assert str(bad) in report.read_text()


def test_changes(tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept.py", tmp_path / "gone.py"
    kept.write_text("")
    gone.write_text("")
    before = snapshot([str(kept)])
    assert changes(before, snapshot([str(kept)])) == []
    gone.unlink()
    (tmp_path / "new.py").write_text("")
    (tmp_path / "data.txt").write_text("")
    os.utime(kept, ns=(1, 1))
    found = [os.path.basename(path) for path in changes(before, snapshot([str(kept)]))]
    assert found == ["gone.py", "kept.py", "new.py"]
