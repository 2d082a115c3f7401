"""Tasks that belong to every app."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from chervil import Chervil, Task, shared, shared_task


@pytest.fixture(autouse=True)
def _only_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_shared", [])


def test_every_app_gets_its_own() -> None:
    @shared_task(name="lib.add")
    def add(x: int, y: int) -> int:
        return x + y

    one, two = Chervil("one"), Chervil("two")
    assert one.tasks["lib.add"].app is one
    assert two.tasks["lib.add"].app is two
    assert add.app is two
    one.set_current()
    assert add.app is one
    assert add(1, 2) == 3
    assert add.name == "lib.add"


def test_an_app_that_is_complete_gets_later_ones_at_once() -> None:
    app = Chervil("early")
    app.finalize()

    @shared_task
    def late() -> None: ...

    assert late.name in app.tasks
    assert app.tasks[late.name] == late


def test_it_behaves_like_the_task() -> None:
    app = Chervil("alike")

    @shared_task(name="lib.bound", bind=True, max_retries=7)
    def bound(self: Task[Any, Any], x: int) -> tuple[str, int]:
        return self.name, x

    assert isinstance(bound, Task)
    assert bound(1) == ("lib.bound", 1)
    assert bound.max_retries == 7
    assert bound.s(2)["task"] == "lib.bound"
    assert bound.apply((3,)).get() == ("lib.bound", 3)
    assert pickle.loads(pickle.dumps(bound)) is app.tasks["lib.bound"]
    assert hash(bound) == hash(app.tasks["lib.bound"])
    bound.rate_limit = "1/s"
    assert app.tasks["lib.bound"].rate_limit == "1/s"
    assert repr(bound) == "<@task: lib.bound of alike>"


def test_handlers_connected_with_it_hear_the_task() -> None:
    from chervil.signals import task_success

    Chervil("heard")

    @shared_task
    def work() -> int:
        return 5

    seen = []

    @task_success.connect(sender=work)
    def handler(result: Any = None, **kwargs: Any) -> None:
        seen.append(result)

    work.apply()
    assert seen == [5]
