"""Signatures as values: building, changing, merging, travelling."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from chervil import Chervil, Signature, Task, maybe_signature, signature
from chervil.canvas.signature import register_type
from chervil.exceptions import ImproperlyConfigured, NotRegistered
from chervil.wire import jsoncodec


@pytest.fixture
def app() -> Chervil:
    return Chervil("test", set_as_current=False)


@pytest.fixture
def add(app: Chervil) -> Task[Any, Any]:
    @app.task(name="wire.add")
    def add(x: int, y: int = 0, k: str = "") -> Any:
        return x + y if not k else (x, y, k)

    return add


def test_the_six_keys_as_they_travel(add: Task[Any, Any]) -> None:
    # Recorded from Celery 5.7.
    expected = {
        "task": "wire.add",
        "args": [1, 2],
        "kwargs": {},
        "options": {},
        "subtask_type": None,
        "immutable": False,
    }
    assert list(add.s(1, 2)) == list(expected)
    assert json.loads(jsoncodec.dumps(add.s(1, 2))) == expected
    assert json.loads(jsoncodec.dumps(add.si(1, 2))) == {**expected, "immutable": True}
    options = {"queue": "q1", "countdown": 3, "priority": 5, "expires": 60}
    found = json.loads(jsoncodec.dumps(add.s(1, 2).set(**options)))
    assert found == {**expected, "options": options}


def test_calling_it_adds_arguments_in_front(add: Task[Any, Any]) -> None:
    assert add.s(2)(1) == 3
    assert add.s(k="x")(1, 2) == (1, 2, "x")
    assert add.si(5, 5)(100) == 10
    assert add.s(1, k="a")(3, k="b") == (3, 1, "b")


def test_merging_options_keeps_what_must_not_change(add: Task[Any, Any]) -> None:
    sig = add.s(1).set(queue="a", group_id="g")
    _, _, options = sig._merged((), {}, {"queue": "b", "group_id": "other", "priority": None})
    assert options == {"queue": "b", "group_id": "g"}


def test_clone_is_independent(add: Task[Any, Any]) -> None:
    sig = add.s(1, k="a").set(headers={"a": [1]})
    twin = sig.clone((9,), {"z": 1}, queue="q")
    twin["options"]["headers"]["a"].append(2)
    assert sig == add.s(1, k="a").set(headers={"a": [1]})
    assert twin.args == (9, 1)
    assert twin.kwargs == {"k": "a", "z": 1}
    assert twin.options["queue"] == "q"
    assert twin.type is add


def test_replace_takes_the_place(add: Task[Any, Any]) -> None:
    sig = add.s(1, k="a").set(queue="q")
    assert sig.replace(args=(5,)).args == (5,)
    assert sig.replace(kwargs={}).kwargs == {}
    assert sig.replace(options={}).options == {}
    assert sig.args == (1,)


def test_links_are_kept_once_and_in_order(add: Task[Any, Any]) -> None:
    sig, callback, errback = add.s(1), add.s(2), add.s(3)
    assert sig.link(callback) is callback
    sig.link(callback)
    sig.link(errback)
    assert sig.on_error(errback) is sig
    assert sig.options == {"link": [callback, errback], "link_error": [errback]}
    single = add.s(1).set(link=callback)
    single.link(errback)
    assert single.options["link"] == [callback, errback]


def test_it_survives_pickle_copy_and_json(add: Task[Any, Any], app: Chervil) -> None:
    app.set_current()
    sig = add.s(1, k="x").set(queue="q")
    sig.link(add.si(2))
    for twin in (pickle.loads(pickle.dumps(sig)), copy.copy(sig), copy.deepcopy(sig)):
        assert type(twin) is Signature
        assert twin == sig
        assert twin.type is add
    back = maybe_signature(json.loads(jsoncodec.dumps(sig)), app)
    assert back.type is add
    assert back.kwargs == {"k": "x"}


def test_a_dict_from_a_message_may_leave_things_out(app: Chervil) -> None:
    sig = maybe_signature({"task": "elsewhere", "args": [1]}, app)
    assert (sig.kwargs, sig.options, sig.immutable, sig.subtask_type) == ({}, {}, False, None)
    with pytest.raises(NotRegistered, match="elsewhere"):
        sig.type  # noqa: B018


def test_signature_makes_and_copies(add: Task[Any, Any], app: Chervil) -> None:
    by_name = signature("wire.add", args=(1, 2), queue="q", app=app)
    assert by_name == add.s(1, 2).set(queue="q")
    assert by_name.type is add
    assert signature(by_name) == by_name
    assert signature(by_name) is not by_name
    assert app.signature({"task": "wire.add"}).app is app
    assert maybe_signature(None) is None
    assert maybe_signature(by_name) is by_name
    assert maybe_signature(by_name, clone=True) is not by_name


def test_what_is_no_task_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="needs a task or its name"):
        Signature(42)
    with pytest.raises(ImproperlyConfigured, match="subtask_type 'unheard'"):
        maybe_signature({"task": "x", "subtask_type": "unheard"})


def test_other_kinds_come_back_as_their_class(monkeypatch: pytest.MonkeyPatch) -> None:
    from chervil.canvas.signature import _types

    monkeypatch.delitem(_types, "special", raising=False)

    @register_type("special")
    class Special(Signature[Any]):
        @classmethod
        def from_dict(cls, d: Any, app: Any = None) -> Special:
            return cls(d, app=app)

    assert type(maybe_signature({"task": "t", "subtask_type": "special"})) is Special


def test_it_reads_as_a_call(add: Task[Any, Any]) -> None:
    assert repr(add.s(1, k="x")) == "wire.add(1, k='x')"
    assert add.s(2).reprcall(1) == "wire.add(1, 2)"


def test_only_signatures_can_be_combined(add: Task[Any, Any]) -> None:
    pairs: list[tuple[Any, Any]] = [(add.s(1), add), (add.s(1), {"a": 1}), ({"a": 1}, add.s(1))]
    for left, right in pairs:
        with pytest.raises(TypeError, match="a signature can be combined with another one"):
            left | right
    with pytest.raises(TypeError, match=r"write wire.add.s\(...\)"):
        add.s(1) | add  # type: ignore[operator]
    sig = before = add.s(1)
    sig |= add.s(2)  # type: ignore[assignment]
    assert before == add.s(1)
    assert [task.args for task in sig.tasks] == [(1,), (2,)]  # type: ignore[attr-defined]
