"""The tasks that every pool must run alike; see tests/conformance/test_pools.py."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from chervil import Chervil
from chervil.exceptions import Ignore, Reject, SoftTimeLimitExceeded

app = Chervil("pooled")
app.conf.task_max_deliveries = 3


class CustomError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
async def aadd(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@app.task
def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@app.task
def fail(text: str) -> None:
    raise CustomError(42, text)


@app.task
async def afail(text: str) -> None:
    await asyncio.sleep(0)
    raise CustomError(42, text)


@app.task
def whoami() -> dict[str, Any]:
    return {"pid": os.getpid(), "thread": threading.get_ident()}


@app.task(bind=True)
def request_of(self: Any) -> dict[str, Any]:
    request = self.request
    return {
        "id": request.id,
        "task": request.task,
        "args": list(request.args),
        "retries": request.retries,
        "hostname": request.hostname,
        "routing_key": request.delivery_info["routing_key"],
        "redelivered": request.delivery_info["redelivered"],
        "headers": request.headers,
    }


@app.task(bind=True, max_retries=3, default_retry_delay=0)
def succeeds_after(self: Any, times: int) -> int:
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def never_succeeds(self: Any) -> None:
    try:
        raise CustomError(1, "again")
    except CustomError as exc:
        raise self.retry(exc=exc, countdown=0) from exc


@app.task(autoretry_for=(CustomError,), max_retries=2, retry_backoff=False, default_retry_delay=0)
def retries_by_itself(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise CustomError(1, "not yet")
    return os.path.getsize(path)


@app.task(bind=True)
def progress(self: Any, path: str) -> str:
    self.update_state(state="PROGRESS", meta={"done": 1})
    wait_for(path)
    return "done"


@app.task
def ignored() -> None:
    raise Ignore()


@app.task
def rejected() -> None:
    raise Reject("no thanks", requeue=False)


@app.task(bind=True)
def rejected_once(self: Any, path: str) -> str:
    if not os.path.exists(path):
        Path(path).touch()
        raise Reject("not now", requeue=True)
    return "taken"


@app.task(ignore_result=True)
def quiet(path: str) -> str:
    Path(path).touch()
    return "nobody reads this"


@app.task
def exits() -> None:
    sys.exit(3)


@app.task
def interrupts() -> None:
    raise KeyboardInterrupt


@app.task
def unserializable() -> Any:
    return {1, 2, 3}


@app.task
def large(size: int) -> str:
    return "x" * size


class NotPrintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@app.task
def fails_unprintably() -> None:
    raise NotPrintable(object())


def wait_for(path: str, seconds: float = 30.0) -> None:
    """Until the test makes this file."""
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.005)


@app.task
def holds(started: str, go: str) -> int:
    """Says that it runs, by its pid in a file, and ends when it may."""
    with open(started, "a") as file:
        file.write(f"{os.getpid()}\n")
    wait_for(go)
    return os.getpid()


@app.task
async def aholds(started: str, go: str, load: str) -> int:
    """The same as a coroutine; ``load`` makes its message large."""
    with open(started, "a") as file:
        file.write(f"{os.getpid()}\n")
    while not os.path.exists(go):
        await asyncio.sleep(0.1)
    return len(load)


@app.task(max_deliveries=2)
def kills_its_executor(started: str) -> None:
    with open(started, "a") as file:
        file.write("x")
    os.kill(os.getpid(), 9)


@app.task
def kills_its_executor_once(started: str) -> str:
    if not os.path.exists(started):
        Path(started).touch()
        os.kill(os.getpid(), 9)
    return "second time"


@app.task(acks_late=False)
def early(started: str) -> None:
    with open(started, "a") as file:
        file.write("x")
    os.kill(os.getpid(), 9)


@app.task(acks_late=False)
def early_fine(x: int) -> int:
    return x


@app.task(soft_time_limit=0.2)
def stops_softly() -> str:
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "stopped"
    return "not stopped"


@app.task(soft_time_limit=0.2)
async def astops_softly() -> str:
    try:
        await asyncio.sleep(20)
    except SoftTimeLimitExceeded:
        return "stopped"
    return "not stopped"


@app.task
def runs_long(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
    return "ended by itself"


@app.task
async def aruns_long(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "ended by itself"


@app.task
def ignores_everything(seconds: float) -> str:
    """Neither soft limit nor exception stops it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            continue
    return "ended by itself"


@app.task
def cleans_up(started: str, seconds: float = 60.0) -> str:
    """Leaves a second line when it is interrupted, and lets itself be ended."""
    with open(started, "a") as file:
        file.write(f"{os.getpid()}\n")
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
    finally:
        with open(started, "a") as file:
            file.write("cleaned up\n")
    return "ended by itself"


@app.task
async def acleans_up(started: str, seconds: float = 60.0) -> str:
    with open(started, "a") as file:
        file.write(f"{os.getpid()}\n")
    try:
        await asyncio.sleep(seconds)
    finally:
        with open(started, "a") as file:
            file.write("cleaned up\n")
    return "ended by itself"


@app.task(acks_late=False)
def early_cleans_up(started: str) -> str:
    return str(cleans_up.run(started))


@app.task
def catches_soft_limit(started: str) -> str:
    with open(started, "a") as file:
        file.write("started\n")
    try:
        wait_for(started + "-never", 60)
    except SoftTimeLimitExceeded as exc:
        return type(exc).__name__
    return "not interrupted"


@app.task
def naps(seconds: float) -> None:
    time.sleep(seconds)


@app.task
async def anaps(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.task(track_started=True)
def tracked(go: str) -> str:
    wait_for(go)
    return "done"


@app.task
def sends_another(x: int) -> str:
    return str(add.delay(x, 1).id)


@app.task
def fails_with_odd_text() -> None:
    raise ValueError(os.fsdecode(b"a\xff"))


@app.task
def bad_errback(request: Any, exc: Exception, traceback: str) -> None:
    raise RuntimeError("an errback of no use")


@app.task
def slow_errback(request: Any, exc: Exception, traceback: str) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        time.sleep(0.01)


@app.task
def writes(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(f"{text}\n")
