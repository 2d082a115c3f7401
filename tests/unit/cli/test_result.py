from __future__ import annotations

import json
from typing import Any

import pytest

from chervil import Chervil
from chervil.wire import outcomes
from chervil.wire.message import Outcome
from tests.unit.cli.conftest import Cli


def store(app: Chervil, status: str, result: Any, task_id: str = "id-1", **more: Any) -> None:
    payload = outcomes.encode(task_id=task_id, status=status, result=result, **more)
    app.backend.put([Outcome(task_id, status, payload)])


@pytest.mark.parametrize(
    ("value", "shown"),
    [({"a": [1]}, '{"a": [1]}'), ("plain text", "plain text"), (None, "null"), (3, "3")],
)
def test_value(run: Cli, app: Chervil, value: Any, shown: str) -> None:
    store(app, "SUCCESS", value)
    done = run("result", "id-1")
    assert done.exit_code == 0
    assert done.stdout == f"{shown}\n"
    assert done.stderr == ""


def test_failure(run: Cli, app: Chervil) -> None:
    store(app, "FAILURE", KeyError("k"), traceback="Traceback (most recent)")
    done = run("result", "id-1")
    assert done.exit_code == 64
    assert done.stdout == ""
    assert done.stderr == "FAILURE KeyError: 'k'\n"
    with_traceback = run("result", "id-1", "--traceback")
    assert with_traceback.stdout == "Traceback (most recent)\n"
    assert with_traceback.exit_code == 64


def test_unknown_id(run: Cli) -> None:
    done = run("result", "no-such-id")
    assert done.exit_code == 65
    assert "PENDING: no result under this id" in done.stderr


def test_custom_state_with_details(run: Cli, app: Chervil) -> None:
    store(app, "PROGRESS", {"done": 3})
    done = run("result", "id-1")
    assert done.exit_code == 65
    assert done.stderr == 'PROGRESS {"done": 3}\n'


def test_timeout_waits_no_longer(run: Cli) -> None:
    assert run("result", "id-1", "--timeout", "0.05").exit_code == 65


def test_json(run: Cli, app: Chervil) -> None:
    store(app, "FAILURE", ValueError("no"), traceback="tb")
    done = run("result", "id-1", "--json")
    assert done.exit_code == 64
    known = json.loads(done.stdout)
    assert known["state"] == "FAILURE"
    assert known["result"] == "ValueError('no')"
    assert known["traceback"] == "tb"


def test_task_of_that_name(run: Cli, app: Chervil) -> None:
    store(app, "SUCCESS", 5)
    assert run("result", "id-1", "-t", "shop.add").stdout == "5\n"
    done = run("result", "id-1", "-t", "shop.ad")
    assert done.exit_code == 2
    assert "no task 'shop.ad'" in done.output
