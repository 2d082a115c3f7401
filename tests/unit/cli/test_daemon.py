from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from chervil.cli.daemon import PidFile, alive, become


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_pid_file_is_created_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    pidfile = PidFile(str(path))
    pidfile.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.release()
    assert not path.exists()


def test_pid_file_of_a_living_process_keeps_others_out(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.write_text(str(os.getppid()))
    with pytest.raises(click.ClickException, match=f"running already: process {os.getppid()}"):
        PidFile(str(path)).acquire()
    assert path.exists()


@pytest.mark.parametrize("kind", ["ended", "empty"])
def test_stale_pid_file_is_taken_over(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pid"
    path.write_text(str(ended_process()) if kind == "ended" else "")
    pidfile = PidFile(str(path))
    pidfile.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    assert "stale" in capsys.readouterr().err
    pidfile.release()


def test_pid_file_with_other_content_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(click.ClickException, match="holds no process id"):
        PidFile(str(path)).acquire()
    assert path.read_text() == "my notes"


def test_pid_file_in_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="No such file"):
        PidFile(str(tmp_path / "no" / "w.pid")).acquire()


def test_only_the_owner_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    PidFile(str(path)).release()
    pidfile = PidFile(str(path))
    pidfile.acquire()
    pid = os.fork()
    if pid == 0:
        pidfile.release()
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.exists()
    pidfile.release()


def test_alive() -> None:
    assert alive(os.getpid())
    assert not alive(ended_process())
    assert not alive(2**40)
    assert not alive(0)


def test_unknown_user_and_bad_umask() -> None:
    with pytest.raises(click.BadParameter, match="no-such-user"):
        become("no-such-user", None, None)
    with pytest.raises(click.BadParameter, match="'999'"):
        become(None, None, "999")


def test_umask() -> None:
    before = os.umask(0o022)
    try:
        become(None, None, "027")
        assert os.umask(0) == 0o027
    finally:
        os.umask(before)
