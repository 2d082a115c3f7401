"""The application that nodes and clients of a soak test share."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from typing import Any

from chervil import Chervil
from chervil.exceptions import Reject
from chervil.testing.soak.ledger import DIRECTORY, Ledger

app = Chervil("soak")
app.conf.update(
    task_max_deliveries=50,
    result_expires=86400,
    worker_redirect_stdouts=False,
    publish_timeout=10.0,
)
_DIRECTORY = os.environ.get(DIRECTORY, ".")
ledger = Ledger(_DIRECTORY)


def _note(what: str, task: Any) -> None:
    request = task.request
    ledger.write(
        what,
        request.id,
        task.name,
        retries=request.retries,
        pid=os.getpid(),
        node=request.hostname,
    )


class Noted:
    """Writes down that a task begins, and that it ended if it did."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __enter__(self) -> None:
        _note("begin", self._task)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):
            _note("end", self._task)


@app.task(bind=True)
def quick(self: Any, *_: Any) -> int:
    """Ends at once."""
    with Noted(self):
        return os.getpid()


@app.task(bind=True)
def sleeps(self: Any, seconds: float) -> float:
    """Takes its time."""
    with Noted(self):
        time.sleep(seconds)
        return seconds


@app.task(bind=True)
async def waits(self: Any, seconds: float) -> float:
    """Takes its time without holding a thread."""
    with Noted(self):
        await asyncio.sleep(seconds)
        return seconds


@app.task(bind=True, max_retries=3)
def retries(self: Any, times: int, wait: float) -> int:
    """Succeeds when it has been retried so often."""
    with Noted(self):
        if self.request.retries < times:
            raise self.retry(countdown=wait)
        return int(self.request.retries)


@app.task(bind=True)
def large(self: Any, data: str) -> str:
    """Takes and returns more than a datagram holds."""
    with Noted(self):
        return data


@app.task(bind=True)
def fails(self: Any) -> None:
    """Raises."""
    with Noted(self):
        raise ValueError("on purpose")


@app.task(bind=True)
def rejects(self: Any) -> None:
    """Goes to the dead-letter queue."""
    with Noted(self):
        raise Reject("on purpose", requeue=False)


@app.task(bind=True, acks_late=False)
def once(self: Any, seconds: float) -> float:
    """Must not run twice, whatever happens."""
    with Noted(self):
        time.sleep(seconds)
        return seconds


@app.task(bind=True, time_limit=1.0)
def overruns(self: Any) -> None:
    """Is ended by its hard time limit."""
    with Noted(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.01)


@app.task(bind=True)
def dies(self: Any, times: int, how: str) -> int:
    """Ends its own process the first ``times`` times that it runs."""
    with Noted(self):
        path = os.path.join(_DIRECTORY, f"died-{self.request.id}")
        with open(path, "ab") as file:
            file.write(b"x")
        count = os.path.getsize(path)
        if count <= times:
            _note("dying", self)
            _end_process(how)
        return count


@app.task(bind=True, max_deliveries=3)
def dies_always(self: Any, how: str) -> None:
    """Ends its process whenever it runs, until it is dead itself."""
    with Noted(self):
        _note("dying", self)
        _end_process(how)


def _end_process(how: str) -> None:
    if how == "exit":
        os._exit(7)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
