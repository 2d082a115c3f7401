"""Each module imports only from the layers above it, and nothing in a circle.

``if TYPE_CHECKING:`` imports do not count; imports inside functions do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "chervil"

#: From the ground up. Modules of one line may import one another (not in a
#: circle); a module or package imports from its own line and from those above.
LAYERS: list[set[str]] = [
    {"exceptions", "states", "signals", "clock", "backoff", "ids", "identity"},
    {"wire", "schedules"},
    {"drivers"},
    {"settings", "routing", "options", "configuration"},
    {"context"},
    {"log"},
    {"waiters"},
    {"waits"},
    {"joining"},
    {"result"},
    {"resultsets", "eager"},
    {"signatures", "models", "messages"},
    {"publish", "groupcommit"},
    {"connections"},
    {"beat"},
    {"control"},
    {"canvas"},
    {"registry"},
    {"coroutines"},
    {"execution"},
    {"calls", "composing"},
    {"task", "taskoptions", "retries", "replacing"},
    {"periodic"},
    {"app", "decorators", "shared", "builtins", "workflows"},
    {"proxies"},
    {""},  # chervil/__init__.py: the public names
    {"pools"},
    {"worker"},
    {"cli", "testing", "contrib"},
    {"__main__"},
]
#: These import nothing of ours at all.
GROUND = LAYERS[0]
#: These know no other package of their own line.
APART = {"cli", "testing", "contrib"}
#: Modules of ``drivers`` that every driver may import; the rest is one driver each.
DRIVER_COMMONS = {"contracts", "coordination", "chords"}
#: Where imports inside functions are meant: drivers are imported when their
#: first URL is opened, commands when they are invoked, public names when used.
LAZY = ("chervil.drivers.registry", "chervil.cli.", "chervil")
MAX_LINES = 500

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


class Import(NamedTuple):
    """One module of ours that another one needs."""

    target: str
    line: int
    in_function: bool


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def statements(node: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes that are run, with whether they are inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and is_type_checking(child.test):
            for other in child.orelse:
                yield other, in_function
                yield from statements(other, in_function)
            continue
        yield child, in_function
        inside = in_function or isinstance(
            child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        )
        yield from statements(child, inside)


def literal_import(call: ast.Call) -> str | None:
    """The module in ``import_module("chervil.x")`` and ``__import__("chervil.x")``."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    name = call.func.id if isinstance(call.func, ast.Name) else name
    if name in ("import_module", "__import__") and call.args:
        first = call.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return first.value
    return None


def imports(module: str, source: str, known: set[str], is_package: bool) -> Iterator[Import]:
    """What a module of ours imports of ours."""
    for node, inside in statements(ast.parse(source)):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".") + ([""] if is_package else [])
                base = ".".join([*parts[: len(parts) - node.level], *filter(None, [base])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                targets.append(full if full in known else base)
        elif isinstance(node, ast.Call) and (literal := literal_import(node)):
            targets = [literal]
        for target in targets:
            if target.split(".")[0] == "chervil" and target != module:
                line = getattr(node, "lineno", 0)
                yield Import(target, line, inside)


def top(module: str) -> str:
    """The part of a module's name that has a place in ``LAYERS``."""
    return [*module.split("."), ""][1]


def driver(module: str) -> str | None:
    """The driver that a module belongs to."""
    parts = module.split(".")
    if parts[1:2] != ["drivers"] or len(parts) < 3:
        return None
    return None if parts[2] in DRIVER_COMMONS else parts[2]


def complaint(module: str, found: Import) -> str | None:
    """Why a module must not import that."""
    ours, theirs = top(module), top(found.target)
    if ours not in RANK:
        return None  # test_every_module_has_a_layer says so
    if theirs not in RANK:
        return f"{theirs!r} has no place in LAYERS (tests/unit/test_layers.py)"
    if ours in GROUND:
        return "the ground imports nothing of ours"
    if RANK[theirs] > RANK[ours]:
        return f"{ours or '__init__'!r} is above {theirs or '__init__'!r}"
    if ours in APART and theirs in APART and ours != theirs:
        return f"{ours!r} and {theirs!r} do not know each other"
    if driver(module) and driver(found.target) and driver(module) != driver(found.target):
        return "drivers do not import one another"
    if found.in_function and not module.startswith(LAZY[:2]) and module != LAZY[2]:
        return "imports of ours inside functions hide the order"
    return None


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty when there is none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for target in sorted(graph.get(module, ())):
            if found := visit(target):
                return found
        path.pop()
        done.add(module)
        return []

    for module in sorted(graph):
        if found := visit(module):
            return found
    return []


def load() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["chervil", *path.relative_to(SOURCE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = load()


def all_imports() -> dict[str, list[Import]]:
    known = set(MODULES)
    return {
        module: list(imports(module, path.read_text(), known, path.name == "__init__.py"))
        for module, path in MODULES.items()
    }


def test_the_package_is_there() -> None:
    assert "chervil.exceptions" in MODULES


def test_every_module_has_a_layer() -> None:
    homeless = {module for module in MODULES if top(module) not in RANK}
    assert not homeless, f"give these a place in LAYERS: {sorted(homeless)}"


def test_imports_go_to_layers_above() -> None:
    wrong = [
        f"{MODULES[module].relative_to(SOURCE)}:{found.line}: {found.target}: {why}"
        for module, list_ in all_imports().items()
        for found in list_
        if (why := complaint(module, found))
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_there_are_no_circles() -> None:
    graph = {module: {i.target for i in list_} for module, list_ in all_imports().items()}
    assert not (found := circle(graph)), " -> ".join(found)


def test_modules_are_short_enough_to_read() -> None:
    lengths = {m: len(path.read_text().splitlines()) for m, path in MODULES.items()}
    long = {m: n for m, n in lengths.items() if n > MAX_LINES}
    assert not long, f"longer than {MAX_LINES} lines: {long}"


# --- the checks themselves can fail --------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source", "why"),
    [
        ("chervil.wire.message", "import chervil.drivers.registry", "is above"),
        ("chervil.wire.message", "from chervil import app", "is above"),
        ("chervil.wire.message", "from chervil import Chervil", "is above"),
        ("chervil.wire.message", "from ..app import Chervil", "is above"),
        ("chervil.task", "from chervil import app", "is above"),
        ("chervil.exceptions", "from chervil import states", "the ground"),
        ("chervil.drivers.memory.broker", "import chervil.drivers.sqlite.broker", "one another"),
        ("chervil.drivers.memory.broker", "import chervil.drivers.registry", "one another"),
        ("chervil.cli.demo", "import chervil.testing.fakes", "do not know each other"),
        ("chervil.app", "def f():\n    from chervil import task", "inside functions"),
        ("chervil.app", "f = lambda: import_module('chervil.task')", "inside functions"),
        ("chervil.app", "if x:\n    import chervil.worker.node", "is above"),
        ("chervil.app", "try:\n    import chervil.pools\nexcept OSError: pass", "is above"),
        ("chervil.app", "import chervil.nowhere", "no place"),
        (
            "chervil.worker.hub",
            "if TYPE_CHECKING:\n    pass\nelse:\n    import chervil.cli",
            "above",
        ),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, why: str) -> None:
    known = {"chervil.app", "chervil.task", "chervil.states"}
    complaints = [complaint(module, i) for i in imports(module, source, known, False)]
    assert any(why in (text or "") for text in complaints), complaints


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("chervil.wire.message", "from chervil.exceptions import DecodeError"),
        ("chervil.wire.message", "if TYPE_CHECKING:\n    from chervil.app import Chervil"),
        ("chervil.wire.message", "import typing\nif typing.TYPE_CHECKING:\n    import chervil.app"),
        ("chervil.cli.main", "def f():\n    from chervil.cli import demo"),
        ("chervil.drivers.memory.broker", "from chervil.drivers.memory.store import Store"),
        ("chervil.drivers.memory.broker", "from chervil.drivers.contracts import Broker"),
        ("chervil", "def __getattr__(name):\n    from chervil.app import Chervil"),
        ("chervil.app", "import chervilworks"),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    assert [c for i in imports(module, source, set(), False) if (c := complaint(module, i))] == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []
