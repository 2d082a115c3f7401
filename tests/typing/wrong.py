"""What a type checker is to refuse: each line marked ``# E:`` must give that error."""

from __future__ import annotations

from typing import Any

from chervil import Chervil, Task, shared_task

app = Chervil("types")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(bind=True)
def bound(self: Task[Any, Any], x: int) -> str:
    return str(x)


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@shared_task(name="shared")
def shared(x: int) -> float:
    return x / 2


add.delay("1")  # E: arg-type
add.delay()  # E: call-arg
add.delay(1, z=2)  # E: call-arg
add(1, 2, 3)  # E: call-arg
bound.delay("1")  # E: arg-type
bound.delay(1, 2)  # E: call-arg
shared.delay("x")  # E: arg-type
fetch.delay(1)  # E: arg-type
text: str = add.delay(1).get()  # E: assignment
raw: bytes = fetch("x")  # E: assignment
number: int = bound(1)  # E: assignment
add.dely(1)  # E: attr-defined


async def coroutines() -> None:
    await add.adelay("1")  # E: arg-type
    await add(1)  # E: misc
    other: str = await add.delay(1)  # E: assignment
    print(other)


app.task(max_retries="three")  # E: call-overload
app.task(acks_late="yes")  # E: call-overload
app.task("name")  # E: call-overload
