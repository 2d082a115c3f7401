"""Tasks for workflows; see tests/process/test_workflows.py."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from chervil import Chervil, chord, group
from chervil.exceptions import Ignore, Reject

app = Chervil("flows")
app.conf.task_max_deliveries = 5  # more than a test kills nodes


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
async def aadd(x: int, y: int) -> int:
    return x + y


@app.task
def total(values: list[int]) -> int:
    return sum(values)


@app.task
def same(value: Any) -> Any:
    return value


@app.task
def fail(*args: Any) -> None:
    raise ValueError("bad")


@app.task(bind=True, max_retries=2)
def retried(self: Any, x: int) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.01)
    return x


@app.task(reject_on_worker_lost=False)
def dies(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(max_deliveries=2)
def dies_each_time(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(time_limit=0.3)
def hangs(*args: Any) -> None:
    time.sleep(60)


@app.task
def rejects(*args: Any) -> None:
    raise Reject("no", requeue=False)


@app.task
def ignores(*args: Any) -> None:
    raise Ignore


@app.task
def unwritable(*args: Any) -> object:
    return object()


@app.task(acks_late=False)
def early(x: int) -> int:
    return x


@app.task(ignore_result=True)
def silent(x: int) -> int:
    return x


@app.task
def note(task_id: str, *, path: str) -> None:
    """An errback of the old kind."""
    with open(path, "a") as file:
        file.write(f"{task_id}\n")


@app.task
def explain(request: Any, exc: BaseException, traceback: Any, path: str) -> None:
    """An errback of the new kind."""
    with open(path, "a") as file:
        file.write(f"{request.id} {type(exc).__name__}: {exc}\n")


@app.task(bind=True)
def count(self: Any, values: list[int], path: str) -> int:
    """A body that leaves its id."""
    with open(path, "a") as file:
        file.write(f"{self.request.id}\n")
    return sum(values)


@app.task
def slow(x: int, seconds: float = 0.02) -> int:
    time.sleep(seconds)
    return x


@app.task(bind=True)
def becomes_chain(self: Any, x: int) -> Any:
    return self.replace(add.s(x, 1) | add.s(10))


@app.task(bind=True)
def becomes_group(self: Any, x: int) -> Any:
    return self.replace(group(add.s(x, i) for i in range(3)))


@app.task(bind=True)
def becomes_chord(self: Any, x: int) -> Any:
    return self.replace(chord([add.s(x, i) for i in range(3)], total.s()))


@app.task(bind=True)
def becomes_itself(self: Any, x: int) -> Any:
    if x:
        return self.replace(becomes_itself.s(x - 1))
    return self.request.replaced_task_nesting


@app.task(bind=True)
def brings_another(self: Any, x: int) -> int:
    self.add_to_chord(add.s(x, 100))
    return x


@app.task
def starts(x: int) -> str:
    return str(group(add.s(x, i) for i in range(3)).delay().id)


@app.task(bind=True)
def origin(self: Any, *args: Any) -> list[Any]:
    request = self.request
    return [request.id, request.root_id, request.parent_id, request.group]
