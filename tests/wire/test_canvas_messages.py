"""Workflows as Celery writes them: each recorded canvas is made here and compared."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest

from chervil import Chervil, Signature, Task, chord, group, maybe_signature
from chervil.canvas.stamping import StampingVisitor
from chervil.drivers.contracts import Queue
from chervil.wire import jsoncodec
from tests.wire.recorded import load

Made = Callable[[dict[str, Task[Any, Any]]], Any]
_numbers = count()
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def tasks() -> dict[str, Task[Any, Any]]:
    url = f"memory://{next(_numbers)}"
    app = Chervil("wire", broker=url, backend=url, set_as_current=False)

    def task(name: str, function: Callable[..., Any]) -> Task[Any, Any]:
        function.__name__ = name
        return app.task(function, name=f"wire.{name}")  # type: ignore[no-any-return,call-overload]

    return {
        "add": task("add", lambda x, y: x + y),
        "mul": task("mul", lambda x, y: x * y),
        "xsum": task("xsum", lambda values: sum(values)),
        "ident": task("ident", lambda x: x),
        "fail": task("fail", lambda *args: args),
        "onerr": task("onerr", lambda task_id: task_id),
    }


def sent(tasks: dict[str, Task[Any, Any]], make: Made) -> list[dict[str, Any]]:
    """The messages that a canvas becomes, in the order in which they were stored."""
    app = tasks["add"].app
    make(tasks)
    consumer = app.broker.consumer([Queue("celery")], "test")
    try:
        found = []
        for delivery in consumer.exchange([], 1000):
            whole = json.loads(delivery.head)
            assert delivery.body is not None
            found.append({**whole["headers"], "body": json.loads(delivery.body)})
        return found
    finally:
        consumer.close()


def recorded(name: str) -> list[dict[str, Any]]:
    """The messages of a fixture, oldest first."""
    found = []
    for entry in reversed(load(name)["entries"]):
        whole = json.loads(entry["raw"])
        body = json.loads(base64.b64decode(whole["body"]))
        found.append({**whole["headers"], "body": body})
    return found


class _Names:
    """Ids in the order in which they are met."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def plain(self, value: Any, key: str = "") -> Any:
        """A value that does not depend on ids, and without what we write in addition."""
        if isinstance(value, Mapping):
            pairs = sorted(value.items())
            kept = [(k, v) for k, v in pairs if k not in ("chord_size", "origin")]
            return {k: self.plain(v, k) for k, v in kept if not _is_empty(k, v)}
        if isinstance(value, (list, tuple)):
            items = sorted(value) if key == "stamped_headers" else value
            return [self.plain(item) for item in items]
        if key == "reply_to":
            return "here"
        if isinstance(value, str) and _ID.fullmatch(value):
            return self.known.setdefault(value, f"id {len(self.known)}")
        return value


def _is_empty(key: str, value: Any) -> bool:
    """Options that Celery writes with nothing in them."""
    return (key in ("root_id", "parent_id", "chain") and not value) or key.endswith("repr")


def add_link(t: dict[str, Task[Any, Any]]) -> Any:
    whole = group(t["add"].s(1, 1), t["add"].s(2, 2))
    whole.link(t["ident"].s())
    return whole.apply_async()


class Monitor(StampingVisitor):
    def on_signature(self, sig: Signature[Any], **headers: Any) -> dict[str, Any]:
        return {"monitoring_id": "mon-1", "stamped_headers": ["monitoring_id"]}


def stamped(whole: Signature[Any], *args: Any, **headers: Any) -> Any:
    whole.stamp(*args, **headers)
    return whole.apply_async()


def linked(t: dict[str, Task[Any, Any]]) -> Any:
    sig = t["add"].s(1, 1)
    sig.link(t["mul"].s(2))
    sig.link_error(t["onerr"].s())
    return stamped(sig, tenant="acme")


CANVASES: dict[str, Made] = {
    "canvas-001-chain": lambda t: (t["add"].s(1, 2) | t["mul"].s(10) | t["add"].s(5)).apply_async(),
    "canvas-002-chain-immutable": lambda t: (t["add"].si(1, 2) | t["add"].si(3, 4)).apply_async(),
    "canvas-003-chain-link-error": lambda t: (t["add"].s(1, 2) | t["fail"].si()).apply_async(
        link_error=t["onerr"].s()
    ),
    "canvas-004-chain-link": lambda t: (t["add"].s(1, 2) | t["mul"].s(2)).apply_async(
        link=t["ident"].s()
    ),
    "canvas-010-group": lambda t: group(t["add"].s(i, i) for i in range(3)).apply_async(),
    "canvas-011-group-link": add_link,
    "canvas-013-group-of-chains": lambda t: group(
        t["add"].s(1, 1) | t["mul"].s(2), t["add"].s(2, 2) | t["mul"].s(3)
    ).apply_async(),
    "canvas-020-chord": lambda t: chord([t["add"].s(1, 1), t["add"].s(2, 2)])(t["xsum"].s()),
    "canvas-021-chord-with-errback": lambda t: chord([t["add"].s(1, 1), t["fail"].si("x")])(
        t["xsum"].s().on_error(t["onerr"].s())
    ),
    "canvas-022-chord-body-chain": lambda t: chord(
        [t["add"].s(1, 1), t["add"].s(2, 2)], t["xsum"].s() | t["mul"].s(10)
    ).apply_async(),
    "canvas-023-chord-body-group": lambda t: chord(
        [t["add"].s(1, 1), t["add"].s(2, 2)], group(t["ident"].s(), t["xsum"].s())
    ).apply_async(),
    "canvas-024-group-then-task-upgraded-to-chord": lambda t: (
        group(t["add"].s(1, 1), t["add"].s(2, 2)) | t["xsum"].s() | t["mul"].s(3)
    ).apply_async(),
    "canvas-025-chain-then-group-then-task": lambda t: (
        t["add"].s(1, 1) | group(t["add"].s(10), t["add"].s(20)) | t["xsum"].s()
    ).apply_async(),
    "canvas-026-chain-ending-in-group": lambda t: (
        t["add"].s(1, 1) | group(t["add"].s(10), t["add"].s(20))
    ).apply_async(),
    "canvas-027-nested-chord": lambda t: chord(
        [t["add"].s(1, 1), chord([t["add"].s(2, 2), t["add"].s(3, 3)], t["xsum"].s())],
        t["xsum"].s(),
    ).apply_async(),
    "canvas-028-chord-header-chains": lambda t: chord(
        [t["add"].s(1, 1) | t["mul"].s(2), t["add"].s(2, 2) | t["mul"].s(3)], t["xsum"].s()
    ).apply_async(),
    "canvas-030-link-to-chain": lambda t: t["add"].apply_async(
        (1, 1), link=(t["mul"].s(2) | t["add"].s(3))
    ),
    "canvas-031-link-to-group": lambda t: t["add"].apply_async(
        (1, 1), link=group(t["mul"].s(2), t["add"].s(3))
    ),
    "canvas-032-link-to-chord": lambda t: t["add"].apply_async(
        (1, 1), link=chord([t["mul"].s(2), t["add"].s(3)], t["xsum"].s())
    ),
    "canvas-033-chunks": lambda t: t["add"].chunks([(1, 1), (2, 2), (3, 3)], 2).apply_async(),
    "canvas-034-map-starmap": lambda t: (
        t["xsum"].map([[1, 2], [3]]).apply_async(),
        t["add"].starmap([(1, 2), (3, 4)]).apply_async(),
    ),
    "canvas-040-stamp-visitor": lambda t: stamped(t["add"].s(1, 2), Monitor()),
    "canvas-041-stamp-chain": lambda t: stamped(
        t["add"].s(1, 2) | t["mul"].s(3), tenant="acme", tags=["a", "b"]
    ),
    "canvas-042-stamp-chord": lambda t: stamped(
        chord([t["add"].s(1, 1), t["add"].s(2, 2)], t["xsum"].s()), tenant="acme"
    ),
    "canvas-043-stamp-links": linked,
}


@pytest.mark.parametrize("name", CANVASES)
def test_a_canvas_becomes_the_messages_that_celery_writes(
    name: str, tasks: dict[str, Task[Any, Any]]
) -> None:
    ours, theirs = sent(tasks, CANVASES[name]), recorded(name)
    assert [m["body"][:2] for m in ours] == [m["body"][:2] for m in theirs]
    assert _Names().plain(_without_added(ours)) == _Names().plain(_without_added(theirs))


def _without_added(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without an option that Celery's chords leave in signatures, which says nothing later."""
    text = json.dumps(messages).replace('"add_to_parent": false, ', "")
    return json.loads(text)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "make", "arguments"),
    [
        (
            "canvas-012-group-of-groups",
            lambda t: group(
                t["add"].s(1, 1), group(t["add"].s(2, 2), t["add"].s(3, 3))
            ).apply_async(),
            [[1, 1], [2, 2], [3, 3]],
        ),
        (
            "canvas-029-chord-header-group-nested",
            lambda t: chord(
                group(t["add"].s(1, 1), group(t["add"].s(2, 2), t["add"].s(3, 3))), t["ident"].s()
            ).apply_async(),
            [[1, 1], [2, 2], [3, 3]],
        ),
    ],
)
def test_nested_groups_are_flattened_as_there_but_keep_their_order(
    name: str, make: Made, arguments: list[Any], tasks: dict[str, Task[Any, Any]]
) -> None:
    ours, theirs = sent(tasks, make), recorded(name)
    assert [message["body"][0] for message in ours] == arguments
    # Celery gives places twice, or in another order than they were written.
    assert [message["group_index"] for message in ours] == [0, 1, 2]
    assert len({message["group"] for message in ours}) == 1
    for messages in (ours, theirs):
        messages.sort(key=lambda message: message["body"][0])
        for message in messages:
            del message["group_index"]
    assert _Names().plain(ours) == _Names().plain(theirs)


def test_signatures_travel_as_celerys_do(tasks: dict[str, Task[Any, Any]]) -> None:
    add, mul, xsum = tasks["add"], tasks["mul"], tasks["xsum"]
    found = load("signature-001-dicts")["signatures"]
    with_link = add.s(1, 2)
    with_link.link(mul.s(2))
    ours = {
        "plain": add.s(1, 2),
        "immutable": add.si(1, 2),
        "with_link": with_link,
        "chain": add.s(1, 2) | mul.s(3),
        "group": group(add.s(1, 1), add.s(2, 2)),
        "chord": chord([add.s(1, 1)], xsum.s()),
        "chunks": add.chunks([(1, 1), (2, 2)], 1),
        "map": add.map([1]),
        "starmap": add.starmap([(1, 1), (2, 2)]),
    }
    for name, sig in ours.items():
        theirs = json.loads(found[name]["raw"])
        if name in ("chunks", "map", "starmap"):
            for inner in ("it", "n"):
                if inner in theirs["kwargs"]:
                    sig["kwargs"][inner] = theirs["kwargs"][inner]
            theirs["kwargs"]["task"] = json.loads(jsoncodec.dumps(sig["kwargs"]["task"]))
        assert json.loads(jsoncodec.dumps(sig)) == theirs, name
        back = maybe_signature(theirs, add.app)
        assert json.loads(jsoncodec.dumps(back)) == theirs
        if name not in ("chunks", "map", "starmap"):
            assert type(back) is type(sig)
