"""What a process keeps of the results that arrived for it."""

from __future__ import annotations

import time

import pytest

from chervil.drivers.amqp.kept import Kept
from chervil.states import FAILURE, STARTED, SUCCESS
from chervil.wire.message import Outcome


def outcome(task_id: str, status: str = SUCCESS, size: int = 100, expires: float = 0.0) -> Outcome:
    return Outcome(task_id, status, b"x" * size, expires)


def test_the_last_counts_but_success_stays() -> None:
    kept = Kept(1 << 20)
    assert kept.add(outcome("a", STARTED))
    assert kept.add(outcome("a", FAILURE))
    assert kept.add(outcome("a", SUCCESS))
    assert not kept.add(outcome("a", FAILURE))
    assert kept.get(["a", "b"])["a"].status == SUCCESS
    assert "b" not in kept
    kept.forget(["a", "b"])
    assert "a" not in kept


def test_what_was_read_goes_first_then_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept(5000)  # room for ten
    for number in range(10):
        assert kept.add(outcome(str(number)))
    assert set(kept.get(["8", "9"])) == {"8", "9"}
    for number in range(10, 12):
        kept.add(outcome(str(number)))
    assert [n for n in range(12) if str(n) in kept] == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11]
    assert not caplog.records
    for number in range(12, 15):
        kept.add(outcome(str(number)))
    assert [n for n in range(15) if str(n) in kept] == [3, 4, 5, 6, 7, 10, 11, 12, 13, 14]
    assert len(caplog.records) == 1
    assert "kept_bytes" in caplog.text
    kept.add(outcome("large", size=10_000))
    assert [task_id for task_id in ("14", "large") if task_id in kept] == ["large"]


def test_only_some_that_were_read_are_kept() -> None:
    kept = Kept(1 << 30)
    ids = [str(number) for number in range(1500)]
    for task_id in ids:
        kept.add(outcome(task_id))
    kept.add(outcome("running", STARTED))
    assert len(kept.get([*ids, "running"])) == 1501
    assert len(kept.get(ids)) == 1000
    assert "running" in kept


def test_what_is_too_old_is_gone() -> None:
    kept = Kept(1 << 20)
    now = time.time()
    kept.add(outcome("old", SUCCESS, expires=now - 1))
    kept.add(outcome("older", SUCCESS, expires=now - 2))
    kept.add(outcome("new", SUCCESS, expires=now + 60))
    assert set(kept.get(["old", "new"])) == {"new"}
    assert kept.forget_old() == 1
    assert "new" in kept
    assert kept.add(outcome("older", FAILURE))
