"""``chervil schedule``."""

from __future__ import annotations

import json

import pytest

from chervil import Chervil
from tests.unit.cli.conftest import Cli


@pytest.fixture(autouse=True)
def entry_in_code(app: Chervil) -> None:
    app.add_periodic_task(60, app.tasks["shop.add"].s(1), name="in code")


def said(run: Cli, *args: str, code: int = 0) -> str:
    done = run("schedule", *args)
    assert done.exit_code == code, done.output
    return done.output


def test_the_life_of_an_entry(run: Cli, app: Chervil) -> None:
    text = said(run, "add", "report", "shop.add", "30 9 * * mon-fri", "-a", "[1]", "--tz",
                "Europe/Berlin", "--missed", "all")  # fmt: skip
    assert "Added report" in text
    assert "09:30" in text
    assert app.schedule.get("report").args == (1,)
    text = said(run, "list")
    assert "report" in text
    assert "in code" in text
    assert "Europe/Berlin" in text
    assert "every minute" in text
    assert "No 'chervil beat' is running" in text
    assert "every hour" in said(run, "edit", "report", "--schedule", "3600", "--tz", "UTC")
    assert said(run, "next", "report", "-n", "3").count("UTC") >= 3
    assert "Paused report" in said(run, "pause", "report", "in code")
    assert said(run, "list").count("paused") == 2
    said(run, "resume", "report", "in code")
    assert "Removed" in said(run, "remove", "report")
    assert "report" not in said(run, "list")


def test_json(run: Cli) -> None:
    said(run, "pause", "in code")
    found = json.loads(said(run, "list", "--json"))
    (entry,) = found["entries"]
    assert found["leader"] is None
    assert (entry["name"], entry["task"], entry["paused"]) == ("in code", "shop.add", True)


def test_fire_and_history(run: Cli, app: Chervil) -> None:
    task_id = said(run, "fire", "in code").strip()
    assert app.broker.depths(["celery"])["celery"].ready == 1
    text = said(run, "history", "in code")
    assert task_id in text
    assert "by hand" in text
    assert json.loads(said(run, "history", "in code", "--json"))[0]["id"] == task_id


def test_backfill_shows_first_and_sends_once(run: Cli, app: Chervil) -> None:
    said(run, "add", "daily", "shop.add", "0 3 * * *", "-a", "[1]")
    span = ("--from", "2026-03-01", "--to", "2026-03-08T12:00")
    text = said(run, "backfill", "daily", *span)
    assert "8 due times" in text
    assert "2026-03-01 03:00:00 UTC" in text
    assert app.broker.depths(["celery"])["celery"].ready == 0
    assert "Sent 8 tasks" in said(run, "backfill", "daily", *span, "--send")
    assert app.broker.depths(["celery"])["celery"].ready == 8
    assert "0 due times" in said(run, "backfill", "daily", *span, "--send")
    assert "Sent 8 tasks" in said(run, "backfill", "daily", *span, "--send", "--again")


def test_unknown_names(run: Cli) -> None:
    assert "Did you mean 'in code'?" in said(run, "pause", "in cod", code=66)
    assert "There is no periodic task" in said(run, "fire", "zzz", code=66)


def test_wrong_input(run: Cli) -> None:
    assert "needs 5" in said(run, "add", "x", "shop.add", "* *", code=1)
    assert "there is a periodic task" in said(run, "add", "in code", "shop.add", "9", code=1)
    assert "defined in the code" in said(run, "edit", "in code", "--schedule", "9", code=1)
    assert "Nothing to change" in said(run, "edit", "in code", code=2)
    assert "contradict" in said(
        run, "backfill", "in code", "--from", "2026-01-01", "--send", "--dry-run", code=2
    )
