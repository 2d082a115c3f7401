from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chervil import Chervil
from chervil.cli.exitcodes import NOT_FOUND
from chervil.worker.control import Panel, control_command, inspect_command
from chervil.worker.node import Node
from tests.support.nodes import node_in_thread
from tests.unit.cli.conftest import Cli


@pytest.fixture
def node(app: Chervil) -> Iterator[Node]:
    """A node in a thread of this process."""
    with node_in_thread(app, "one@here") as node:
        yield node


@pytest.fixture
def own_commands() -> Iterator[None]:
    before = dict(Panel.commands)

    @inspect_command(alias="sum", args=[("x", int), ("y", float)], signature="x y")
    def sum_of(state: Any, x: int, y: float = 0.5) -> Any:
        """Add numbers."""
        return {"sum": x + y}

    @control_command(variadic="words")
    def broken(state: Any, words: list[str]) -> Any:
        raise SystemExit(" ".join(words))

    yield
    Panel.commands.clear()
    Panel.commands.update(before)


def test_ping_and_status(run: Cli, node: Node) -> None:
    assert "one@here: pong" in run("inspect", "ping").output
    assert json.loads(run("inspect", "ping", "--json").stdout) == {"one@here": {"ok": "pong"}}
    done = run("status")
    assert done.exit_code == 0
    assert "one@here" in done.output
    found = json.loads(run("status", "--json", "-d", "one@here").stdout)["one@here"]
    assert (found["pool"], found["slots"]) == ("solo", 1)


def test_nobody_is_there(run: Cli, app: Chervil) -> None:
    for args in (("status",), ("inspect", "ping"), ("control", "heartbeat")):
        done = run(*args, "-t", "0.1")
        assert done.exit_code == NOT_FOUND
        assert "No node answered" in done.output


def test_one_is_missing(run: Cli, node: Node) -> None:
    done = run("inspect", "ping", "-d", "one@here,two@here", "-t", "10")
    assert done.exit_code == 0
    assert "two@here did not answer" in done.output
    assert run("inspect", "ping", "-d", "two@here", "-t", "0.1").exit_code == NOT_FOUND


def test_commands_are_listed_and_checked(run: Cli) -> None:
    assert "query_task" in run("inspect").output
    assert "pool_grow [N=1]" in run("control").output
    assert "Did you mean 'ping'" in run("inspect", "pimg").output
    assert "is a command of 'chervil control'" in run("inspect", "pool_grow").output
    assert run("control", "pool_grow", "many").exit_code == 2
    assert "too many arguments" in run("inspect", "ping", "x").output


def test_own_commands_and_errors(run: Cli, node: Node, own_commands: None) -> None:
    assert json.loads(run("inspect", "sum", "3", "4", "--json").stdout) == {
        "one@here": {"sum": 7.0}
    }
    done = run("control", "broken", "oh", "no")
    assert (done.exit_code, "SystemExit('oh no')" in done.output) == (1, True)
    assert "Add numbers." in run("inspect").output
    assert run("inspect", "ping").exit_code == 0, "it is well"


def test_shutdown(run: Cli, node: Node, wait_until: Callable[..., Any]) -> None:
    done = run("control", "shutdown")
    assert done.exit_code == 0
    wait_until(lambda: run("inspect", "ping", "-t", "0.1").exit_code == NOT_FOUND)


def test_what_a_node_shows_is_readable(run: Cli, node: Node) -> None:
    output = run("inspect", "active_queues").output
    assert "- name: celery" in output
    assert "None, on one@here." in run("inspect", "active").output
    assert "shop.add" in run("inspect", "registered").output
