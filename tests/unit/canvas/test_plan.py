"""Plans: what they run gives what calling the functions directly gives, for any tree."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chervil.canvas.freezing import Node
from chervil.canvas.plan import Call, Planner
from chervil.canvas.shape import chain_of, chord_of, group_of, kind_of, leaf, tasks_of
from chervil.exceptions import ImproperlyConfigured
from chervil.wire import jsoncodec

Tree = Any


# --- running a plan: what workers do, in a few lines -----------------------------------


class Interpreter:
    """Runs messages one after the other and keeps what they return.

    A task returns its name and its arguments, so that a result says how it came about.
    """

    def __init__(self, order: int = 0) -> None:
        self.numbers = count()
        self.results: dict[str, Any] = {}
        self.runs: list[str] = []
        self.queue: deque[Call] = deque()
        self.arrived: dict[str, dict[str, tuple[int, Any]]] = {}
        self.order = order

    def new_id(self) -> str:
        return f"id{next(self.numbers)}"

    def plan(self, sig: Any, args: Sequence[Any] = (), **options: Any) -> Node | None:
        planner = Planner(self.new_id, "here")
        node = planner.plan(json.loads(jsoncodec.dumps(sig)), args, None, options)
        self.queue.extend(planner.calls)
        return node

    def run(self) -> None:
        while self.queue:
            # In whatever order: workers are many.
            self.queue.rotate(self.order)
            call = self.queue.popleft()
            self._end(json.loads(jsoncodec.dumps([call.args, call.options])), call.task)

    def _end(self, parts: list[Any], task: str) -> None:
        args, options = parts
        task_id = options["task_id"]
        assert task_id not in self.results, "a task runs once"
        value = args[0] if task == "celery.accumulate" else [task, *args]
        self.results[task_id] = value
        self.runs.append(task)
        for callback in options.get("link") or ():
            self.plan(callback, (value,))
        chain = options.get("chain")
        if chain:
            self.plan(chain[-1], (value,), chain=chain[:-1])
        body = options.get("chord")
        if body:
            join = options["group_id"]
            members = self.arrived.setdefault(join, {})
            members[task_id] = (options["group_index"], value)
            if len(members) == body["chord_size"]:
                values = [v for _, v in sorted(members.values(), key=lambda pair: pair[0])]
                self.plan(body, (values,))

    def value(self, node: Node | None) -> Any:
        if node is None:
            return None
        if node.members is not None:
            return [self.value(member) for member in node.members]
        return self.results[node.id]


# --- calling the functions directly ------------------------------------------------------


def direct(tree: Tree, args: tuple[Any, ...]) -> Any:
    kind = kind_of(tree)
    if kind is None:
        return [tree["task"], *([] if tree["immutable"] else args), *tree["args"]]
    if kind == "group":
        return [direct(member, args) for member in members(tree)]
    if kind == "chord":
        return direct(tree["kwargs"]["body"], ([direct(m, args) for m in members(tree)],))
    for step in steps(tree):
        args = (direct(step, args),)
    return args[0] if args else None


def members(tree: Tree) -> list[Tree]:
    """Groups in groups are one group; what is empty is nothing."""
    found: list[Tree] = []
    for member in tasks_of(tree):
        if kind_of(member) == "chain":
            inside = steps(member)
            if len(inside) == 1 and kind_of(inside[0]) == "group":
                found += members(inside[0])
            elif inside:
                found.append(member)
        elif kind_of(member) == "group":
            found += members(member)
        else:
            found.append(member)
    return found


def steps(tree: Tree) -> list[Tree]:
    """Chains in chains are one chain; a group of one is its member."""
    found: list[Tree] = []
    nothing: list[Tree] = []
    for step in tasks_of(tree):
        if kind_of(step) == "chain":
            for inner in steps(step):  # one of empty groups alone is nothing here, too
                empty = kind_of(inner) == "group" and not members(inner)
                (nothing if empty else found).append(inner)
        elif kind_of(step) == "group" and len(members(step)) == 1:
            found += steps(chain_of(members(step)))
        elif kind_of(step) == "group" and not members(step):
            nothing.append(step)
        else:
            found.append(step)
    return found or nothing[:1]


def size(tree: Tree) -> int:
    """How many functions are called."""
    kind = kind_of(tree)
    if kind is None:
        return 1
    inside = steps(tree) if kind == "chain" else members(tree)
    body = [tree["kwargs"]["body"]] if kind == "chord" else []
    return sum(size(part) for part in [*inside, *body])


# --- trees ---------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "d"])
leaves = st.builds(
    lambda name, args, immutable: {**leaf(name), "args": args, "immutable": immutable},
    names,
    st.lists(st.integers(0, 9), max_size=2),
    st.booleans(),
)


def composites(parts: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    several = st.lists(parts, max_size=4)
    return st.one_of(
        st.builds(chain_of, several),
        st.builds(group_of, several),
        st.builds(chord_of, several, parts.filter(lambda body: size(body) > 0)),
        st.builds(lambda tasks, body: chord_of(group_of(tasks), body), several, leaves),
    )


trees = st.recursive(leaves, composites, max_leaves=25)


@settings(max_examples=400, deadline=None)
@given(trees, st.integers(0, 3))
def test_a_plan_gives_what_calling_the_functions_gives(tree: Tree, order: int) -> None:
    before = jsoncodec.dumps(tree)
    machine = Interpreter(order)
    node = machine.plan(tree)
    machine.run()
    assert machine.value(node) == direct(tree, ())
    assert len([task for task in machine.runs if task != "celery.accumulate"]) == size(tree)
    assert jsoncodec.dumps(tree) == before, "planning changes nothing"


@settings(max_examples=150, deadline=None)
@given(trees)
def test_freezing_first_changes_nothing_but_that_ids_are_known(tree: Tree) -> None:
    machine = Interpreter()
    if not size(tree):
        return
    frozen, node = Planner(machine.new_id, "here").freeze(tree)
    again, same = Planner(machine.new_id, "here").freeze(frozen)
    assert again == frozen
    assert _ids(same) == _ids(node)
    sent = machine.plan(frozen)
    machine.run()
    assert machine.value(node) == machine.value(sent) == direct(tree, ())


def _ids(node: Node) -> Any:
    inner = None if node.members is None else [_ids(member) for member in node.members]
    return node.id, inner, node.parent and _ids(node.parent)


@settings(max_examples=150, deadline=None)
@given(st.lists(trees.filter(size), min_size=1, max_size=3), st.integers(0, 2))
def test_callbacks_get_the_last_result(parts: list[Tree], order: int) -> None:
    machine = Interpreter(order)
    machine.plan(chain_of(parts), link=[leaf("callback")])
    machine.run()
    want = direct(chain_of(parts), ())
    called = [value for value in machine.results.values() if value[:1] == ["callback"]]
    assert called == [["callback", want]]


# --- sizes ---------------------------------------------------------------------------------


def planned(tree: Tree) -> Planner:
    numbers = count()
    planner = Planner(lambda: f"id{next(numbers)}", "here")
    planner.plan(tree)
    return planner


def written(planner: Planner) -> int:
    return sum(len(jsoncodec.dumps([call.args, call.options])) for call in planner.calls)


@pytest.mark.parametrize(
    "tree",
    [
        lambda n: chain_of(leaf("a") for _ in range(n)),
        lambda n: group_of(leaf("a") for _ in range(n)),
        lambda n: chord_of(group_of(leaf("a") for _ in range(n)), leaf("b")),
        lambda n: group_of(chain_of([leaf("a"), leaf("b")]) for _ in range(n)),
        lambda n: chord_of([chord_of([leaf("a"), leaf("b")], leaf("c"))] * n, leaf("d")),
        lambda n: chain_of(
            part for _ in range(n) for part in (group_of([leaf("a"), leaf("b")]), leaf("c"))
        ),
    ],
    ids=["chain", "group", "chord", "chains", "chords in a header", "groups in a chain"],
)
def test_what_is_sent_grows_with_the_number_of_tasks(tree: Any) -> None:
    small, large = written(planned(tree(100))), written(planned(tree(1000)))
    assert large < 11 * small


def test_ten_levels_of_chords() -> None:
    def nested(depth: int) -> Tree:
        inner = leaf("a") if depth == 0 else nested(depth - 1)
        return chord_of([inner, leaf("b")], leaf("c"))

    machine = Interpreter()
    node = machine.plan(nested(10))
    assert written(planned(nested(10))) < 60_000
    machine.run()
    assert machine.value(node) == direct(nested(10), ())


def test_what_members_carry_is_one_object() -> None:
    planner = planned(chord_of([leaf("a")] * 1000, leaf("b")))
    first, *others = (call.options["chord"] for call in planner.calls)
    assert all(body is first for body in others)
    assert planner.joins == {first["options"]["group_id"]: 1000}


def test_a_chain_of_a_hundred_thousand_does_not_need_the_stack() -> None:
    planner = planned(chain_of(leaf("a") for _ in range(100_000)))
    assert len(planner.calls[0].options["chain"]) == 99_999


# --- options -------------------------------------------------------------------------------


def options_by_task(planner: Planner) -> dict[str, Mapping[str, Any]]:
    return {call.task: call.options for call in planner.calls}


def test_options_go_to_what_runs_first() -> None:
    planner = Planner(lambda: "x", "here")
    planner.plan(chain_of([leaf("a"), leaf("b")]), options={"queue": "q", "countdown": 5})
    (call,) = planner.calls
    assert (call.options["queue"], call.options["countdown"]) == ("q", 5)
    assert "queue" not in call.options["chain"][0]["options"]


def test_options_of_a_chord_go_to_header_and_body_but_a_delay_only_to_the_header() -> None:
    planner = Planner(lambda: "x", "here")
    planner.plan(
        chord_of([leaf("a"), leaf("b")], leaf("c")), options={"queue": "q", "countdown": 5}
    )
    for call in planner.calls:
        assert (call.options["queue"], call.options["countdown"]) == ("q", 5)
        body = call.options["chord"]["options"]
        assert body["queue"] == "q"
        assert "countdown" not in body


def test_errbacks_of_a_chain_go_to_every_step_those_of_a_chord_to_its_body() -> None:
    errback = leaf("e")
    planner = Planner(lambda: "x", "here")
    chord = chord_of([leaf("b")], leaf("c"))
    planner.plan(chain_of([leaf("a"), chord]), options={"link_error": [errback]})
    (call,) = planner.calls
    assert call.options["link_error"] == [errback]
    kwargs = call.options["chain"][0]["kwargs"]
    assert kwargs["body"]["options"]["link_error"] == [errback]
    assert "link_error" not in kwargs["header"]["kwargs"]["tasks"][0]["options"]


def test_errbacks_go_to_the_header_too_where_that_is_set() -> None:
    numbers = count()
    planner = Planner(lambda: f"id{next(numbers)}", "here", header_errbacks=True)
    planner.plan(chord_of([leaf("b")], leaf("c")), options={"link_error": [leaf("e")]})
    (call,) = planner.calls
    assert call.options["link_error"] == [{**leaf("e"), "immutable": True}]
    assert call.options["chord"]["options"]["link_error"] == [leaf("e")]


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (chain_of([leaf("a"), 5]), "a chain holds 5"),  # type: ignore[list-item]
        (group_of([leaf("a"), {"no": "task"}]), "a group holds"),
        (chord_of([leaf("a")], None), "a chord needs a body"),
    ],
)
def test_what_is_no_signature_is_named(tree: Tree, text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        planned(tree)
