"""Sending: what calls become on the wire, options, bulk, coroutines, failures."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from chervil import Chervil, Exchange, Queue, Task, clock, signals
from chervil.clock import ManualClock
from chervil.context import Context, current_request
from chervil.exceptions import (
    BrokerUnavailable,
    EncodeError,
    ImproperlyConfigured,
    MessageTooLarge,
    PublishError,
)
from chervil.wire import celery_v2, envelope
from chervil.wire.message import Message
from tests.wire.recorded import load

Factory = Callable[..., Chervil]


class Shelf:
    """A broker that keeps what it is given, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.batches: list[int] = []
        self.failures: list[Exception] = []

    def publish(self, messages: Sequence[Message]) -> None:
        self.batches.append(len(messages))
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, PublishError):
                self.messages += [m for m in messages if m.id not in failure.failed]
            raise failure
        self.messages += messages

    def depths(self, queues: Any = None) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr("chervil.connections.open_broker", lambda *args: shelf)
    return shelf


@pytest.fixture
def sender(shelf: Shelf) -> Iterator[Chervil]:
    app = Chervil("sender", set_as_current=False)
    yield app
    app.close()


def define(app: Chervil, **options: Any) -> Task[Any, Any]:
    options.setdefault("name", "wire.add")

    @app.task(**options)
    def add(*args: Any, **kwargs: Any) -> None: ...

    return add


# --- against recorded messages

NOW = dt.datetime(2026, 11, 20, 7, 34, 20, 994759, tzinfo=dt.UTC)
UTC = dt.UTC
EAST = dt.timezone(dt.timedelta(hours=2))
CALLS: dict[str, Callable[[Task[Any, Any], Chervil], Any]] = {
    "task-001-simple": lambda add, app: add.delay(2, 3),
    "task-003-fixed-id-shadow": lambda add, app: add.apply_async(
        (2, 3), task_id="11111111-1111-4111-8111-111111111111", shadow="pretty.name"
    ),
    "task-006-eta-naive": lambda add, app: add.apply_async(
        (2, 3), eta=dt.datetime(2030, 1, 2, 3, 4, 5)
    ),
    "task-007-eta-offset": lambda add, app: add.apply_async(
        (2, 3), eta=dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=EAST)
    ),
    "task-008-expires-seconds": lambda add, app: add.apply_async((2, 3), expires=120),
    "task-009-expires-datetime": lambda add, app: add.apply_async(
        (2, 3), expires=dt.datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    ),
    "task-010-expires-past": lambda add, app: add.apply_async(
        (2, 3), expires=dt.datetime(2020, 1, 1, tzinfo=UTC)
    ),
    "task-011-timelimits": lambda add, app: add.apply_async(
        (2, 3), time_limit=30, soft_time_limit=20
    ),
    "task-013-ignore-result-call": lambda add, app: add.apply_async((2, 3), ignore_result=True),
    "task-014-link": lambda add, app: add.apply_async(
        (2, 3), link=app.signature("wire.mul", (10,))
    ),
    "task-015-link-immutable-and-options": lambda add, app: add.apply_async(
        (2, 3),
        link=[
            app.signature("wire.mul", (4, 5), immutable=True).set(queue="other", countdown=5),
            app.signature("wire.echo", kwargs={"k": 1}),
        ],
    ),
    "task-017-custom-headers": lambda add, app: add.apply_async(
        (2, 3), headers={"x-tenant": "acme", "n": 5}
    ),
    "task-018-custom-properties": lambda add, app: add.apply_async(
        (2, 3), reply_to="my-reply", app_id="me", message_id="m1"
    ),
    "task-023-priority-5": lambda add, app: add.apply_async((2, 3), priority=5),
    "task-027-send-task-by-name": lambda add, app: app.send_task(
        "other.service.task", args=[1], kwargs={"a": "b"}, queue="other"
    ),
    "task-028-queue-other-exchange": lambda add, app: app.send_task(
        "t",
        exchange="ex1",
        exchange_type="topic",
        routing_key="a.b",
        queue=Queue("tq", Exchange("ex1", "topic"), "a.#"),
    ),
}


def essence(whole: dict[str, Any], body: bytes) -> dict[str, Any]:
    """A recorded or built message without what differs from run to run."""
    headers = dict(whole["headers"])
    properties = {
        key: value
        for key, value in whole["properties"].items()
        if key not in ("delivery_tag", "body_encoding")
    }
    chance = headers["id"]
    if chance != "11111111-1111-4111-8111-111111111111":
        for place in (headers, properties):
            place.update({k: "ID" for k, v in place.items() if v == chance})
    headers["origin"] = headers["origin"].partition("@")[0][:3]
    if properties["reply_to"] != "my-reply":
        properties["reply_to"] = "ADDRESS"
    if "expiration" in properties:
        properties["expiration"] = int(properties["expiration"]) // 100_000_000
    if headers["expires"] is not None and headers["expires"].startswith("2026"):
        headers["expires"] = "SOON"
    return {
        "headers": list(headers.items()),
        "properties": properties,
        "body": list(celery_v2.decode_body(body, whole["content-type"], whole["content-encoding"])),
    }


@pytest.mark.parametrize("name", CALLS)
def test_calls_become_what_celery_makes_of_them(name: str, sender: Chervil, shelf: Shelf) -> None:
    (entry,) = load(name)["entries"]
    recorded = entry["decoded"]["envelope"]
    add = define(sender)
    with clock.using(ManualClock(NOW.timestamp())):
        CALLS[name](add, sender)
    (message,) = shelf.messages
    made = json.loads(envelope.encode_head(message))
    body = entry["decoded"]["body_bytes"]["utf8"].encode()
    assert essence(made, message.body) == essence(recorded, body)


def test_a_countdown_is_a_time_in_the_apps_zone(shelf: Shelf) -> None:
    app = Chervil("warsaw", set_as_current=False, timezone="Europe/Warsaw")
    with clock.using(ManualClock(NOW.timestamp())):
        app.send_task("t", countdown=60)
        app.send_task("t", eta=dt.datetime(2030, 1, 2, 3, 4, 5))
    first, second = shelf.messages
    assert first.headers["eta"] == "2026-11-20T08:35:20.994759+01:00"
    assert first.due == NOW.timestamp() + 60
    assert second.headers["eta"] == "2030-01-02T03:04:05"
    assert second.due == dt.datetime(2030, 1, 2, 2, 4, 5, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "expires", [120, 120.0, dt.timedelta(minutes=2), NOW + dt.timedelta(minutes=2)]
)
def test_ways_to_say_when_it_expires(expires: Any, sender: Chervil, shelf: Shelf) -> None:
    with clock.using(ManualClock(NOW.timestamp())):
        sender.send_task("t", expires=expires)
        sender.send_task("t", expires=(NOW + dt.timedelta(minutes=2)).isoformat())
        define(sender, expires=expires).delay()
    for message in shelf.messages:
        assert dt.datetime.fromisoformat(message.headers["expires"]) == NOW + dt.timedelta(
            minutes=2
        )
        assert message.properties["expiration"] == "120000"


# --- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"countdown": "soon"}, "option countdown='soon' must be a number of seconds"),
        ({"eta": 5}, "option eta=5 must be a datetime"),
        ({"eta": "tomorrow"}, "eta='tomorrow' is not a time in ISO 8601"),
        ({"expires": "later"}, "expires='later' is not a time"),
        ({"priority": -1}, "priority=-1 must be a whole number from 0 to 255"),
        ({"priority": 256}, "from 0 to 255"),
        ({"priority": 1.5}, "from 0 to 255"),
        ({"serializer": "xml"}, "serializer 'xml' is not registered; known: .*json"),
        ({"compression": "rar"}, "compression 'rar' is not known; known: .*zlib"),
        ({"headers": [1]}, "headers=.* must be a dict"),
        ({"queue": 5}, "queue=5 must be a name or a Queue"),
        ({"link": "task"}, "link='task' must be a signature"),
        ({"time_limit": -5}, "time_limit=-5 must be a number of seconds, not negative"),
        ({"ignore_result": "no"}, "ignore_result='no' must be True or False"),
        ({"coutdown": 5}, "no option 'coutdown'; did you mean 'countdown'"),
        ({"task_id": 5}, "task_id=5 must be text"),
        ({"producer": "x"}, "producer='x': must be a broker"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_sent(
    options: dict[str, Any], message: str, sender: Chervil, shelf: Shelf
) -> None:
    add = define(sender)
    with pytest.raises(ImproperlyConfigured, match=message):
        add.apply_async((1,), **options)
    with pytest.raises(ImproperlyConfigured, match=message):
        sender.send_task("t", **options)
    assert shelf.batches == []


def test_wrong_options_of_the_task_itself_say_so(sender: Chervil) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"wire\.add: serializer 'xml'"):
        define(sender, serializer="xml").delay()


def test_what_cannot_be_serialized_is_named(sender: Chervil, shelf: Shelf) -> None:
    with pytest.raises(EncodeError, match="object"):
        define(sender).delay(object())
    assert shelf.batches == []


def test_sizes_are_limited(sender: Chervil, shelf: Shelf) -> None:
    sender.conf.task_max_size = 200
    add = define(sender)
    add.delay("x")
    with pytest.raises(MessageTooLarge, match="more than task_max_size"):
        add.delay("x" * 300)
    with pytest.raises(MessageTooLarge):
        add.apply_async(("x" * 300,), countdown=1)
    assert len(shelf.messages) == 1


def test_the_tasks_own_options_are_used(sender: Chervil, shelf: Shelf) -> None:
    add = define(
        sender,
        queue="mine",
        priority=7,
        serializer="pickle",
        compression="zlib",
        time_limit=5,
        ignore_result=True,
        delivery_mode="transient",
    )
    quick, careful = add.delay(1), add.apply_async((1,), countdown=0)
    for message in shelf.messages:
        assert (message.queue, message.priority) == ("mine", 7)
        assert message.content_type == "application/x-python-serialize"
        assert message.headers["compression"] == "application/x-gzip"
        assert message.headers["timelimit"] == [5, None]
        assert message.headers["ignore_result"] is True
        assert message.properties["delivery_mode"] == 1
    assert quick.ignored
    assert careful.get() is None
    add.apply_async((1,), queue="other", priority=0, serializer="json", time_limit=1)
    message = shelf.messages[-1]
    assert (message.queue, message.priority, message.content_type) == (
        "other",
        0,
        "application/json",
    )
    assert message.headers["timelimit"] == [1, None]


def test_both_ways_to_build_a_message_agree(sender: Chervil, shelf: Shelf) -> None:
    add = define(sender)
    add.delay(1, k="x")
    add.delay(1, k="x")
    add.apply_async((1,), {"k": "x"}, add_to_parent=True)
    slow, quick, also_slow = shelf.messages
    for message in (slow, quick, also_slow):
        message.headers["id"] = message.headers["root_id"] = "ID"
        message.head = None  # the one with the id that it was sent with
    assert slow == quick == also_slow
    assert list(slow.headers) == list(quick.headers)


def test_changed_settings_count_for_the_next_call(sender: Chervil, shelf: Shelf) -> None:
    add = define(sender)
    add.delay()
    sender.conf.task_default_queue = "changed"
    add.delay()
    sender.conf.task_routes = {"wire.*": {"queue": "routed", "serializer": "yaml"}}
    add.delay()
    sender.conf.task_routes = lambda name, args, kwargs, options, task=None, **kw: {
        "queue": f"by-{args[0]}"
    }
    add.delay("a")
    add.delay("b")
    assert [m.queue for m in shelf.messages] == ["celery", "changed", "routed", "by-a", "by-b"]
    assert shelf.messages[2].content_type == "application/x-yaml"


def test_one_message_for_each_queue_of_a_fanout(sender: Chervil, shelf: Shelf) -> None:
    news = Exchange("news", type="fanout")
    sender.conf.task_queues = [Queue("a", news), Queue("b", news), Queue("celery")]
    result = define(sender, exchange="news").delay(1)
    assert sorted(m.queue for m in shelf.messages) == ["a", "b"]
    assert {m.id for m in shelf.messages} == {result.id}
    assert shelf.batches == [2]


def test_a_broker_of_ones_own(sender: Chervil, shelf: Shelf) -> None:
    other = Shelf()
    define(sender).apply_async((1,), producer=other)
    sender.send_task("t", connection=other)
    assert (len(other.messages), len(shelf.messages)) == (2, 0)


def test_shadow_names(sender: Chervil, shelf: Shelf) -> None:
    def shadow_name(self: Any, args: Any, kwargs: Any, options: Any) -> str:
        return f"add of {args[0]}"

    define(sender, shadow_name=shadow_name).delay(1)
    assert shelf.messages[0].headers["shadow"] == "add of 1"


def test_stamps(sender: Chervil, shelf: Shelf) -> None:
    define(sender).apply_async((1,), stamped_headers=["tenant"], tenant="acme")
    (message,) = shelf.messages
    assert message.headers["stamped_headers"] == ["tenant"]
    assert message.headers["stamps"] == {"tenant": "acme"}
    assert message.properties == {}


# --- inside a task


def test_what_a_task_sends_knows_its_parent(sender: Chervil, shelf: Shelf) -> None:
    add = define(sender)
    silent = define(sender, name="silent", trail=False)
    request = Context(
        id="parent",
        root_id="root",
        task="wire.add",
        called_directly=False,
        delivery_info={"priority": 6},
    )
    token = current_request.set(request)
    try:
        child = add.delay(1)
        sender.send_task("t", root_id="other", add_to_parent=False)
        sender.conf.task_inherit_parent_priority = True
        (many,) = add.apply_many([(1,)])
        asyncio.run(add.adelay(1))
        add.apply_async((1,), priority=1)
        request.task = "silent"
        silent.delay()
    finally:
        current_request.reset(token)
    told = [(m.headers["parent_id"], m.headers["root_id"], m.priority) for m in shelf.messages]
    assert told == [
        ("parent", "root", 0),
        ("parent", "other", 0),
        ("parent", "root", 6),
        ("parent", "root", 6),
        ("parent", "root", 1),
        ("parent", "root", 6),
    ]
    assert request.children[:2] == [child, many]
    assert len(request.children) == 4


# --- signals


def test_publish_signals(sender: Chervil, shelf: Shelf) -> None:
    seen: list[Any] = []

    @signals.before_task_publish.connect(sender="wire.add")
    def before(headers: Any, properties: Any, body: Any, routing_key: Any, **kw: Any) -> None:
        headers["trace"] = "t1"
        seen.append(("before", body, routing_key, properties["correlation_id"] == headers["id"]))

    @signals.after_task_publish.connect
    def after(sender: Any, headers: Any, body: Any, **kw: Any) -> None:
        seen.append(("after", sender, headers["trace"], body))

    try:
        define(sender).delay(1, k=2)
    finally:
        signals.before_task_publish.disconnect(before, sender="wire.add")
        signals.after_task_publish.disconnect(after)
    assert seen == [
        ("before", ((1,), {"k": 2}, None), "celery", True),
        ("after", "wire.add", "t1", ((1,), {"k": 2}, None)),
    ]
    assert shelf.messages[0].headers["trace"] == "t1"


# --- many


def test_many_calls_are_one_batch(sender: Chervil, shelf: Shelf) -> None:
    add = define(sender)
    results = add.apply_many([(1, 2), [3], {"k": 4}, add.s(5).set(priority=9)])
    assert shelf.batches == [4]
    assert [m.headers["argsrepr"] for m in shelf.messages] == ["(1, 2)", "[3]", "()", "(5,)"]
    assert shelf.messages[2].headers["kwargsrepr"] == "{'k': 4}"
    assert shelf.messages[3].priority == 9
    assert [r.id for r in results] == [m.id for m in shelf.messages]
    assert add.apply_many([]) == []
    assert shelf.batches == [4]


def test_options_for_many(sender: Chervil, shelf: Shelf) -> None:
    define(sender).apply_many(((n,) for n in range(3)), queue="other", countdown=60)
    assert {m.queue for m in shelf.messages} == {"other"}
    assert all(m.due for m in shelf.messages)
    assert shelf.batches == [3]


def test_one_wrong_call_sends_none(sender: Chervil, shelf: Shelf) -> None:
    @sender.task(name="two")
    def two(x: int, y: int) -> None: ...

    with pytest.raises(TypeError, match="call number 1"):
        two.apply_many([(1, 2), (3,)])
    with pytest.raises(TypeError, match="a call is a tuple or list"):
        two.apply_many([5])  # type: ignore[list-item]
    with pytest.raises(ImproperlyConfigured, match="got a signature of other"):
        two.apply_many([sender.signature("other")])
    assert shelf.batches == []


# --- coroutines


def test_coroutines_are_sent_together(sender: Chervil, shelf: Shelf) -> None:
    add = define(sender)
    gate = threading.Event()
    publish = shelf.publish
    shelf.publish = lambda messages: (gate.wait(5), publish(messages))  # type: ignore[method-assign]

    async def main() -> list[Any]:
        calls = [asyncio.ensure_future(add.adelay(n)) for n in range(100)]
        await asyncio.sleep(0.01)
        gate.set()
        return list(await asyncio.gather(*calls))

    results = asyncio.run(main())
    assert {r.id for r in results} == {m.id for m in shelf.messages}
    assert len(shelf.batches) <= 3
    assert sum(shelf.batches) == 100


def test_awaited_variants(sender: Chervil, shelf: Shelf) -> None:
    add = define(sender)

    async def main() -> None:
        await add.aapply_async((1,), queue="q1")
        await add.s(2).adelay(0)
        await sender.asend_task("t", queue="q2")
        await sender.signature("unknown").aapply_async(queue="q3")
        await add.aapply_many([(1,), (2,)])
        with pytest.raises(ImproperlyConfigured):
            await add.aapply_async((1,), priority=-1)

    asyncio.run(main())
    assert [m.queue for m in shelf.messages] == ["q1", "celery", "q2", "q3", "celery", "celery"]


def test_an_error_reaches_who_awaits(sender: Chervil, shelf: Shelf) -> None:
    sender.conf.task_publish_retry = False
    add = define(sender)

    async def main() -> list[Any]:
        first = await add.adelay(0)
        shelf.failures = [BrokerUnavailable("down")]
        failed = await asyncio.gather(add.adelay(1), return_exceptions=True)
        return [first, *failed, await add.adelay(2)]

    first, failed, last = asyncio.run(main())
    assert isinstance(failed, BrokerUnavailable)
    assert [m.id for m in shelf.messages] == [first.id, last.id]


def test_only_those_that_failed_get_an_error(sender: Chervil, shelf: Shelf) -> None:
    sender.conf.task_publish_retry = False
    add = define(sender)

    async def main() -> list[Any]:
        shelf.failures = [PublishError("some were not stored", ("bad",))]
        return list(
            await asyncio.gather(
                add.aapply_async((1,), task_id="good"),
                add.aapply_async((1,), task_id="bad"),
                return_exceptions=True,
            )
        )

    good, bad = asyncio.run(main())
    stored = [m.id for m in shelf.messages]
    if "bad" not in stored:  # both went out in one batch
        assert good.id == "good"
        assert isinstance(bad, PublishError)
        assert bad.failed == ("bad",)


def test_a_cancelled_call_is_not_sent_later(sender: Chervil, shelf: Shelf) -> None:
    add = define(sender)
    gate, busy = threading.Event(), threading.Event()
    publish = shelf.publish

    def slow(messages: Any) -> None:
        busy.set()
        gate.wait(5)
        publish(messages)

    shelf.publish = slow  # type: ignore[method-assign]

    async def main() -> None:
        first = asyncio.ensure_future(add.aapply_async((1,), task_id="first"))
        await asyncio.to_thread(busy.wait, 5)
        second = asyncio.ensure_future(add.aapply_async((1,), task_id="second"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
        await first
        await add.aapply_async((1,), task_id="third")

    asyncio.run(main())
    assert [m.id for m in shelf.messages] == ["first", "third"]


# --- failures


def test_sending_is_tried_again(sender: Chervil, shelf: Shelf) -> None:
    shelf.failures = [BrokerUnavailable("down"), BrokerUnavailable("down")]
    define(sender).delay(1)
    assert (shelf.batches, len(shelf.messages)) == ([1, 1, 1], 1)


def test_only_what_failed_is_sent_again(sender: Chervil, shelf: Shelf) -> None:
    add = define(sender)
    shelf.failures = [PublishError("one was not stored", ("b",))]
    add.apply_many([add.s().set(task_id=name) for name in "abc"])
    assert shelf.batches == [3, 1]
    assert sorted(m.id for m in shelf.messages) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"retry": False}, 1),
        ({"retry_policy": {"max_retries": 1, "interval_start": 0}}, 2),
        ({"retry_policy": {"max_retries": 0}}, 1),
    ],
)
def test_it_gives_up(options: dict[str, Any], batches: int, sender: Chervil, shelf: Shelf) -> None:
    shelf.failures = [BrokerUnavailable("down") for _ in range(9)]
    with pytest.raises(BrokerUnavailable):
        define(sender).apply_async((1,), **options)
    assert len(shelf.batches) == batches


def test_it_never_takes_longer_than_the_timeout(sender: Chervil, shelf: Shelf) -> None:
    sender.conf.publish_timeout = 0.3
    shelf.failures = [BrokerUnavailable("down") for _ in range(999)]
    policy = {"max_retries": None, "interval_start": 0.05, "interval_step": 0, "interval_max": 1}
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        define(sender).apply_async((1,), retry_policy=policy)
    assert 0.1 < time.monotonic() - began < 2
    assert len(shelf.batches) > 2


def test_the_template_of_a_head_writes_what_the_encoder_writes(app_factory: Any) -> None:
    """For any arguments, also with percent signs, quotes and what JSON cannot hold."""
    app = app_factory(task_always_eager=False)

    @app.task(name="odd %s name\x02id\x03")
    def odd(*args: Any, **kwargs: Any) -> None: ...

    values = ["100%", 'quo"te', "\x02id\x03", "żółć ☃", "\udc80", None, {"k": b"\x00"}, "%b"]
    for value in values:
        for kwargs in ({}, {"key": value}):
            message = app.publisher.plan(odd).message((value,), kwargs)
            head, message.head = message.head, None
            if head is None:
                assert value == "\udc80"
            else:
                assert json.loads(head) == json.loads(envelope.encode_head(message))
