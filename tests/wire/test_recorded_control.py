"""Recorded requests by remote control, put to a node of ours: its answers have the shape
of those that Celery's worker gave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chervil import Chervil
from chervil.ids import new_id
from chervil.testing.fanouts import heard
from chervil.testing.harness import wait_for
from chervil.wire.notes import Note, decode_note, encode_note
from chervil.worker.node import Node
from tests.support.nodes import node_in_thread
from tests.wire.recorded import FIXTURES

JSON = frozenset({"application/json"})
NODE = "w1@host1"


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / "control" / f"{name}.json").read_text())
    return found


@pytest.fixture(scope="module")
def app() -> Iterator[Chervil]:
    url = f"memory://{new_id()}"
    app = Chervil("wire", broker=url, backend=url, set_as_current=False)

    @app.task(name="wire.add")
    def add(x: int, y: int) -> int:
        return x + y

    yield app
    app.close()


@pytest.fixture(scope="module")
def node(app: Chervil) -> Iterator[Node]:
    with node_in_thread(app, NODE) as node:
        yield node


@pytest.fixture
def replay(app: Chervil, node: Node) -> Callable[[str], Any]:
    """Put a recorded request to the node; the body and headers of its answer."""

    def replay(name: str) -> tuple[Any, dict[str, Any]]:
        recorded = load(name)
        note = decode_note(recorded["request_raw"].encode())
        to = note.value(JSON)["reply_to"]
        fanout = app.broker.fanout()
        mailbox = fanout.answers(to["exchange"], to["routing_key"])
        try:
            fanout.broadcast("celery.pidbox", note)
            (answer,) = wait_for(mailbox.receive, f"an answer to {name}")
        finally:
            mailbox.close()
        return answer.value(JSON), answer.headers

    return replay


#: Answers that are the same to the letter.
SAME = [
    "pidbox-001-ping",
    "pidbox-016-hello-from-self",
    "pidbox-030-revoke",
    "pidbox-033-terminate",
    "pidbox-034-revoke-by-stamped-headers",
    "pidbox-035-revoke-by-stamped-headers-terminate",
    "pidbox-036-rate-limit",
    "pidbox-037-rate-limit-ok",
    "pidbox-038-rate-limit-bad",
    "pidbox-039-rate-limit-unknown",
    "pidbox-040-time-limit",
    "pidbox-043-autoscale-disabled",
    "pidbox-046-enable-events",
    "pidbox-048-enable-events-again",
    "pidbox-047-disable-events",
    "pidbox-047b-disable-events-again",
    "pidbox-049-heartbeat",
    "pidbox-051-election",
    "pidbox-053-unknown-command",
    "pidbox-054-bad-arguments",
    "pidbox-055-bad-arguments-strict",
    "pidbox-057-pattern-glob",
    "pidbox-058-pattern-pcre",
    "pidbox-059-expired-header",
]


@pytest.mark.parametrize("name", SAME)
def test_the_same_answer(name: str, replay: Callable[[str], Any]) -> None:
    recorded = load(name)
    body, headers = replay(name)
    assert body == recorded["reply_body"]
    assert headers["ticket"] == recorded["reply_headers"]["ticket"]
    assert type(headers["clock"]) is int


def shape(value: Any) -> Any:
    """Keys and types, to any depth; of lists, those of the first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_the_shape_of_stats(replay: Callable[[str], Any]) -> None:
    theirs = load("pidbox-008-stats")["reply_body"][NODE]
    ours = replay("pidbox-008-stats")[0][NODE]
    assert set(ours) == set(theirs)
    for part in ("pool", "broker", "rusage"):
        assert set(ours[part]) == set(theirs[part]), part
    assert shape(ours["clock"]) == shape(theirs["clock"]) == "str"
    assert ours["pool"]["max-concurrency"] == 1


def test_the_shape_of_queues(replay: Callable[[str], Any]) -> None:
    name = "pidbox-009-active-queues"
    assert shape(replay(name)[0]) == shape(load(name)["reply_body"])


@pytest.mark.parametrize(
    "name",
    ["pidbox-006-registered", "pidbox-010-conf", "pidbox-011-conf-with-defaults",
     "pidbox-012-clock", "pidbox-013-report", "pidbox-015-hello", "pidbox-021-memdump"],
)  # fmt: skip
def test_the_same_type(name: str, replay: Callable[[str], Any]) -> None:
    ours, theirs = replay(name)[0][NODE], load(name)["reply_body"][NODE]
    assert type(ours) is type(theirs)
    if isinstance(ours, dict) and "broker_url" not in ours and name != "pidbox-010-conf":
        assert set(ours) == set(theirs)
    assert "error" not in ours


def test_hello_tells_what_was_revoked(replay: Callable[[str], Any]) -> None:
    answer = replay("pidbox-015-hello")[0][NODE]
    assert "deadbeef-0000-4000-8000-000000000001" in answer["revoked"]
    assert "deadbeef-0000-4000-8000-000000000001" in replay("pidbox-017-revoked")[0][NODE]


def test_tasks_have_the_shape(app: Chervil, node: Node, replay: Callable[[str], Any]) -> None:
    go = threading.Event()

    @app.task(name="wire.sleep")
    def sleep(seconds: int) -> None:
        go.wait(20)

    result = sleep.delay(6)
    reserved = load("pidbox-004-reserved")["reply_body"][NODE][0]
    active = load("pidbox-002-active")["reply_body"][NODE][0]
    safe = load("pidbox-003-active-safe")["reply_body"][NODE][0]
    try:
        (ours,) = wait_for(lambda: replay("pidbox-002-active")[0][NODE], "it runs")
        assert set(ours) == set(active) == set(reserved)
        assert shape(ours["delivery_info"]) == shape(active["delivery_info"])
        assert (ours["id"], ours["name"], ours["args"]) == (result.id, "wire.sleep", [6])
        assert abs(ours["time_start"] - time.time()) < 20
        (again,) = replay("pidbox-018-alias-dump-active")[0][NODE]
        assert again["id"] == result.id
        (shown,) = replay("pidbox-003-active-safe")[0][NODE]
        assert (shown["args"], shown["kwargs"]) == (safe["args"], safe["kwargs"]) == ("(6,)", "{}")
        found = app.control.inspect(NODE, timeout=20).query_task(result.id, "no-such-id")
        assert {key: value[0] for key, value in found.items()} == {result.id: "active"}
    finally:
        go.set()
    result.get(timeout=20)


def test_a_request_for_others_is_not_answered(app: Chervil, node: Node) -> None:
    note = decode_note(load("pidbox-056-destination-other")["request_raw"].encode())
    to = note.value(JSON)["reply_to"]
    mailbox = app.broker.fanout().answers(to["exchange"], to["routing_key"])
    app.broker.fanout().broadcast("celery.pidbox", note)
    app.control.ping(timeout=20)  # what came before was read
    assert not mailbox.receive()
    mailbox.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"[1]", b"{", b'{"method": 3}', b'{"method": "ping", "arguments": 7}', b"null",
     b'{"method": "ping", "destination": 5}',
     b'{"method": "ping", "pattern": "(", "matcher": "pcre"}',
     b'{"method": "ping", "reply_to": 5}', b'{"method": "revoke", "arguments": {"task_id": 5}}',
     b'{"method": "pool_grow", "arguments": {"n": -1}}'],
)  # fmt: skip
def test_nothing_hurts_the_node(app: Chervil, node: Node, body: bytes) -> None:
    for content_type in ("application/json", "application/x-python-serialize"):
        app.broker.fanout().broadcast("celery.pidbox", Note(body, {"clock": "x"}, content_type))
    assert app.control.ping(timeout=20) == [{NODE: {"ok": "pong"}}]


def test_what_cannot_be_encoded_is_shown_as_text(app: Chervil, node: Node) -> None:
    """Where Celery's worker does not answer at all (pidbox-070)."""
    from chervil.worker.control import Panel, inspect_command

    @inspect_command()
    def odd(state: Any) -> Any:
        return {"value": object, "fine": [1, {2: None}]}

    try:
        answer = app.control.inspect(NODE, timeout=20)._request("odd")
    finally:
        del Panel.commands["odd"]
    assert answer == {"value": "<class 'object'>", "fine": [1, {"2": None}]}


def test_our_requests_are_celerys(app: Chervil) -> None:
    """What the recorded client of Celery's sent, and what ours sends."""
    theirs = json.loads(load("pidbox-065-kombu-revoke-cast")["messages"][0]["raw"]["utf8"])
    mailbox = app.broker.fanout().subscribe("celery.pidbox", "ear")
    app.control.revoke("deadbeef-0000-4000-8000-000000000009")
    note = wait_for(mailbox.receive, "the request")[0]
    mailbox.close()
    ours = json.loads(encode_note(note, "celery.pidbox", "", 2))
    assert shape({**ours, "headers": None}) == shape({**theirs, "headers": None})
    assert set(theirs["headers"]) <= set(ours["headers"])
    assert note.value(JSON) == load("pidbox-065-kombu-revoke-cast")["messages"][0]["body"]


def test_an_unread_answer_is_heard_in_order(app: Chervil) -> None:
    mailbox = app.broker.fanout().answers("reply.celery.pidbox", "k")
    for number in range(3):
        app.broker.fanout().reply("reply.celery.pidbox", "k", Note.of(number))
    assert heard(mailbox, 3) == [0, 1, 2]
    mailbox.close()
