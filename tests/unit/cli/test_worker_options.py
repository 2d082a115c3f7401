from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from chervil import Chervil
from tests.unit.cli.conftest import Cli


class FakeNode:
    """Takes what a node takes, and ends at once."""

    given: dict[str, Any]
    last: FakeNode
    code = 0

    def __init__(self, app: Chervil, **given: Any) -> None:
        self.app = app
        self.given = given
        self.hostname = given["hostname"]
        self.pool = given["pool"] or app.conf.worker_pool
        self.concurrency = given["concurrency"] or 1
        self.processes = given["processes"] or 1
        self.queues = app.router.select(given["queues"], given["exclude_queues"])
        type(self).last = self

    def run(self) -> int:
        self.given["on_ready"]()
        return self.code


@pytest.fixture(autouse=True)
def no_logging(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("chervil.worker.node.Node", FakeNode)
    monkeypatch.setattr("chervil.log.setup_logging", lambda conf, **kw: calls.append(kw))
    return calls


def given(run: Cli, *args: str) -> dict[str, Any]:
    done = run("worker", *args)
    assert done.exit_code == 0, done.output
    return FakeNode.last.given


def test_without_options_the_settings_decide(run: Cli) -> None:
    options = given(run)
    options.pop("on_ready")
    assert options.pop("hostname").startswith("chervil@")
    assert not options.pop("purge")
    assert options == dict.fromkeys(
        (
            *("pool", "concurrency", "processes", "queues", "exclude_queues", "lease"),
            *("prefetch_multiplier", "time_limit", "soft_time_limit", "task_events"),
            *("max_tasks_per_child", "max_memory_per_child"),
        )
    )


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        (["-n", "w1@here"], "hostname", "w1@here"),
        (["--hostname=w1@here"], "hostname", "w1@here"),
        (["-c", "3"], "concurrency", 3),
        (["-c3"], "concurrency", 3),
        (["--concurrency=3"], "concurrency", 3),
        (["-P", "threads"], "pool", "threads"),
        (["-P", "processes"], "pool", "prefork"),
        (["--pool", "solo"], "pool", "solo"),
        (["--processes", "2"], "processes", 2),
        (["-Q", "celery"], "queues", ["celery"]),
        (["-E"], "task_events", True),
        (["--events"], "task_events", True),
        (["--time-limit", "2.5"], "time_limit", 2.5),
        (["--soft-time-limit", "1"], "soft_time_limit", 1.0),
        (["--max-tasks-per-child", "9"], "max_tasks_per_child", 9),
        (["--max-memory-per-child", "12000"], "max_memory_per_child", 12000),
        (["--prefetch-multiplier", "0"], "prefetch_multiplier", 0),
        (["--lease", "30"], "lease", 30.0),
        (["--purge"], "purge", True),
        (["--discard"], "purge", True),
    ],
)
def test_options_reach_the_node(run: Cli, args: list[str], name: str, value: Any) -> None:
    assert given(run, *args)[name] == value


def test_celery_command_line_is_accepted(run: Cli) -> None:
    given(
        run, "-l", "INFO", "-c", "2", "-Ofair", "--without-gossip", "--without-mingle",
        "--without-heartbeat", "--heartbeat-interval", "2", "-S", "state.db", "-E",
        "--disable-prefetch",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--autoscale", "10,3"], "-c"),
        (["--scheduler", "x:Y"], "is for -B"),
        (["-P", "gevent"], "is not in this version"),
        (["-P", "eventlet"], "is not in this version"),
        (["-P", "preforkk"], "did you mean 'prefork'? (known: prefork, threads, asyncio, solo)"),
        (["-c", "0"], "0"),
        (["-c", "many"], "many"),
        (["-l", "loud"], "DEBUG, INFO"),
        (["-n", "w%z"], "%z in"),
        (["--logfile", "%z.log"], "%z in"),
        (["--time-limit", "5", "--soft-time-limit", "5"], "not below"),
        (["--reload", "--detach"], "do not go together"),
        (["-Q", "a,,b"], "empty"),
        (["nonsense"], "neither an option nor SETTING=VALUE"),
        (["worker_concurency=3"], "worker_concurrency"),
        (["worker_concurrency=x"], "worker_concurrency=x: must be"),
        (["-I", "no_such_module_at_all"], "no_such_module_at_all"),
    ],
)
def test_wrong_options_are_refused(run: Cli, args: list[str], says: str) -> None:
    done = run("worker", *args)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.output.split())


def test_a_worker_needs_an_app(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("from chervil import Chervil\napp = Chervil('x')\n")
    monkeypatch.chdir(tmp_path)
    done = run("worker", app=False)
    assert done.exit_code == 2
    assert "No app given" in done.output
    assert "Found here: -A mine." in " ".join(done.output.split())


def test_overrides_set_settings(run: Cli, app: Chervil) -> None:
    given(run, "task_time_limit=90s", "worker.prefetch_multiplier=3", "task_acks_late=no")
    assert app.conf.task_time_limit == 90
    assert app.conf.worker_prefetch_multiplier == 3
    assert app.conf.task_acks_late is False


def test_logging(run: Cli, tmp_path: Path, no_logging: list[dict[str, Any]]) -> None:
    given(run, "-n", "w@h", "-l", "debug", "-f", f"{tmp_path}/%n.log", "--logfmt", "json", "-C")
    assert no_logging == [
        {"level": "DEBUG", "logfile": f"{tmp_path}/w.log", "fmt": "json", "color": False}
    ]


def test_banner_on_stdout_unless_quiet(run: Cli) -> None:
    said = run("worker", "-n", "w@h").stdout
    assert "w@h" in said
    assert "shop.add" in said
    assert run("worker", "-q").stdout == ""


def test_pid_file_is_gone_afterwards(run: Cli, tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    seen: list[str] = []
    original = FakeNode.run

    def look(self: FakeNode) -> int:
        seen.append(path.read_text().strip())
        return original(self)

    FakeNode.run = look  # type: ignore[method-assign]
    try:
        given(run, "--pidfile", str(path))
    finally:
        FakeNode.run = original  # type: ignore[method-assign]
    assert seen == [str(os.getpid())]
    assert not path.exists()


def test_second_worker_with_the_same_pid_file_is_refused(run: Cli, tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    path.write_text(str(os.getppid()))
    done = run("worker", "--pidfile", str(path))
    assert done.exit_code == 1
    assert "running already" in done.output


def test_exit_code_of_the_node(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeNode, "code", 1)
    assert run("worker").exit_code == 1


@pytest.mark.parametrize("setting", ["broker_url", "result_backend"])
def test_a_wrong_url_is_told_instead_of_the_banner(run: Cli, app: Chervil, setting: str) -> None:
    setattr(app.conf, setting, "mongodb://:secret@localhost/0")
    done = run("worker", "-P", "solo")
    assert done.exit_code == 1
    assert "mongodb:// as a" in done.output
    assert "not in this version of Chervil" in done.output
    assert "secret" not in done.output
    assert "pool" not in done.output


def test_pools_are_completed() -> None:
    from click.shell_completion import ShellComplete

    from chervil.cli.main import cli

    found = ShellComplete(cli, {}, "chervil", "_X").get_completions(["worker", "-P"], "s")
    assert [item.value for item in found] == ["solo"]
