from __future__ import annotations

import json

import pytest

from chervil import Chervil
from chervil.cli.deadletters import Choice, find, read
from chervil.drivers.contracts import Action, DeadLetter, Settlement
from tests.unit.cli.conftest import Cli


def bury(app: Chervil, reason: str, detail: str = "") -> None:
    """Move all that waits to the dead-letter queue."""
    queues = app.router.select(None, None)
    app.broker.declare(queues)
    consumer = app.broker.consumer(queues, "test@here")
    try:
        found = consumer.exchange([], 100)
        settled = [
            Settlement(delivery, Action.DEAD, reason=reason, detail=detail) for delivery in found
        ]
        consumer.exchange(settled, 0)
    finally:
        consumer.close()


@pytest.fixture
def ids(app: Chervil) -> dict[str, str]:
    """Three dead letters: two of shop.add, one of shop.fail."""
    found = {"a": app.tasks["shop.add"].delay(1, y=2).id, "b": app.tasks["shop.add"].delay(7).id}
    bury(app, "delivered 4 times without an end", "Traceback: where it died")
    found["c"] = app.tasks["shop.fail"].delay().id
    bury(app, "Unknown task")
    return found


def dead_ids(app: Chervil) -> list[str]:
    return [letter.task_id for letter in find(app.broker, Choice())]


def test_list(run: Cli, ids: dict[str, str]) -> None:
    done = run("dead", "list")
    assert done.exit_code == 0, done.output
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["key", "died", "task", "id", "queue", "times", "reason"]
    assert len(rows) == 3
    assert ids["a"] in rows[0]
    assert "Unknown task" in rows[2]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--task", "shop.fail"], ["c"]),
        (["--reason", "unknown"], ["c"]),
        (["--reason", "DELIVERED 4"], ["a", "b"]),
        (["-Q", "celery"], ["a", "b", "c"]),
        (["--limit", "2"], ["a", "b"]),
        (["--task", "shop.nothing"], []),
    ],
)
def test_filters(run: Cli, ids: dict[str, str], filters: list[str], expected: list[str]) -> None:
    found = json.loads(run("dead", "list", "--json", *filters).stdout)
    assert [letter["id"] for letter in found] == [ids[name] for name in expected]


def test_more_than_the_limit_is_said(run: Cli, ids: dict[str, str]) -> None:
    assert "more than 2" in run("dead", "list", "--limit", "2").stderr
    assert run("dead", "list", "--limit", "3").stderr == ""


def test_empty_list(run: Cli) -> None:
    done = run("dead", "list")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "No dead letters" in done.stderr
    assert json.loads(run("dead", "list", "--json").stdout) == []


def test_show_decodes_the_arguments(run: Cli, ids: dict[str, str]) -> None:
    done = run("dead", "show", ids["a"])
    assert done.exit_code == 0, done.output
    assert "[1]" in done.stdout
    assert '{"y": 2}' in done.stdout
    assert "delivered 4 times" in done.stdout
    assert "Traceback: where it died" in done.stdout


def test_show_by_the_beginning_of_an_id(run: Cli, ids: dict[str, str]) -> None:
    known = json.loads(run("dead", "show", ids["b"][:20], "--json").stdout)
    assert known["id"] == ids["b"]
    assert known["args"] == [7]
    assert known["headers"]["task"] == "shop.add"


def test_nothing_under_that_key(run: Cli, app: Chervil, ids: dict[str, str]) -> None:
    for command in ("show", "replay", "drop"):
        done = run("dead", command, "no-such-key")
        assert done.exit_code == 66
        assert "No such dead letter no-such-key" in done.stderr
    done = run("dead", "drop", "-f", ids["a"], "no-such-key")
    assert done.exit_code == 66
    assert len(dead_ids(app)) == 3


def test_replay_and_drop_want_to_know_which(run: Cli, app: Chervil, ids: dict[str, str]) -> None:
    for command in ("replay", "drop"):
        done = run("dead", command)
        assert done.exit_code == 2
        assert "Which ones?" in done.output
        assert run("dead", command, "--all", ids["a"]).exit_code == 2
    assert len(dead_ids(app)) == 3


def test_dry_run_counts_and_changes_nothing(run: Cli, app: Chervil, ids: dict[str, str]) -> None:
    for command in ("replay", "drop"):
        done = run("dead", command, "--all", "--dry-run")
        assert "3 dead letters would be" in done.stdout
        assert "2  shop.add of queue celery" in done.stdout
        assert "1  shop.fail of queue celery" in done.stdout
    assert len(dead_ids(app)) == 3


def test_replay_puts_back(run: Cli, app: Chervil, ids: dict[str, str]) -> None:
    done = run("dead", "replay", "--task", "shop.add")
    assert done.stdout == "Put 2 messages back.\n"
    assert dead_ids(app) == [ids["c"]]
    assert app.broker.depths(["celery"])["celery"].ready == 2


def test_drop_asks(run: Cli, app: Chervil, ids: dict[str, str]) -> None:
    assert run("dead", "drop", ids["a"], stdin="n\n").exit_code == 1
    assert len(dead_ids(app)) == 3
    done = run("dead", "drop", ids["a"], stdin="y\n")
    assert "1 dead letter will be deleted for good" in done.output
    assert dead_ids(app) == [ids["b"], ids["c"]]


def test_drop_by_key_without_asking(run: Cli, app: Chervil, ids: dict[str, str]) -> None:
    key = json.loads(run("dead", "list", "--json").stdout)[1]["key"]
    assert run("dead", "drop", "-f", key).stdout == "Deleted 1 dead letter.\n"
    assert dead_ids(app) == [ids["a"], ids["c"]]


def letter(key: str = "17", head: bytes = b"", reason: str = "") -> DeadLetter:
    return DeadLetter(key, "q", head, None, reason, "", 1, 0.0)


@pytest.mark.parametrize("head", [b"", b"not json", b"[]", b'{"headers": 5}', b'"x"'])
def test_an_unreadable_head_is_listed_all_the_same(head: bytes) -> None:
    found = read(letter(head=head))
    assert (found.task, found.task_id) == ("?", "?")


def test_a_short_number_is_a_key_and_not_the_beginning_of_an_id() -> None:
    head = b'{"headers": {"task": "t", "id": "17c0ffee-1"}}'
    assert Choice(("17",)).takes(read(letter("17", head)))
    assert not Choice(("17",)).takes(read(letter("18", head)))
    assert Choice(("17c0ffee",)).takes(read(letter("18", head)))
