"""Names of tasks, and two tasks of one name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from chervil import Chervil
from chervil.exceptions import AlreadyRegistered, NotRegistered
from chervil.registry import gen_task_name, module_name


@pytest.fixture
def app() -> Chervil:
    return Chervil("test", set_as_current=False)


def function(name: str, module: str = "proj.tasks", qualname: str | None = None) -> Any:
    def fun() -> str:
        return module

    fun.__name__, fun.__module__, fun.__qualname__ = name, module, qualname or name
    return fun


def test_a_name_is_module_and_function() -> None:
    assert gen_task_name("main", "add", "proj.tasks") == "proj.tasks.add"
    assert gen_task_name(None, "add", "proj.tasks") == "proj.tasks.add"


def test_in_a_script_main_stands_for_the_module() -> None:
    assert gen_task_name("proj.tasks", "add", "__main__") == "proj.tasks.add"
    assert gen_task_name("proj.tasks", "add", "__mp_main__") == "proj.tasks.add"


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        (SimpleNamespace(__spec__=None, __file__="/x/hello.py"), "hello"),
        (
            SimpleNamespace(__spec__=SimpleNamespace(name="proj.tasks"), __file__="t.py"),
            "proj.tasks",
        ),
        (SimpleNamespace(__spec__=None), "__main__"),
    ],
)
def test_a_script_without_main_is_named_as_it_would_be_imported(
    main: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert module_name("__main__") == expected


SCRIPT = """
from chervil import Chervil
app = Chervil({main})
@app.task
def add(x, y): return x + y
@app.task(name="other")
def other(): pass
if __name__ == "__main__":
    print(add.name)
"""


@pytest.mark.parametrize("main", ["", "'hello'"])
@pytest.mark.parametrize(
    "command", [["hello.py"], ["-m", "hello"], ["-c", "import hello; print(hello.add.name)"]]
)
def test_script_and_worker_agree(tmp_path: Path, main: str, command: list[str]) -> None:
    (tmp_path / "hello.py").write_text(SCRIPT.format(main=main))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.stdout.strip() == "hello.add", run.stderr


def test_the_same_function_again_is_the_task_that_is_there(app: Chervil) -> None:
    first = app.task(function("add"))
    assert app.task(function("add")) is first
    assert app.tasks["proj.tasks.add"] is first


def test_a_script_that_is_imported_as_well_has_its_tasks_once(
    app: Chervil, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = ModuleType("__main__")
    main.__file__ = "/x/proj.py"
    monkeypatch.setitem(sys.modules, "__main__", main)
    app.main = None
    first = app.task(function("add", "__main__"))
    assert app.task(function("add", "proj")) is first


@pytest.mark.parametrize(
    "other",
    [
        function("add", "elsewhere"),
        function("add", "proj.tasks", "Class.add"),
        lambda: None,
    ],
)
def test_another_function_of_that_name_is_refused(app: Chervil, other: Callable[[], Any]) -> None:
    app.task(name="add")(function("add"))
    with pytest.raises(AlreadyRegistered, match="two tasks are named 'add'"):
        app.task(name="add")(other)


def test_two_lambdas_are_two(app: Chervil) -> None:
    app.task(name="double")(lambda x: 2 * x)
    with pytest.raises(AlreadyRegistered):
        app.task(name="double")(lambda x: 3 * x)


def test_a_missing_task_says_which_is_like_it(app: Chervil) -> None:
    app.task(function("add"))
    with pytest.raises(NotRegistered, match=r"Did you mean 'proj\.tasks\.add'"):
        app.tasks["proj.tasks.ad"]
    with pytest.raises(KeyError):
        app.tasks["nothing"]


def test_unregister(app: Chervil) -> None:
    task = app.task(function("add"))
    app.tasks.unregister(task)
    assert task.name not in app.tasks
    with pytest.raises(NotRegistered):
        app.tasks.unregister(task.name)
