"""Requests, and which app and task are current."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chervil import Chervil, context
from chervil.context import Context, current_request, pop_request, push_request, unread

HEADERS = {
    "lang": "py",
    "task": "wire.request_dump",
    "id": "bca92e40-fc3a-4a74-886c-b0fd1dd44e56",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "root_id": "bca92e40-fc3a-4a74-886c-b0fd1dd44e56",
    "parent_id": None,
    "argsrepr": "(1,)",
    "kwargsrepr": "{'k': 2}",
    "origin": "gen1@vm",
    "ignore_result": False,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
PROPERTIES = {"correlation_id": "bca92e40-fc3a-4a74-886c-b0fd1dd44e56", "reply_to": "9df09791"}
INFO = {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": False}


def for_message(**changes: Any) -> Context:
    headers = {**HEADERS, **changes}
    return Context.for_message(headers, PROPERTIES, [1], {"k": 2}, {}, "w1@host1", INFO)


def test_a_message_gives_the_fields_that_celery_gives_in_its_order() -> None:
    # Names and order as a recorded Celery 5.7 worker has them in vars(task.request).
    assert list(vars(for_message())) == [
        *HEADERS,
        "properties",
        "reply_to",
        "correlation_id",
        "hostname",
        "delivery_info",
        "args",
        "kwargs",
        "is_eager",
        "callbacks",
        "errbacks",
        "chain",
        "chord",
        "called_directly",
        "time_limit",
        "soft_time_limit",
        "headers",
        "_protected",
    ]
    request = for_message()
    assert (request.reply_to, request.correlation_id) == tuple(reversed(PROPERTIES.values()))
    assert request.hostname == "w1@host1"
    assert request.called_directly is False
    assert request.headers is None
    json.dumps(vars(request))  # nothing of the worker's own is in it


def test_time_limits_travel_hard_first() -> None:
    request = for_message(timelimit=[30, 20])
    assert (request.time_limit, request.soft_time_limit) == (30, 20)


def test_custom_headers_are_apart() -> None:
    assert for_message(**{"x-tenant": "acme", "n": 5}).headers == {"x-tenant": "acme", "n": 5}
    assert for_message(compression="application/x-gzip").headers is None


def test_missing_headers_have_defaults() -> None:
    request = Context.for_message({"task": "t", "id": "i"}, {}, [], {}, {}, "w", {})
    assert (request.retries, request.root_id, request.stamps) == (0, None, None)
    assert request.deliveries == 1
    assert request.reporter is None


def test_a_request_that_was_not_made_by_a_message_is_a_direct_call() -> None:
    request = Context()
    assert request.called_directly
    assert request.id is None
    assert request.get("nothing", 7) == 7


@pytest.mark.parametrize("key", ["callbacks", "errbacks", "chain", "chord"])
def test_follows(key: str) -> None:
    assert not for_message().follows
    request = Context.for_message(HEADERS, {}, [], {}, {key: [{"task": "t"}]}, "w", {})
    assert request.follows


def test_children_belong_to_one_run() -> None:
    one, other = Context(), for_message()
    one.children.append("x")  # type: ignore[arg-type]
    assert other.children == []
    assert "children" not in vars(one)


def test_execution_options_send_the_same_again() -> None:
    request = for_message(
        group="g", group_index=2, stamped_headers=["tenant"], stamps={"tenant": "acme"}
    )
    options = request.as_execution_options()
    assert options["task_id"] == request.id
    assert (options["group_id"], options["group_index"]) == ("g", 2)
    assert (options["stamped_headers"], options["tenant"]) == (["tenant"], "acme")


def test_pushed_requests_are_a_stack() -> None:
    assert current_request.get() is None
    outer = push_request(id="1")
    inner = push_request(id="2")
    assert current_request.get() is inner
    assert inner.outer is outer
    pop_request()
    assert current_request.get() is outer
    pop_request()
    assert current_request.get() is None


@pytest.fixture
def no_current_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_default_app", None)
    monkeypatch.setattr(context, "_local", threading.local())


@pytest.mark.usefixtures("no_current_app")
def test_the_last_app_is_the_current_one_in_all_threads() -> None:
    first, last = Chervil("first"), Chervil("last")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(context.current_app()))
    thread.start()
    thread.join()
    assert context.current_app() is last
    assert found == [last]
    first.set_current()
    assert context.current_app() is first
    Chervil("apart", set_as_current=False)
    assert context.current_app() is first


@pytest.mark.usefixtures("no_current_app")
def test_a_thread_may_have_its_own() -> None:
    main = Chervil("main")
    found: list[Any] = []

    def body() -> None:
        own = Chervil("own")
        found.extend([own, context.current_app()])

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found[0] is found[1]
    assert context.current_app() is main


@pytest.mark.usefixtures("no_current_app")
def test_an_app_is_made_when_there_is_none(tmp_path: Path) -> None:
    made = context.current_app()
    assert made.main == "default"
    assert context.current_app() is made


@pytest.mark.usefixtures("no_current_app")
def test_proxies_mean_what_is_current_when_they_are_used() -> None:
    from chervil import current_app, current_task

    app = Chervil("proxied")
    assert current_app.main == "proxied"
    assert current_app == app
    assert isinstance(current_app, Chervil)
    assert not current_task
    seen: list[str] = []

    @app.task
    def look() -> None:
        seen.append(current_task.name)

    look()
    assert seen == [look.name]


def test_an_unread_request_is_read_at_the_first_look() -> None:
    reads = []

    def source() -> Context:
        reads.append(1)
        whole = for_message(group="g")
        whole.deliveries = 3
        return whole

    looks: list[Callable[[Context], Any]] = [
        lambda request: request.id == HEADERS["id"],
        lambda request: vars(request)["group"] == "g",
        lambda request: request.deliveries == 3,
        lambda request: request.get("nothing", 7) == 7,
        lambda request: HEADERS["id"] in repr(request),
        lambda request: copy.copy(request).id == HEADERS["id"],
        lambda request: request.children == [],
        lambda request: request.as_execution_options()["group_id"] == "g",
    ]
    for look in looks:
        reads.clear()
        request = unread(source)
        assert isinstance(request, Context)
        assert not reads
        assert look(request)
        assert type(request) is Context
        assert vars(request) == vars(source())
        assert reads == [1, 1], "once for the look, once for the line above"


def test_an_unread_request_is_read_before_it_is_changed() -> None:
    request = unread(for_message)
    request.callbacks = [{"task": "t"}]
    assert request.follows
    assert request.id == HEADERS["id"]
    other = unread(for_message)
    del other.stamps
    assert "stamps" not in vars(other)
    assert other.id == HEADERS["id"]


def test_what_reading_a_request_raises_is_seen_by_who_looks() -> None:
    request = unread(lambda: Context.for_message({}["no"], {}, [], {}, {}, "w", {}))
    for _ in range(2):
        with pytest.raises(KeyError):
            assert request.id


def test_threads_that_look_at_once_read_it_once() -> None:
    reads = []
    inside = threading.Event()

    def source() -> Context:
        reads.append(1)
        inside.set()
        return for_message()

    request = unread(source)
    others = [threading.Thread(target=lambda: (inside.wait(5), request.id)) for _ in range(4)]
    for thread in others:
        thread.start()
    request.retries = 7
    for thread in others:
        thread.join()
    assert (len(reads), request.retries) == (1, 7)
