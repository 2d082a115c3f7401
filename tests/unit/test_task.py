"""Tasks: options, classes, direct and eager calls, retries, models."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil import Chervil, Task, shared_task
from chervil.context import Context, current_request
from chervil.coroutines import close_thread_loop
from chervil.eager import EagerResult
from chervil.exceptions import (
    Ignore,
    ImproperlyConfigured,
    MaxRetriesExceededError,
    Retry,
    ValidationError,
)
from chervil.execution import execute
from chervil.wire import outcomes


@pytest.fixture
def plain() -> Chervil:
    """An app that needs no broker."""
    return Chervil("plain", set_as_current=False, broker="memory://plain")


# --- options


def test_defaults_come_from_the_settings_when_they_are_asked_for(plain: Chervil) -> None:
    @plain.task
    def task() -> None: ...

    assert not plain.configured
    plain.conf.update(task_acks_late=False, task_default_priority=3, task_max_deliveries=9)
    assert (task.acks_late, task.priority, task.max_deliveries) == (False, 3, 9)
    assert (task.max_retries, task.default_retry_delay, task.serializer) == (3, 180, "json")
    plain.conf.task_acks_late = True
    assert task.acks_late is True


def test_options_win_over_classes_and_classes_over_settings(plain: Chervil) -> None:
    class Base(Task[Any, Any]):
        acks_late = False
        max_retries = 9
        track_started = None  # type: ignore[assignment]

    @plain.task(base=Base, max_retries=1, custom="anything")
    def task() -> None: ...

    assert (task.acks_late, task.max_retries, task.track_started) == (False, 1, False)
    assert task.custom == "anything"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_retries": -1}, "max_retries=-1 must be a whole number"),
        ({"time_limit": "soon"}, "time_limit='soon' must be a number of seconds"),
        ({"autoretry_for": ["x"]}, "autoretry_for=.*exception classes"),
        ({"priority": 300}, "priority=300 must be a whole number from 0 to 255"),
        ({"acks_late": "yes"}, "acks_late='yes' must be True or False"),
        ({"max_deliveries": 0}, "whole number from 1"),
        ({"base": dict}, "must be a subclass of Task"),
        ({"retry_kwargs": 5}, "must be a dict"),
        ({"expires": "tomorrow"}, "expires='tomorrow' must be"),
    ],
)
def test_wrong_options_are_refused(plain: Chervil, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):

        @plain.task(**options)
        def task() -> None: ...


def test_wrong_attributes_of_a_class_are_refused(plain: Chervil) -> None:
    class Bad(Task[Any, Any]):
        soft_time_limit = "soon"  # type: ignore[assignment]

    with pytest.raises(ImproperlyConfigured, match="soft_time_limit='soon'"):
        plain.register_task(Bad())


def test_one_exception_class_will_do(plain: Chervil) -> None:
    @plain.task(autoretry_for=OSError, throws=[KeyError])
    def task() -> None: ...

    assert task.autoretry_for == (OSError,)
    assert task.throws == (KeyError,)


def test_the_decorator_takes_functions_only(plain: Chervil) -> None:
    with pytest.raises(TypeError, match="options by name only"):
        plain.task("name")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="task already"):
        plain.task(plain.task(lambda: None))


def test_a_task_looks_like_its_function(plain: Chervil) -> None:
    @plain.task
    def documented(x: int) -> int:
        """What it does."""
        return x

    assert documented.__doc__ == "What it does."
    assert documented.__name__ == "documented"
    assert documented.__module__ == __name__
    assert documented.__wrapped__(3) == 3
    assert documented.name == f"{__name__}.documented"


# --- classes


class Recorder(Task[Any, Any]):
    """Notes which hooks were called."""

    name = "recorder"
    max_retries = 1

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def run(self, what: str) -> str:
        if what == "fail":
            raise ValueError(what)
        if what == "retry" and self.request.retries == 0:
            raise self.retry(countdown=0)
        if what == "ignore":
            raise Ignore()
        return what

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self.calls.append(("before_start", args, kwargs))

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self.calls.append(("on_success", retval))

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("on_failure", repr(exc), "ValueError" in str(einfo)))

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.calls.append(("on_retry", type(exc).__name__))

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        self.calls.append(("after_return", status))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("ok", [("on_success", "ok"), ("after_return", "SUCCESS")]),
        ("fail", [("on_failure", "ValueError('fail')", True), ("after_return", "FAILURE")]),
        ("ignore", []),
    ],
)
def test_hooks_of_a_class_based_task(plain: Chervil, what: str, expected: list[Any]) -> None:
    task = plain.register_task(Recorder())
    assert isinstance(task, Recorder)
    task.apply((what,))
    assert task.calls == [("before_start", [what], {}), *expected]


def test_hooks_around_a_retry(plain: Chervil) -> None:
    task = plain.register_task(Recorder)
    assert isinstance(task, Recorder)
    assert task.apply(("retry",)).get() == "retry"
    assert [call[0] for call in task.calls] == [
        "before_start",
        "on_retry",
        "after_return",
        "before_start",
        "on_success",
        "after_return",
    ]


def test_only_own_hooks_are_named(plain: Chervil) -> None:
    @plain.task
    def bare() -> None: ...

    def on_success(self: Any, *args: Any) -> None: ...

    @plain.task(on_success=on_success)
    def one() -> None: ...

    assert bare.hooks == frozenset()
    assert one.hooks == {"on_success"}
    assert plain.register_task(Recorder()).hooks == {
        "before_start",
        "on_success",
        "on_failure",
        "on_retry",
        "after_return",
    }


def test_a_class_without_a_name_is_named_after_itself(plain: Chervil) -> None:
    class Nameless(Task[Any, Any]):
        def run(self) -> int:
            return 7

    task = plain.register_task(Nameless())
    assert task.name == f"{__name__}.Nameless"
    assert task() == 7
    with pytest.raises(ImproperlyConfigured, match="register_task takes"):
        plain.register_task(object())


def test_a_class_may_wrap_every_run_in_its_call(plain: Chervil) -> None:
    seen: list[Any] = []

    class Wrapped(Task[Any, Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            seen.append("before")
            result = super().__call__(*args, **kwargs)
            seen.append("after")
            return result

    @plain.task(base=Wrapped, bind=True)
    def task(self: Any, x: int) -> Any:
        return self.request.id, self.request.called_directly, x

    result = task.apply((1,))
    assert result.get() == (result.id, False, 1)
    assert seen == ["before", "after"]
    assert task(2) == (None, True, 2)


# --- direct calls


def test_calling_a_task_calls_the_function(plain: Chervil) -> None:
    @plain.task(bind=True)
    def outer(self: Any, x: int) -> Any:
        return self.request.called_directly, self.request.args, inner(x), self.request.args

    @plain.task(bind=True)
    def inner(self: Any, x: int) -> Any:
        return self.name, self.request.args, outer.request.args

    assert outer(1) == (True, (1,), (inner.name, (1,), (1,)), (1,))
    assert current_request.get() is None


def test_a_task_that_calls_itself_in_a_run_is_a_direct_call(plain: Chervil) -> None:
    @plain.task(bind=True)
    def countdown(self: Any, n: int) -> Any:
        rest = countdown(n - 1) if n else []
        return [self.request.called_directly, *rest]

    assert countdown.apply((2,)).get() == [False, True, True]


def test_coroutine_functions_are_tasks(plain: Chervil) -> None:
    @plain.task(bind=True)
    async def work(self: Any, x: int) -> Any:
        await asyncio.sleep(0)
        return self.request.called_directly, x

    @plain.task
    def sync() -> None: ...

    assert (work.is_async, sync.is_async) == (True, False)
    assert asyncio.run(work(1)) == (True, 1)
    assert work.apply((2,)).get() == (False, 2)


def test_push_request_pretends_a_run(plain: Chervil) -> None:
    @plain.task(bind=True)
    def task(self: Any) -> Any:
        return self.request.id

    task.push_request(id="pretended")
    assert task.request.id == "pretended"
    assert task.run() == "pretended"
    task.pop_request()
    assert task.request.id is None


# --- eager


def test_apply_reports_like_a_result(plain: Chervil) -> None:
    @plain.task
    def divide(x: int, y: int) -> float:
        return x / y

    good, bad = divide.apply((6, 3)), divide.apply((1, 0))
    assert isinstance(good, EagerResult)
    assert (good.get(), good.state, good.ready(), good.successful()) == (2, "SUCCESS", True, True)
    assert good.date_done is not None
    assert (bad.state, bad.failed()) == ("FAILURE", True)
    assert "ZeroDivisionError" in str(bad.traceback)
    with pytest.raises(ZeroDivisionError):
        bad.get()
    assert isinstance(bad.get(propagate=False), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        divide.apply((1, 0), throw=True)
    plain.conf.task_eager_propagates = True
    with pytest.raises(ZeroDivisionError):
        divide.apply((1, 0))
    assert asyncio.run(_await(good)) == 2


async def _await(result: Any) -> Any:
    return await result


def test_always_eager_goes_through_the_serializer(plain: Chervil) -> None:
    plain.conf.task_always_eager = True

    @plain.task
    def kind(value: Any) -> str:
        return type(value).__name__

    assert kind.delay((1, 2)).get() == "list"
    assert [r.get() for r in kind.apply_many([((1,),), {"value": {}}])] == ["list", "dict"]
    assert asyncio.run(kind.adelay(())).get() == "list"
    with pytest.raises(TypeError, match="missing 1 required"):
        kind.delay()


def test_eager_links(plain: Chervil) -> None:
    plain.conf.task_always_eager = True
    seen: list[Any] = []

    @plain.task
    def note(value: Any, where: str) -> None:
        seen.append((where, value))

    @plain.task
    def half(x: int) -> int:
        return 6 // x

    half.apply_async((2,), link=note.s("link"), link_error=note.s("error"))
    failed = half.apply_async((0,), link=note.s("link"), link_error=note.s("error"))
    assert seen == [("link", 3), ("error", failed.id)]


def test_interrupting_an_eager_task_is_no_failure_of_it(plain: Chervil) -> None:
    @plain.task
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.apply()


def test_waiting_inside_a_task_is_refused(plain: Chervil) -> None:
    from chervil import allow_join_result

    plain.conf.task_always_eager = True

    @plain.task
    def inner() -> int:
        return 1

    @plain.task
    def outer(allowed: bool) -> int:
        if allowed:
            with allow_join_result():
                return inner.delay().get()
        return inner.delay().get()

    with pytest.raises(RuntimeError, match=r"Never call result\.get"):
        outer.delay(False).get()
    assert outer.delay(True).get() == 1
    assert inner.delay().get() == 1


def test_eager_results_can_be_stored(app: Chervil) -> None:
    app.conf.update(task_always_eager=True, task_store_eager_result=True)

    @app.task(bind=True)
    def work(self: Any, fail: bool) -> int:
        self.update_state(state="PROGRESS", meta={"done": 1})
        assert app.AsyncResult(self.request.id).info == {"done": 1}
        if fail:
            raise ValueError("no")
        return 5

    assert app.AsyncResult(work.delay(False).id).get(timeout=5) == 5
    with pytest.raises(ValueError, match="no"):
        app.AsyncResult(work.delay(True).id).get(timeout=5)


# --- retries


def request_of(task: Task[Any, Any], **fields: Any) -> Context:
    """A request as a worker makes it."""
    headers = {"task": task.name, "id": "the-id", "root_id": "the-root", "retries": 0}
    headers.update(fields.pop("headers", {}))
    embed = fields.pop("embed", {})
    info = {"exchange": "", "routing_key": "came-from", "priority": 4, **fields.pop("info", {})}
    properties = {"reply_to": "somebody"}
    return Context.for_message(headers, properties, [1, 2], {"k": 3}, embed, "w1@h", info)


def retried(task: Task[Any, Any], request: Context, *args: Any, **kwargs: Any) -> Retry:
    token = current_request.set(request)
    try:
        with pytest.raises(Retry) as caught:
            task.retry(*args, **kwargs)
    finally:
        current_request.reset(token)
    return caught.value


def test_retry_builds_the_message_of_the_next_run(plain: Chervil) -> None:
    @plain.task(name="t")
    def task(*args: Any, **kwargs: Any) -> None: ...

    link = [{"task": "l", "args": [], "kwargs": {}, "options": {}}]
    request = request_of(
        task,
        headers={
            "group": "g",
            "group_index": 1,
            "timelimit": [30, 20],
            "shadow": "pretty",
            "ignore_result": True,
            "x-own": 1,
            "stamped_headers": ["tenant"],
            "stamps": {"tenant": "acme"},
            "expires": "2040-01-01T00:00:00+00:00",
            "parent_id": "the-parent",
        },
        embed={"callbacks": link, "chain": [], "chord": link[0]},
    )
    before = dt.datetime.now(dt.UTC).timestamp()
    retry = retried(task, request, countdown=60, exc=ValueError("again"))
    message = retry.pending
    assert message.headers["retries"] == 1
    assert message.due == pytest.approx(before + 60, abs=5)
    eta = dt.datetime.fromisoformat(message.headers["eta"])
    assert eta.timestamp() == pytest.approx(message.due, abs=1e-3)
    expected = {
        "id": "the-id",
        "root_id": "the-root",
        "parent_id": "the-parent",
        "group": "g",
        "group_index": 1,
        "timelimit": [30, 20],
        "shadow": "pretty",
        "ignore_result": True,
        "x-own": 1,
        "stamped_headers": ["tenant"],
        "stamps": {"tenant": "acme"},
        "expires": "2040-01-01T00:00:00+00:00",
        "argsrepr": "(1, 2)",
        "kwargsrepr": "{'k': 3}",
    }
    assert {key: message.headers[key] for key in expected} == expected
    assert (message.queue, message.priority, message.reply_to) == ("came-from", 4, "somebody")
    assert int(message.properties["expiration"]) > 0
    assert str(retry) == "Retry in 60s: ValueError('again')"


def test_retry_with_other_arguments_and_queue(plain: Chervil) -> None:
    @plain.task(name="t", default_retry_delay=7)
    def task(*args: Any, **kwargs: Any) -> None: ...

    retry = retried(task, request_of(task), args=(9,), kwargs={}, queue="elsewhere", priority=1)
    message = retry.pending
    assert (message.headers["argsrepr"], message.headers["kwargsrepr"]) == ("(9,)", "{}")
    assert (message.queue, message.priority) == ("elsewhere", 1)
    assert retry.when == 7
    eta = dt.datetime(2040, 1, 2, tzinfo=dt.UTC)
    retry = retried(task, request_of(task), eta=eta)
    assert (retry.when, retry.pending.headers["eta"]) == (eta, eta.isoformat())


def test_too_many_retries(plain: Chervil) -> None:
    @plain.task(name="t", max_retries=2)
    def task(*args: Any, **kwargs: Any) -> None: ...

    token = current_request.set(request_of(task, headers={"retries": 2}))
    try:
        text = r"Can't retry t\[the-id\] args:\(1, 2\) kwargs:\{'k': 3\}"
        with pytest.raises(MaxRetriesExceededError, match=text) as caught:
            task.retry()
        assert caught.value.task_args == (1, 2)
        with pytest.raises(KeyError, match="reason"):
            task.retry(exc=KeyError("reason"))
        with pytest.raises(Retry):
            task.retry(max_retries=3)
    finally:
        current_request.reset(token)


def test_no_limit_of_retries(plain: Chervil) -> None:
    @plain.task(name="t", max_retries=None)
    def task(*args: Any, **kwargs: Any) -> None: ...

    assert retried(task, request_of(task, headers={"retries": 999})).pending is not None


def test_retry_in_a_direct_call_raises_what_happened(plain: Chervil) -> None:
    @plain.task(bind=True)
    def task(self: Any) -> None:
        try:
            raise ValueError("first")
        except ValueError as exc:
            raise self.retry(exc=exc) from exc

    with pytest.raises(ValueError, match="first"):
        task()

    @plain.task(bind=True)
    def bare(self: Any) -> None:
        self.retry()

    with pytest.raises(Retry):
        bare()


def test_without_throw_the_message_is_sent_at_once(app: Chervil) -> None:
    @app.task(name="t")
    def task(*args: Any, **kwargs: Any) -> None: ...

    token = current_request.set(request_of(task))
    try:
        retry = task.retry(throw=False, countdown=5)
    finally:
        current_request.reset(token)
    assert retry.pending is None
    assert app.broker.depths()["came-from"].delayed == 1


def test_eager_retries_run_again_at_once(plain: Chervil) -> None:
    tries = []

    @plain.task(bind=True, max_retries=3)
    def flaky(self: Any, x: int) -> Any:
        tries.append((self.request.retries, x, self.request.id))
        if len(tries) < 3:
            self.retry(args=(x + 1,), countdown=100)
        return x

    result = flaky.apply((1,))
    assert result.get() == 3
    assert tries == [(0, 1, result.id), (1, 2, result.id), (2, 3, result.id)]


def test_automatic_retries(plain: Chervil) -> None:
    tries = []

    @plain.task(autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), max_retries=2)
    def flaky(exc: Any) -> None:
        tries.append(exc)
        raise exc

    for exc, times in [(OSError(), 3), (FileNotFoundError(), 1), (ValueError(), 1)]:
        tries.clear()
        assert flaky.apply((exc,)).state == "FAILURE"
        assert len(tries) == times


# --- telling others


def test_update_state_goes_through_the_worker_when_there_is_one(plain: Chervil) -> None:
    @plain.task(name="t")
    def task() -> None: ...

    told: list[Any] = []
    request = request_of(task)
    request.reporter = lambda *args: told.append(args)
    token = current_request.set(request)
    try:
        task.update_state(state="PROGRESS", meta={"n": 1})
        task.update_state("other", "DONE")
    finally:
        current_request.reset(token)
    assert told == [("the-id", "PROGRESS", {"n": 1}), ("other", "DONE", None)]


def test_update_state_writes_where_there_is_no_worker(app: Chervil) -> None:
    @app.task(name="t")
    def task() -> None: ...

    task.update_state("some-id", "PROGRESS", {"n": 1})
    result = task.AsyncResult("some-id")
    assert (result.state, result.info, result.ready()) == ("PROGRESS", {"n": 1}, False)
    with pytest.raises(ImproperlyConfigured, match="give task_id="):
        task.update_state(state="X")
    with pytest.raises(ImproperlyConfigured, match="state must be text"):
        task.update_state("some-id")


# --- wrong calls


def test_wrong_arguments_name_the_signature(plain: Chervil) -> None:
    @plain.task(bind=True)
    def add(self: Any, x: int, y: int = 2, *, z: int) -> int:
        return x + y + z

    name = add.name.replace(".", r"\.")
    with pytest.raises(TypeError, match=rf"'x'; the task is {name}\(x: int, y: int = 2, \*, z"):
        add.delay(z=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'q'"):
        add.apply_async((1,), {"z": 1, "q": 2})
    with pytest.raises(TypeError, match=r"call number 1: .*takes from 1 to 2 positional"):
        add.apply_many([{"x": 1, "z": 1}, (1, 2, 3)])
    with pytest.raises(TypeError, match="args must be a list or tuple"):
        add.apply_async("ab", {"z": 1})
    with pytest.raises(TypeError, match="kwargs must be a dict"):
        add.apply_async((1,), [("z", 1)])  # type: ignore[arg-type]


def test_checking_can_be_switched_off(app: Chervil) -> None:
    @app.task(typing=False)
    def task(x: int) -> None: ...

    task.apply_async(())
    app.strict_typing = False

    @app.task
    def other(x: int) -> None: ...

    other.apply_async(())
    assert app.broker.depths()["celery"].ready == 2


def test_callables_of_other_kinds_are_checked_too(plain: Chervil) -> None:
    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

    def two(x: int, y: int) -> int:
        return x + y

    adder = plain.task(name="adder")(Adder())
    partial = plain.task(name="partial")(functools.partial(two, 5))
    assert (adder(1), partial(1)) == (2, 6)
    with pytest.raises(TypeError, match="the task is adder"):
        adder.apply_async((1, 2))
    with pytest.raises(TypeError):
        partial.apply_async(())


def test_bind_needs_a_parameter(plain: Chervil) -> None:
    with pytest.raises(TypeError, match="add a parameter 'self'"):

        @plain.task(bind=True)  # type: ignore[arg-type]
        def task() -> None: ...


def test_errbacks_of_both_kinds_are_told_apart(plain: Chervil) -> None:
    @plain.task
    def by_id(task_id: str) -> None: ...

    @plain.task(bind=True)
    def bound_by_id(self: Any, task_id: str) -> None: ...

    @plain.task
    def with_error(request: Any, exc: Any, traceback: Any) -> None: ...

    assert [t.takes_error for t in (by_id, bound_by_id, with_error)] == [False, False, True]


# --- pydantic


class Point(pydantic.BaseModel):
    """Something with fields."""

    x: int
    when: dt.date | None = None


class Scaled(pydantic.BaseModel):
    """Something whose validator looks at the context."""

    x: int

    @pydantic.field_validator("x")
    @classmethod
    def scale(cls, value: int, info: pydantic.ValidationInfo) -> int:
        return value * (info.context or {}).get("factor", 1)


def test_models_are_dumped_when_sent_and_validated_when_run(plain: Chervil) -> None:
    plain.conf.task_always_eager = True
    seen: list[Any] = []

    @plain.task(pydantic=True)
    def move(point: Point, others: list[Point], by: int = 1) -> Point:
        seen.extend([point, others, by])
        return Point(x=point.x + by)

    point = Point(x=1, when=dt.date(2030, 1, 2))
    result = move.delay(point, [Point(x=2)], by="3")  # type: ignore[arg-type]
    assert result.get() == {"x": 4, "when": None}
    assert seen == [point, [Point(x=2)], 3]
    failed = move.apply(({"x": "many"}, []))
    assert isinstance(failed.result, ValidationError)


def test_the_dumped_argument_is_what_travels(plain: Chervil) -> None:
    @plain.task(pydantic=True, name="t")
    def move(point: Point) -> None: ...

    args, _ = move._checked((Point(x=1, when=dt.date(2030, 1, 2)),), {})
    assert args == ({"x": 1, "when": "2030-01-02"},)


def test_strict_context_and_dump_options(plain: Chervil) -> None:
    @plain.task(
        pydantic=True,
        pydantic_strict=True,
        pydantic_context={"factor": 10},
        pydantic_dump_kwargs={"exclude": {"when"}},
    )
    def work(value: Scaled, plain_int: int) -> Any:
        return Point(x=value.x + plain_int)

    assert work.apply(({"x": 2}, 1)).get() == {"x": 21}
    assert work.apply(({"x": 2}, "1")).failed()


def test_results_are_validated_and_coroutines_work(plain: Chervil) -> None:
    @plain.task(pydantic=True)
    async def work(x: int) -> list[int]:
        return ["1", x]  # type: ignore[list-item]

    @plain.task(pydantic=True)
    def wrong() -> int:
        return "no number"  # type: ignore[return-value]

    assert work.apply(("2",)).get() == [1, 2]
    assert isinstance(wrong.apply().result, ValidationError)


def test_shared_tasks_take_the_same_options() -> None:
    app = Chervil("shared-models")

    @shared_task(pydantic=True, bind=True, name="shared.models")
    def work(self: Any, point: Point, *more: int, **named: Point) -> Any:
        return point.x, more, {key: value.x for key, value in named.items()}

    found = app.tasks["shared.models"].apply(({"x": 1}, "2"), {"a": {"x": 5}})
    assert found.get() == (1, (2,), {"a": 5})


def test_what_is_not_as_annotated_is_refused_before_it_is_sent(app: Chervil) -> None:
    @app.task(pydantic=True, bind=True, name="t")
    def move(self: Task[Any, Any], point: Point, *more: int) -> None: ...

    calls: list[Callable[[], Any]] = [
        lambda: move.delay({"x": "many"}),  # type: ignore[arg-type]
        lambda: move.apply_async(({"x": 1}, 2, "three"), countdown=9),
        lambda: move.apply_many([({"x": 1},), ({"x": None},)]),
        lambda: move.s({}).apply_async(),
    ]
    for call in calls:
        with pytest.raises(ValidationError, match=r"move: argument '(point|more)': 1 validation"):
            call()
    assert app.broker.depths(["celery"])["celery"].ready == 0
    move.apply_async(({"x": 1}, 2, "3"))
    assert app.broker.depths(["celery"])["celery"].ready == 1


def test_a_failed_validation_is_the_same_error_for_the_client(plain: Chervil) -> None:
    @plain.task(pydantic=True, name="t")
    def work(x: int) -> None: ...

    failed = work.apply(("many",))
    stored = outcomes.encode(
        task_id="i",
        status="FAILURE",
        result=failed.result,
        traceback=None,
        date_done=None,
    )
    found = outcomes.decode(stored)["result"]
    assert type(found) is ValidationError
    assert str(found) == str(failed.result)
    assert "unable to parse string as an integer" in str(found)


# --- slips


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tme_limit": 3}, "no option 'tme_limit'; did you mean 'time_limit'"),
        ({"ack_late": True}, "did you mean 'acks_late'"),
        ({"serialiser": "json"}, "did you mean 'serializer'"),
        ({"rate_limit": "10/q"}, r"rate_limit='10/q' must be .*'100/m'"),
        ({"time_limit": 3, "soft_time_limit": 3}, r"soft_time_limit \(3 s\) must be less than"),
    ],
)
def test_slips_in_options_are_refused(
    plain: Chervil, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        plain.task(**options)(lambda: None)
    assert not [name for name in plain.tasks if "lambda" in name]


def test_attributes_of_the_users_own_are_no_slips(plain: Chervil) -> None:
    class Base(Task[Any, Any]):
        time_limits = (1, 2)

        def names(self) -> None: ...

    @plain.task(base=Base, time_limits=(3, 4), owner="me", queue_depth=3)
    def task() -> None: ...

    assert task.time_limits == (3, 4)  # type: ignore[attr-defined]

    class Own(Base):
        name = "own"
        retry_jiter = 1

        def run(self) -> None: ...

    assert plain.register_task(Own()).retry_jiter == 1  # type: ignore[attr-defined]


def test_time_limits_of_a_call_are_compared_with_the_tasks(app: Chervil) -> None:
    @app.task(soft_time_limit=5)
    def task() -> None: ...

    for options in ({"time_limit": 4}, {"time_limit": 3, "soft_time_limit": 3}):
        with pytest.raises(ImproperlyConfigured, match="must be less than time_limit"):
            task.apply_async(**options)  # type: ignore[arg-type]
    with pytest.raises(ImproperlyConfigured, match="must be less than time_limit"):
        app.send_task("t", time_limit=3, soft_time_limit=4)
    task.apply_async(time_limit=4, soft_time_limit=3)
    task.apply_async(time_limit=6)


def test_annotations_are_checked_like_options() -> None:
    app = Chervil("annotated", set_as_current=False, broker="memory://annotated")
    app.conf.task_annotations = {"*": {"rate_limit": "10/q"}}
    app.task(name="t")(lambda: None)
    with pytest.raises(ImproperlyConfigured, match=r"t \(task_annotations\): rate_limit"):
        app.finalize()


# --- automatic retries and tracebacks


@given(
    backoff=st.one_of(st.integers(1, 50), st.floats(0.001, 50)),
    retries=st.integers(0, 30),
    jitter=st.booleans(),
)
def test_the_first_delay_is_what_retry_backoff_says(
    backoff: float, retries: int, jitter: bool
) -> None:
    app = Chervil("backoff", set_as_current=False, broker="memory://backoff")

    @app.task(
        name="t",
        autoretry_for=(OSError,),
        retry_backoff=backoff,
        retry_backoff_max=100,
        retry_jitter=jitter,
        max_retries=None,
    )
    def task() -> None:
        raise OSError

    request = Context(
        id="i", task="t", args=[], kwargs={}, retries=retries, is_eager=True, called_directly=False
    )
    outcome = execute(task, request, (), {}).value
    assert isinstance(outcome, Retry)
    wanted = min(100, backoff * 2**retries)
    assert isinstance(outcome.when, (int, float))
    if jitter:
        assert 0 <= outcome.when <= wanted
    else:
        assert outcome.when == wanted
        assert type(outcome.when) is type(wanted)


def _fail() -> None:
    raise OSError("full")


async def _fail_later() -> None:
    await asyncio.sleep(0)
    raise OSError("full")


@pytest.mark.parametrize("fail", [_fail, _fail_later])
@pytest.mark.parametrize("options", [{}, {"autoretry_for": (OSError,), "max_retries": 0}])
def test_tracebacks_begin_with_the_users_frame(
    plain: Chervil, options: dict[str, Any], fail: Callable[[], Any]
) -> None:
    text = plain.task(**options)(fail).apply().traceback or ""
    close_thread_loop()
    first = next(line for line in text.splitlines() if line.startswith("  File"))
    assert first == f'  File "{__file__}", line {first.split()[3][:-1]}, in {fail.__name__}'
    assert text.endswith("OSError: full\n")


def test_tracebacks_without_a_frame_of_the_users_are_kept(plain: Chervil) -> None:
    @plain.task
    def task(x: int) -> None: ...

    text = task.apply(()).traceback or ""
    assert "execution.py" in text
    assert "missing 1 required positional argument" in text


def test_causes_begin_with_the_users_frame_too(plain: Chervil) -> None:
    @plain.task(bind=True)
    def task(self: Task[Any, Any]) -> None:
        try:
            _fail()
        except OSError as exc:
            raise ValueError("wrapped") from exc

    text = task.apply().traceback or ""
    assert "execution.py" not in text
    assert text.count("Traceback (most recent call last)") == 2
