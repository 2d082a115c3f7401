"""What a type checker is to know; every line here must pass (see test_typing.py)."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from chervil import (
    AsyncResult,
    AsyncTask,
    Chervil,
    GroupResult,
    Signature,
    Task,
    chain,
    chord,
    group,
    shared_task,
)
from chervil.eager import EagerResult

app = Chervil("types")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(name="named", max_retries=None, autoretry_for=(OSError,), retry_backoff=2.5)
def named(text: str, *more: int, flag: bool) -> list[str]:
    return [text]


@app.task(bind=True, time_limit=5)
def bound(self: Task[Any, Any], x: int) -> str:
    assert_type(self.request.retries, int)
    if x > 5:
        raise self.retry(countdown=2)
    return str(x)


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(bind=True)
async def bound_fetch(self: Task[Any, Any], url: str) -> bytes:
    return url.encode()


@shared_task
def shared(x: int) -> float:
    return x / 2


@shared_task(bind=True, ignore_result=True)
def shared_bound(self: Task[Any, Any], x: int) -> None: ...


# Calling
assert_type(add(1, y=2), int)
assert_type(bound(1), str)
pending: Coroutine[Any, Any, bytes] = fetch("x")
assert_type(shared(1), float)

# Sending
assert_type(add.delay(1), AsyncResult[int])
assert_type(add.delay(1, 2).get(timeout=1), int)
assert_type(named.delay("a", 1, 2, flag=True), AsyncResult[list[str]])
assert_type(bound.delay(1).get(), str)
assert_type(fetch.delay("x").get(), bytes)
assert_type(bound_fetch.delay("x").get(), bytes)
assert_type(shared.delay(1).get(), float)
assert_type(shared_bound.delay(1).get(), None)
assert_type(add.apply_async((1, 2), countdown=5), AsyncResult[int])
assert_type(add.apply_many([(1, 2), {"x": 1}, add.s(1)]), list[AsyncResult[int]])
assert_type(add.apply((1,)), EagerResult[int])
assert_type(add.apply((1,)).get(), int)

# Signatures
assert_type(add.s(1), Signature[int])
assert_type(add.si(1, 2).delay().get(), int)
assert_type(add.s(1).set(queue="q"), Signature[int])
assert_type(add.signature((1,)).apply_async(), AsyncResult[int])


# Workflows: the type of a chain's result is that of its last task's
assert_type(add.s(1) | named.s(), chain[list[str]])
assert_type((add.s(1) | shared.s() | bound.s()).delay().get(), str)
assert_type(chain(add.s(1), shared.s()).delay(), AsyncResult[float])
assert_type(chain(add.s(1), named.s(), bound.s()).apply_async().get(), str)
assert_type((group(add.s(1), add.s(2)) | shared.s()).delay().get(), float)
assert_type(group([add.s(1)]).delay(), GroupResult[Any])
assert_type(chord([add.s(1), add.s(2)], bound.s()).delay().get(), str)
assert_type(add.map([1, 2]).delay().get(), list[int])
assert_type(chain(add.s(1), shared.s()).apply().get(), float)


async def coroutines() -> None:
    assert_type(await (await (add.s(1) | bound.s()).adelay()), str)
    assert_type(await (await group(add.s(1)).adelay()), list[Any])
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await (await add.adelay(1)), int)
    assert_type(await add.delay(1).aget(timeout=1), int)
    assert_type(await fetch("x"), bytes)
    assert_type(await bound_fetch("x"), bytes)
    assert_type(await add.aapply_many([(1,)]), list[AsyncResult[int]])
    assert_type(await add.s(1).adelay(), AsyncResult[int])


# The tasks themselves
def takes_tasks(sync: Task[[int], float], other: AsyncTask[[str], bytes]) -> None:
    assert_type(sync.delay(1).get(), float)
    assert_type(other.delay("x").get(), bytes)


takes_tasks(shared, fetch)
assert_type(add.name, str)
assert_type(add.acks_late, bool)
assert_type(app.send_task("anything").get(), Any)


class Classy(Task[[int], str]):
    """A class-based task."""

    def run(self, x: int) -> str:
        return str(x)

    def on_success(self, retval: str, task_id: str, args: Any, kwargs: Any) -> None: ...


classy = Classy()
app.register_task(classy)
assert_type(classy.delay(1).get(), str)
