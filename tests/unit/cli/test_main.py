from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from typing import Any

import click
import pytest

from chervil.cli.main import COMMANDS, cli
from chervil.cli.session import Session
from tests.unit.cli.conftest import Cli

LOADED = """
import json, sys
from click.testing import CliRunner
from chervil.cli.main import cli
found = CliRunner().invoke(cli, sys.argv[1:])
assert found.exit_code == 0, found.output
names = ("rich", "chervil.app", "chervil.worker", "asyncio", "subprocess", "multiprocessing")
names += tuple(n for n in sys.modules if n.startswith("chervil.cli."))
print(json.dumps([n for n in names if n in sys.modules]))
"""


def modules_loaded_by(*args: str) -> set[str]:
    # CliRunner itself imports asyncio in no release; tempfile and shlex do not count here.
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *args], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_help_imports_no_command() -> None:
    found = modules_loaded_by("--help")
    assert not found & {module for module, _ in COMMANDS.values()}
    assert not found & {"rich", "chervil.app", "chervil.worker", "asyncio"}


def test_help_of_worker_imports_neither_rich_nor_the_app() -> None:
    found = modules_loaded_by("worker", "--help")
    assert "chervil.cli.worker" in found
    assert not found & {"rich", "chervil.app", "chervil.worker", "asyncio", "multiprocessing"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_explains_itself(name: str, run: Cli) -> None:
    module, line = COMMANDS[name]
    command = import_module(module).command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert line.endswith(".")
    done = run(name, "--help")
    assert done.exit_code == 0
    assert "-A, --app" in done.output
    assert f"chervil {name}" in done.output.replace("chervil -A hello", "chervil")


def test_help_lists_every_command_once(run: Cli) -> None:
    output = run("--help").output
    for name, (_, line) in COMMANDS.items():
        assert f"{name} " in output
        assert line.split(",")[0] in output
    assert "Exit codes" in output


def test_version(run: Cli) -> None:
    done = run("--version")
    assert done.exit_code == 0
    assert done.output.startswith("chervil 0.")


def test_unknown_command_suggests_the_closest(run: Cli) -> None:
    done = run("wroker")
    assert done.exit_code == 2
    assert "no command 'wroker'. Did you mean 'worker'?" in done.output


@pytest.fixture
def seen() -> Any:
    """The session that a command gets; ``probe`` is a command of the tests."""
    found: list[Session] = []
    from chervil.cli.session import ChervilCommand, pass_session

    @click.command("probe", cls=ChervilCommand)
    @pass_session
    def probe(session: Session, /) -> None:
        found.append(session)

    return found, probe


@pytest.mark.parametrize(
    "args",
    [
        ["-A", "hello", "-b", "memory://", "probe"],
        ["probe", "-A", "hello", "-b", "memory://"],
        ["--app=hello", "probe", "--broker", "memory://"],
        ["-A", "other", "probe", "-A", "hello", "-b", "memory://"],
    ],
)
def test_global_options_stand_before_or_after_the_command(
    args: list[str], seen: Any, monkeypatch: pytest.MonkeyPatch, run: Cli
) -> None:
    found, probe = seen
    original = type(cli).get_command
    monkeypatch.setattr(
        type(cli),
        "get_command",
        lambda self, ctx, name: probe if name == "probe" else original(self, ctx, name),
    )
    monkeypatch.setitem(COMMANDS, "probe", ("none", "Probe."))
    monkeypatch.setenv("CHERVIL_APP", "from_environment")
    assert run(*args).exit_code == 0
    assert found[0].app_name == "hello"
    assert found[0].broker == "memory://"


def test_app_from_the_environment(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERVIL_APP", "not_there_at_all")
    done = run("queues", app=False)
    assert done.exit_code == 2
    assert "not_there_at_all" in done.output


def test_loader_is_refused_with_a_hint(run: Cli) -> None:
    done = run("--loader", "x.Loader", "queues")
    assert done.exit_code == 2
    assert "--config" in done.output


def test_errors_of_the_package_are_one_line(run: Cli) -> None:
    done = run("-b", "nosuch://x", "queues", app=False)
    assert done.exit_code in (1, 2)
    assert "nosuch" in done.output
    assert "Traceback" not in done.output


def test_ctrl_c_exits_with_130(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("chervil.cli.queues.broker_of", interrupt)
    done = run("queues")
    assert done.exit_code == 130
    assert "Interrupted" in done.output


def test_missing_workdir(run: Cli) -> None:
    done = run("-A", "x", "--workdir", "/no/such/place", "queues", app=False)
    assert done.exit_code == 2
    assert "/no/such/place" in done.output
