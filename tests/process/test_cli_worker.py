"""The command line as users run it: real processes, from start to end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Tree, WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = """
import os, time
from chervil import Chervil

app = Chervil("shop")

@app.task
def add(x, y=0):
    return x + y

@app.task
def fail():
    raise ValueError("no luck")

@app.task
def where():
    return os.getppid(), os.getpid()

@app.task
def wait_for(path):
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return "done"
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "shop.py"
    path.write_text(APP)
    return path


@pytest.fixture
def chervil(shop: Path, sqlite_url: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``chervil -A shop ...`` to its end."""

    def run(*args: str, app: str = "shop") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "CHERVIL_BROKER_URL": sqlite_url,
            "CHERVIL_RESULT_BACKEND": sqlite_url,
        }
        command = [sys.executable, "-m", "chervil", "-A", app, *args]
        return subprocess.run(
            command, cwd=shop.parent, env=environment, capture_output=True, text=True, timeout=60
        )

    return run


Chervil_ = Callable[..., Any]


def test_the_main_job(worker: StartWorker, chervil: Chervil_) -> None:
    sent_before = chervil("call", "shop.add", "-a", "[1, 2]")
    assert sent_before.returncode == 0, sent_before.stderr
    node = worker("shop", "-c", "2", "-n", "w1@here", "-l", "info")
    log = node.log()
    assert "w1@here" in log
    for task in ("shop.add", "shop.fail", "shop.where"):
        assert task in log
    done = chervil("result", sent_before.stdout.strip(), "--timeout", "20")
    assert (done.returncode, done.stdout) == (0, "3\n")
    done = chervil("call", "shop.add", "-k", '{"x": 2, "y": 5}', "--wait", "--timeout", "20")
    assert (done.returncode, done.stdout) == (0, "7\n")
    failed = chervil("call", "shop.fail", "--wait", "--timeout", "20")
    assert failed.returncode == 64
    assert "ValueError: no luck" in failed.stderr
    assert 'raise ValueError("no luck")' in failed.stderr
    assert node.stop() == 0


def test_output_in_a_pipe_has_no_colours(worker: StartWorker, chervil: Chervil_) -> None:
    node = worker("shop", "-c", "1")
    chervil("call", "shop.fail", "--wait", "--timeout", "20")
    assert "\x1b" not in node.log()
    assert "\x1b" not in chervil("queues").stdout


def test_json_log_lines(worker: StartWorker) -> None:
    node = worker("shop", "-q", "-c", "1", "--logfmt", "json")
    lines = [line for line in node.log().splitlines() if line.strip()]
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_logfile(worker: StartWorker, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    node = worker("shop", "-q", "-c", "1", "-n", "w@h", "-f", "%n.log", ready=None)
    path = tmp_path / "w.log"
    wait_until(lambda: path.exists() and "ready" in path.read_text(), 20, "ready in the log file")
    assert node.log() == ""
    assert node.stop() == 0


def test_import_error_of_the_app(chervil: Chervil_, shop: Path) -> None:
    shop.write_text("import no_such_library\n")
    done = chervil("worker")
    assert done.returncode == 1
    assert "shop.py" in done.stderr
    assert "no_such_library" in done.stderr
    assert "chervil/cli" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_warm_shutdown_finishes_the_running_task(
    worker: StartWorker, chervil: Chervil_, tmp_path: Path, number: int,
    wait_until: Callable[..., Any],
) -> None:  # fmt: skip
    node = worker("shop", "-c", "1")
    flag = tmp_path / "go"
    sent = chervil("call", "shop.wait_for", "-a", json.dumps([str(flag)])).stdout.strip()

    def claimed() -> bool:
        depth = json.loads(chervil("queues", "--json").stdout)["celery"]
        return bool(depth["claimed"] == 1)

    wait_until(claimed, 20, "the task runs")
    node.signal(number)
    node.wait_for_log("Stopping when")
    flag.write_text("")
    assert node.wait() == 0
    assert chervil("result", sent).stdout == "done\n"


def test_pid_file_and_a_second_worker(
    worker: StartWorker, chervil: Chervil_, tmp_path: Path
) -> None:
    node = worker("shop", "-c", "1", "--pidfile", "w.pid")
    assert (tmp_path / "w.pid").read_text().strip() == str(node.pid)
    second = chervil("worker", "--pidfile", "w.pid")
    assert second.returncode == 1
    assert f"process {node.pid}" in second.stderr
    assert node.stop() == 0
    assert not (tmp_path / "w.pid").exists()


def test_stale_pid_file_after_kill_9(worker: StartWorker, tmp_path: Path) -> None:
    first = worker("shop", "-c", "1", "--pidfile", "w.pid")
    first.kill_node()
    assert (tmp_path / "w.pid").exists()
    second = worker("shop", "-c", "1", "--pidfile", "w.pid")
    assert "stale" in second.log()
    assert (tmp_path / "w.pid").read_text().strip() == str(second.pid)


def test_detach(
    shop: Path, sqlite_url: str, process_tree: Tree, tmp_path: Path, chervil: Chervil_,
    wait_until: Callable[..., Any],
) -> None:  # fmt: skip
    environment = {"CHERVIL_BROKER_URL": sqlite_url, "CHERVIL_RESULT_BACKEND": sqlite_url}
    command = [sys.executable, "-m", "chervil", "-A", "shop", "worker", "-c", "1", "-D"]
    command += ["--pidfile", "w.pid", "-f", "w.log"]
    front = process_tree.start(command, shop.parent, environment, tmp_path / "front.log")
    assert front.wait(20) == 0, (tmp_path / "front.log").read_text()
    pid = int((tmp_path / "w.pid").read_text())
    try:
        assert pid != front.pid
        done = chervil("call", "shop.add", "-a", "[1]", "--timeout", "20")
        assert (done.returncode, done.stdout) == (0, "1\n")
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not process_tree.pids(), 15, "the worker in the background ends")
    assert not (tmp_path / "w.pid").exists()


def test_detach_says_what_went_wrong(chervil: Chervil_, tmp_path: Path) -> None:
    (tmp_path / "w.pid").write_text(str(os.getpid()))
    done = chervil("worker", "-D", "--pidfile", "w.pid", "-f", "w.log")
    assert done.returncode == 1
    assert "running already" in done.stderr


def test_reload_runs_the_new_code(worker: StartWorker, chervil: Chervil_, shop: Path) -> None:
    node = worker("shop", "-c", "1", "--reload")
    shop.write_text(APP.replace("return x + y", "return x * 100"))
    node.wait_for_log(r"Reloading: shop.py[\s\S]*\bready\b", 20)
    done = chervil("call", "shop.add", "-a", "[2]", "--timeout", "20")
    assert (done.returncode, done.stdout) == (0, "200\n")
    shop.write_text("def broken(:\n")
    node.wait_for_log("waiting for a change", 20)
    assert "SyntaxError" in node.log()
    shop.write_text(APP.replace("return x + y", "return 'mended'"))
    node.wait_for_log(r"waiting for a change[\s\S]*\bready\b", 20)
    done = chervil("call", "shop.add", "-a", "[2]", "--timeout", "20")
    assert (done.returncode, done.stdout) == (0, "mended\n")
    assert node.stop() == 0
    assert not node.tree.pids()


def test_demo(process_tree: Tree, tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    environment = {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "chervil", "demo"]
    process = process_tree.start(command, tmp_path, environment, log)
    assert process.wait(60) == 0, log.read_text()
    said = log.read_text()
    assert re.search(r"[\d,]{3,} files in [\d.]+ s: [\d,]+ tasks/s", said), said
    assert re.search(r"[\d,]{9,} words, [\d,]+ different", said), said
    assert "10,000 tasks in" in said
    assert "\x1b" not in said
    assert sorted(os.listdir(tmp_path)) == ["demo.log", "shop.py"]
    assert not process_tree.pids()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(
    process_tree: Tree, tmp_path: Path, number: int, wait_until: Callable[..., Any]
) -> None:
    command = [sys.executable, "-m", "chervil", "demo"]
    log = tmp_path / "demo.log"
    process = process_tree.start(command, tmp_path, {"TMPDIR": str(tmp_path)}, log)
    wait_until(lambda: len(process_tree.pids()) > 1, 20, "the demo's worker starts")
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    wait_until(lambda: not process_tree.pids(), 10, "all processes end")
    assert sorted(os.listdir(tmp_path)) == ["demo.log", "shop.py"]
