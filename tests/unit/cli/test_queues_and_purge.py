from __future__ import annotations

import json

import pytest

from chervil import Chervil
from tests.unit.cli.conftest import Cli


@pytest.fixture(autouse=True)
def some_messages(app: Chervil) -> None:
    add = app.tasks["shop.add"]
    for number in range(3):
        add.delay(number)
    add.apply_async((1,), countdown=600)
    add.apply_async((1,), queue="mail")


def test_table(run: Cli) -> None:
    done = run("queues")
    assert done.exit_code == 0, done.output
    header, *rows = [line.split() for line in done.stdout.splitlines()]
    assert header == ["queue", "ready", "delayed", "claimed", "dead", "oldest"]
    found = {row[0]: row[1:5] for row in rows}
    assert found["celery"] == ["3", "1", "0", "0"]
    assert found["mail"] == ["1", "0", "0", "0"]


def test_plain_in_a_pipe(run: Cli) -> None:
    assert "\x1b" not in run("queues").stdout


def test_json(run: Cli) -> None:
    found = json.loads(run("queues", "--json", "-Q", "mail").stdout)
    assert list(found) == ["mail"]
    oldest = found["mail"].pop("oldest")
    assert 0 <= oldest < 60
    assert found["mail"] == {"ready": 1, "delayed": 0, "claimed": 0, "dead": 0}


@pytest.mark.parametrize("command", [["queues", "-Q", "mial"], ["purge", "-f", "-Q", "mial"]])
def test_unknown_queue_suggests_the_closest(run: Cli, command: list[str]) -> None:
    done = run(*command)
    assert done.exit_code == 2
    assert "no queue 'mial'. Did you mean 'mail'?" in " ".join(done.output.split())


def test_purge_asks_and_no_means_no(run: Cli, app: Chervil) -> None:
    done = run("purge", stdin="n\n")
    assert done.exit_code == 1
    assert "Delete 4 messages (1 of them delayed) of celery" in done.output
    assert app.broker.depths(["celery"])["celery"].ready == 3


def test_purge_after_yes(run: Cli, app: Chervil) -> None:
    done = run("purge", stdin="y\n")
    assert done.exit_code == 0
    assert "Deleted 4 messages from 1 queue." in done.output
    depth = app.broker.depths(["celery"])["celery"]
    assert (depth.ready, depth.delayed) == (0, 0)
    assert app.broker.depths(["mail"])["mail"].ready == 1


def test_purge_without_asking(run: Cli, app: Chervil) -> None:
    assert run("purge", "-f", "-Q", "mail").stdout == "Deleted 1 message from 1 queue.\n"
    assert app.broker.depths(["celery"])["celery"].ready == 3


def test_purge_with_nothing_left(run: Cli, app: Chervil) -> None:
    done = run("purge", "-f", "-X", "celery")
    assert done.exit_code == 2
    assert app.broker.depths(["celery"])["celery"].ready == 3
