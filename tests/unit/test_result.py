"""Results: waiting in threads and coroutines, errors, time-outs, what is known."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from chervil import AsyncResult, Chervil, exceptions, states
from chervil.exceptions import (
    BackendError,
    ImproperlyConfigured,
    TaskRevokedError,
)
from chervil.ids import new_id, new_ids
from chervil.result import RemoteTraceback
from chervil.resultsets import result_from_tuple
from chervil.testing.harness import claim
from chervil.waits import HEARD
from chervil.wire import outcomes
from chervil.wire.message import Outcome
from tests.support.waiting import wait_until

Factory = Callable[..., Chervil]
NO_SUCH = "00000000-0000-7000-8000-000000000000"


def store(
    app: Chervil,
    task_id: str,
    status: str = states.SUCCESS,
    result: Any = None,
    reply_to: str = "",
    **more: Any,
) -> None:
    """Write an outcome as a worker does."""
    if status in states.READY_STATES:
        more.setdefault("date_done", "2026-11-20T07:39:22.416012+00:00")
    payload = outcomes.encode(task_id=task_id, status=status, result=result, **more)
    app.backend.put([Outcome(task_id, status, payload, 0.0, reply_to)])


@pytest.fixture(params=["sqlite", "memory"])
def app(request: pytest.FixtureRequest, app_factory: Factory) -> Chervil:
    """An app on each of the embedded stores."""
    return app_factory(url=f"memory://{new_id()}" if request.param == "memory" else None)


@pytest.fixture
def later() -> Any:
    """Do something in another thread after a moment; joined when the test ends."""
    threads = []

    def start(action: Callable[[], Any], delay: float = 0.05) -> None:
        timer = threading.Timer(delay, action)
        timer.start()
        threads.append(timer)

    yield start
    for timer in threads:
        timer.join()


# --- what is known


def test_nothing_is_known_of_a_new_id(app: Chervil) -> None:
    result = app.AsyncResult(NO_SUCH)
    assert (result.state, result.result, result.ready()) == ("PENDING", None, False)
    assert (result.children, result.date_done, result.traceback) == (None, None, None)


def test_all_that_is_stored_can_be_read(app: Chervil) -> None:
    extended = {
        "name": "t",
        "args": [1],
        "kwargs": {"k": 2},
        "worker": "w1@h",
        "retries": 3,
        "queue": "celery",
    }
    children = [(("c1", None), None), (("g1", None), [(("m1", None), None), (("m2", None), None)])]
    store(app, "i", result={"a": 1}, children=children, extended=extended, parent_id="p")
    result = app.AsyncResult("i")
    assert result.get() == {"a": 1}
    assert (result.state, result.status, result.info) == ("SUCCESS", "SUCCESS", {"a": 1})
    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert result.date_done == dt.datetime(2026, 11, 20, 7, 39, 22, 416012, tzinfo=dt.UTC)
    one, several = result.children or ()
    assert (one.id, several.id, several.as_list()) == ("c1", "g1", ["m1", "m2"])
    assert (result.name, result.args, result.kwargs) == ("t", [1], {"k": 2})
    assert (result.worker, result.retries, result.queue) == ("w1@h", 3, "celery")


def test_a_final_state_is_read_once(app: Chervil) -> None:
    store(app, "i", result=1)
    result = app.AsyncResult("i")
    assert result.get() == 1
    app.backend.forget(["i"])
    assert result.get() == 1
    result.forget()
    assert result.state == "PENDING"


def test_states_on_the_way_are_read_anew(app: Chervil) -> None:
    result = app.AsyncResult("i")
    store(app, "i", "PROGRESS", {"done": 1})
    assert (result.state, result.info) == ("PROGRESS", {"done": 1})
    store(app, "i", "PROGRESS", {"done": 2})
    assert result.info == {"done": 2}


# --- waiting


def test_get_returns_at_once_what_is_there(app: Chervil) -> None:
    store(app, "i", result=5)
    began = time.monotonic()
    assert app.AsyncResult("i").get(timeout=5) == 5
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("sent_here", [True, False])
def test_get_waits_for_what_comes(app: Chervil, later: Any, sent_here: bool) -> None:
    result = app.AsyncResult("i")
    reply_to = ""
    if sent_here:
        reply_to = result._sent_from = app.address
    later(lambda: store(app, "i", result=5, reply_to=reply_to))
    began = time.monotonic()
    assert result.get(timeout=10) == 5
    assert time.monotonic() - began < 4  # news, not the look that comes every 5 s


def test_states_on_the_way_are_told(app: Chervil, later: Any, wait_until: Any) -> None:
    def work() -> None:
        store(app, "i", "PROGRESS", 1)
        wait_until(lambda: seen)
        store(app, "i", result=2)

    seen: list[Any] = []
    later(work)
    called: list[Any] = []
    value = app.AsyncResult("i").get(
        timeout=10,
        on_message=lambda meta: seen.append((meta["status"], meta["result"])),
        callback=lambda *args: called.append(args),
    )
    assert value == 2
    assert seen == [("PROGRESS", 1), ("SUCCESS", 2)]
    assert called == [("i", 2)]


def test_a_timeout_names_the_task_and_its_state(app: Chervil) -> None:
    store(app, "i", "PROGRESS")
    result: AsyncResult[Any] = AsyncResult("i", task_name="proj.slow", app=app)
    with pytest.raises(TimeoutError, match=r"proj\.slow\[i\] did not end within 0\.05 s.*PROGRESS"):
        result.get(timeout=0.05)
    with pytest.raises(result.TimeoutError, match="unknown"):
        app.AsyncResult(NO_SUCH).get(timeout=0)


def test_many_threads_share_one_listener(app: Chervil) -> None:
    ids = [f"i{n}" for n in range(40)]
    got: dict[str, Any] = {}
    ready = threading.Barrier(len(ids) + 1)

    def body(task_id: str) -> None:
        ready.wait()
        got[task_id] = app.AsyncResult(task_id).get(timeout=20)

    threads = [threading.Thread(target=body, args=(task_id,)) for task_id in ids]
    for thread in threads:
        thread.start()
    ready.wait()
    for task_id in ids:
        store(app, task_id, result=task_id * 2)
    for thread in threads:
        thread.join()
    assert got == {task_id: task_id * 2 for task_id in ids}
    names = [t.name for t in threading.enumerate()]
    assert names.count("chervil-results") <= 1
    assert app.waits._waiters == {}


def test_two_wait_for_the_same(app: Chervil, later: Any, wait_until: Any) -> None:
    later(lambda: store(app, "i", result=1), 0.2)
    other: list[Any] = []
    later(lambda: other.append(app.AsyncResult("i").get(timeout=10)), 0)
    assert app.AsyncResult("i").get(timeout=10) == 1
    wait_until(lambda: other == [1])


def test_a_lost_notification_only_costs_time(
    app: Chervil, later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chervil.waits.RECHECK", 0.1)
    app.AsyncResult("first").ready()
    store(app, "first", result=0)
    # A listener that never hears anything.
    listener = app.backend.listener("nobody")
    quiet = threading.Event()
    monkeypatch.setattr(
        app.backend,
        "listener",
        lambda address: Deaf(listener, quiet),
        raising=False,
    )
    later(lambda: store(app, "i", result=1))
    assert app.AsyncResult("i").get(timeout=10) == 1

    async def wait() -> Any:
        later(lambda: store(app, "j", result=2))
        return await app.AsyncResult("j").aget(timeout=10)

    assert asyncio.run(wait()) == 2
    quiet.set()


class Deaf:
    """A listener that hears nothing."""

    def __init__(self, inner: Any, stop: threading.Event) -> None:
        self.inner, self.stop, self.address = inner, stop, "deaf"
        self.woken = threading.Event()

    def watch(self, ids: Any, sent_here: bool) -> None: ...
    def unwatch(self, ids: Any) -> None: ...

    def wait(self, timeout: float) -> list[Any]:
        self.woken.wait(min(timeout, 0.1))
        self.woken.clear()
        return []

    def wake(self) -> None:
        self.woken.set()

    def close(self) -> None:
        self.inner.close()


def test_a_broken_listener_is_replaced(
    app: Chervil, later: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = app.backend.listener
    made: list[Any] = []

    class Broken(Deaf):
        def wait(self, timeout: float) -> list[Any]:
            raise BackendError("cut")

    def listener(address: str) -> Any:
        made.append(real(address))
        return Broken(made[-1], threading.Event()) if len(made) == 1 else made[-1]

    monkeypatch.setattr(app.backend, "listener", listener, raising=False)
    later(lambda: store(app, "i", result=1), 0.3)
    began = time.monotonic()
    assert app.AsyncResult("i").get(timeout=20) == 1
    assert time.monotonic() - began < 4.5
    assert len(made) == 2
    assert "retrying" in caplog.text


def test_waits_are_given_up_when_the_store_stays_away(
    app: Chervil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chervil.waits.GIVE_UP", 0.3)

    class Broken(Deaf):
        def wait(self, timeout: float) -> list[Any]:
            raise BackendError("cut")

    real = app.backend.listener
    monkeypatch.setattr(
        app.backend, "listener", lambda a: Broken(real(a), threading.Event()), raising=False
    )
    with pytest.raises(BackendError, match=r"has not answered for 0\.3 s: cut"):
        app.AsyncResult("i").get(timeout=20)


def test_closing_the_app_ends_waits(app: Chervil, later: Any, wait_until: Any) -> None:
    def close() -> None:
        wait_until(lambda: app.waits._waiters)
        app.close()

    later(close, 0)
    with pytest.raises(BackendError, match="closed during the wait"):
        app.AsyncResult("i").get(timeout=20)
    wait_until(lambda: "chervil-results" not in [t.name for t in threading.enumerate()])
    store(app, "i", result=1)
    assert app.AsyncResult("i").get(timeout=5) == 1


def test_ctrl_c_ends_a_wait(app: Chervil, later: Any) -> None:
    main = threading.main_thread().ident
    assert main is not None
    later(lambda: signal.pthread_kill(main, signal.SIGINT), 0.1)
    with pytest.raises(KeyboardInterrupt):
        app.AsyncResult("i").get(timeout=20)
    assert app.waits._waiters == {}


def test_a_child_process_listens_for_itself(app_factory: Factory) -> None:
    app = app_factory()
    store(app, "before", result=1)
    result = app.AsyncResult("i")
    result._sent_from = app.address
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)  # the parent listens
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads; the child is to cope with that.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            timer = threading.Timer(0.1, lambda: store(app, "child", result="from the child"))
            timer.start()
            os.write(write, app.AsyncResult("child").get(timeout=10).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"from the child"
    os.waitpid(pid, 0)
    threading.Timer(0.05, lambda: store(app, "i", result=5)).start()
    assert result.get(timeout=10) == 5


# --- coroutines


def test_awaiting_a_result(app: Chervil, later: Any) -> None:
    async def main() -> Any:
        later(lambda: store(app, "i", result=5))
        one = await app.AsyncResult("i")
        return one, await app.AsyncResult("i").aget()

    assert asyncio.run(main()) == (5, 5)


def test_many_coroutines_wait_at_once(app: Chervil) -> None:
    ids = [f"i{n}" for n in range(300)]
    for task_id in ids[:100]:
        store(app, task_id, result=task_id)

    def work() -> None:
        for task_id in ids[100:]:
            store(app, task_id, result=task_id)

    async def main() -> list[Any]:
        waiting = asyncio.gather(*[app.AsyncResult(task_id).aget(timeout=20) for task_id in ids])
        await asyncio.sleep(0)
        await asyncio.to_thread(work)
        return list(await waiting)

    assert asyncio.run(main()) == ids
    assert app.waits._waiters == {}


def test_awaiting_has_a_timeout_and_can_be_cancelled(app: Chervil) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError, match=r"task\[i\] did not end within 0\.05 s"):
            await app.AsyncResult("i").aget(timeout=0.05)
        waiting = asyncio.ensure_future(app.AsyncResult("j").aget())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert app.waits._waiters == {}


def test_messages_and_callbacks_of_coroutines(app: Chervil, later: Any) -> None:
    seen: list[Any] = []

    async def main() -> Any:
        store(app, "i", "PROGRESS", 1)
        later(lambda: store(app, "i", result=2), 0.2)
        return await app.AsyncResult("i").aget(
            timeout=10,
            on_message=lambda meta: seen.append(meta["result"]),
            callback=lambda task_id, value: seen.append((task_id, value)),
        )

    assert asyncio.run(main()) == 2
    assert seen == [1, 2, ("i", 2)]


def test_an_error_in_on_message_reaches_who_awaits(app: Chervil) -> None:
    def broken(meta: Any) -> None:
        raise LookupError("in the callback")

    store(app, "i", result=1)
    with pytest.raises(LookupError):
        asyncio.run(app.AsyncResult("i").aget(on_message=broken))
    with pytest.raises(LookupError):
        app.AsyncResult("i").get(on_message=broken)


def test_results_in_several_loops(app: Chervil) -> None:
    got: list[Any] = []

    def body(n: int) -> None:
        async def main() -> None:
            got.append(await app.AsyncResult(f"i{n}").aget(timeout=20))

        asyncio.run(main())

    threads = [threading.Thread(target=body, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for n in range(5):
        store(app, f"i{n}", result=n)
    for thread in threads:
        thread.join()
    assert sorted(got) == [0, 1, 2, 3, 4]


# --- failures


def test_the_original_exception_is_raised_again(app: Chervil) -> None:
    store(app, "i", states.FAILURE, KeyError("missing"), traceback="Traceback: remote line 7\n")
    result = app.AsyncResult("i")
    for _ in range(2):
        with pytest.raises(KeyError, match="missing") as caught:
            result.get()
        cause = caught.value.__cause__
        assert isinstance(cause, RemoteTraceback)
        assert "remote line 7" in str(cause)
    depth, trace = 0, caught.value.__traceback__
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 6  # those of the first get() are gone
    assert isinstance(result.get(propagate=False), KeyError)
    assert (result.failed(), result.traceback) == (True, "Traceback: remote line 7\n")
    with pytest.raises(KeyError):
        asyncio.run(result.aget())
    with pytest.raises(KeyError):
        result.maybe_throw()


def test_a_revoked_task(app: Chervil) -> None:
    store(app, "i", states.REVOKED, TaskRevokedError("expired"))
    result = app.AsyncResult("i")
    assert result.ready()
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get()


def test_a_retry_is_no_end(app: Chervil, later: Any) -> None:
    store(app, "i", states.RETRY, ValueError("again"))
    result = app.AsyncResult("i")
    assert not result.ready()
    assert isinstance(result.info, ValueError)
    later(lambda: store(app, "i", result=1))
    assert result.get(timeout=10) == 1


def test_parents_that_failed_are_raised(app: Chervil) -> None:
    store(app, "p", states.FAILURE, ValueError("first step"))
    result: AsyncResult[Any] = AsyncResult("c", app=app, parent=app.AsyncResult("p"))
    with pytest.raises(ValueError, match="first step"):
        result.get(timeout=5)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.02, follow_parents=False)


# --- doing something about it


def test_what_was_revoked_ends_at_once(app: Chervil) -> None:
    app.AsyncResult("i").revoke()
    with pytest.raises(TaskRevokedError):
        app.AsyncResult("i").get(timeout=5)
    assert app.AsyncResult("i").state == "REVOKED"
    assert app.broker.revoked() == ["i"]


def test_what_has_ended_keeps_its_result(app: Chervil) -> None:
    for task_id, status in (("s", "SUCCESS"), ("f", "FAILURE")):
        store(app, task_id, status=status, result=1 if status == "SUCCESS" else ValueError("no"))
    app.control.revoke(["s", "f"])
    assert app.AsyncResult("s").get(timeout=5) == 1
    assert app.AsyncResult("f").state == "FAILURE"


def test_what_may_be_running_is_not_called_revoked(app: Chervil) -> None:
    message_id = app.send_task("some.task").id
    consumer = app.broker.consumer(app.router.select(None, None), "n", 60)
    claim(consumer, 1)
    app.control.revoke(message_id)
    assert app.AsyncResult(message_id).state == "PENDING"
    consumer.close()


def test_where_a_node_does_not_answer_it_may_be_running(app: Chervil) -> None:
    mailbox = app.broker.fanout().subscribe("celery.pidbox", "silent@here")
    app.control.revoke("i")
    assert app.AsyncResult("i").state == "PENDING"
    mailbox.close()


def test_who_waits_is_told_when_it_is_revoked(app: Chervil) -> None:
    result = app.send_task("some.task")
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            result.get(timeout=20)
        except BaseException as exc:
            caught.append(exc)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: app.waits._waiters, 10)
    app.control.revoke(result.id)
    thread.join(10)
    assert [type(exc) for exc in caught] == [TaskRevokedError]


def test_forget_takes_the_parents_along(app: Chervil) -> None:
    for task_id in ("c", "p"):
        store(app, task_id, result=1)
    result: AsyncResult[Any] = AsyncResult("c", app=app, parent=app.AsyncResult("p"))
    result.forget()
    assert app.backend.get(["c", "p"]) == {}


# --- as a value


def test_results_are_values(app: Chervil) -> None:
    app.set_current()
    parent = app.AsyncResult("p")
    result: AsyncResult[Any] = AsyncResult("c", task_name="t", app=app, parent=parent)
    assert result == app.AsyncResult("c") == "c"
    assert result != parent
    assert result != 5
    assert len({result, app.AsyncResult("c")}) == 1
    assert (str(result), repr(result), result.task_id) == ("c", "<AsyncResult: c>", "c")
    assert result.as_tuple() == (("c", (("p", None), None)), None)
    assert result.as_list() == ["c", "p"]
    for twin in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):
        assert twin == result
        assert twin.parent == parent
        assert twin.task_name == "t"
    back = result_from_tuple(result.as_tuple(), app)
    assert back == result
    assert back.parent == parent
    assert result_from_tuple(back) is back
    with pytest.raises(ImproperlyConfigured, match="does not describe a result"):
        result_from_tuple("c")
    with pytest.raises(ValueError, match="needs the id of a task"):
        AsyncResult(None, app=app)  # type: ignore[arg-type]


def test_results_that_arrived_before_they_were_asked_for(app_factory: Any) -> None:
    """They are kept, a bounded number of them, and forgotten with the result."""
    app = app_factory()
    waits = app.waits
    ids = new_ids(HEARD + 10)
    payloads = [
        Outcome(i, states.SUCCESS, outcomes.encode(task_id=i, status="SUCCESS", result=n))
        for n, i in enumerate(ids)
    ]
    waits._dispatch(payloads)
    assert len(waits._heard) == HEARD
    last = app.AsyncResult(ids[-1])
    assert last.get(timeout=5) == HEARD + 9, "nothing is in the store: it was heard"
    assert len(waits._heard) == HEARD - 1
    other = app.AsyncResult(ids[-2])
    other.forget()
    with pytest.raises(exceptions.TimeoutError):
        other.get(timeout=0.05)


def test_threads_and_coroutines_take_turns_at_reading(app: Chervil, wait_until: Any) -> None:
    """Threads read for themselves; whoever begins to wait meanwhile is served all the same."""

    def answered(task_id: str) -> None:
        store(app, task_id, result=task_id, reply_to=app.address)

    def result_of(task_id: str) -> AsyncResult[Any]:
        result: AsyncResult[Any] = AsyncResult(task_id, app=app)
        result._sent_from = app.address
        return result

    def get_one_after_the_other(ids: list[str], found: list[Any]) -> None:
        for task_id in ids:
            timer = threading.Timer(0.002, answered, (task_id,))
            timer.start()
            found.append(result_of(task_id).get(timeout=20))
            timer.join()

    async def await_all(ids: list[str]) -> list[Any]:
        waits = [asyncio.ensure_future(result_of(task_id).aget(timeout=20)) for task_id in ids]
        await asyncio.sleep(0)
        for task_id in ids:
            await asyncio.to_thread(answered, task_id)
        return await asyncio.gather(*waits)

    alone, mixed, found = new_ids(5), new_ids(60), []
    get_one_after_the_other(alone, found)
    assert found == alone
    assert app.waits._own_reads > 0, "a thread has read for itself"
    parts: list[list[Any]] = [[], []]
    threads = [
        threading.Thread(target=get_one_after_the_other, args=(mixed[n * 20 : n * 20 + 20], part))
        for n, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    assert asyncio.run(await_all(mixed[40:])) == mixed[40:]
    for thread in threads:
        thread.join()
    assert parts == [mixed[:20], mixed[20:40]]


@pytest.mark.parametrize("sent_here", [True, False])
def test_waiting_where_no_results_are_kept_is_refused(
    app_factory: Callable[..., Chervil], sent_here: bool
) -> None:
    app = app_factory(result_backend="disabled://")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(1, 2) if sent_here else app.AsyncResult("some-id")
    with pytest.raises(BackendError, match="Set result_backend"):
        result.get(timeout=5)
    with pytest.raises(BackendError, match="Set result_backend"):
        asyncio.run(result.aget(timeout=5))
