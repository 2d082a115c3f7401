"""The tasks of the interoperation tests, the same for a Celery and for a Chervil app."""

from __future__ import annotations

import os
import time
from types import ModuleType, SimpleNamespace
from typing import Any

#: Fields of the request that say what a message brought.
REQUEST = (
    "id", "task", "args", "kwargs", "retries", "root_id", "parent_id", "group", "shadow",
    "argsrepr", "kwargsrepr", "reply_to", "correlation_id", "timelimit", "origin", "lang",
)  # fmt: skip


class CustomError(Exception):
    """With more than one argument, and an attribute that its text does not have."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class Outer:
    class NestedError(ValueError):
        pass


def make_error(kind: str) -> Exception:
    """An exception of that kind."""
    if kind == "builtin":
        return ValueError("no good", 7)
    if kind == "custom":
        return CustomError(42, "custom \u017c")
    if kind == "nested":
        return Outer.NestedError("within")
    if kind == "argument":
        return RuntimeError("cannot be written", {1, 2})
    if kind == "not-importable":
        made = type("Lost", (Exception,), {"__module__": "no.such.module"})
        error = made("who", 1)
        assert isinstance(error, Exception)
        return error
    raise AssertionError(kind)


def note(path: str, text: str) -> None:
    """Append a line at once."""
    with open(path, "a") as file:
        file.write(f"{text}\n")


def wait_for(path: str, seconds: float = 60.0) -> None:
    """Until the test makes this file."""
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.005)


def register(app: Any, side: str, exceptions: ModuleType) -> SimpleNamespace:
    """Define all tasks on an app.

    :param side: ``celery`` or ``chervil``.
    :param exceptions: that side's exceptions.
    :returns: the tasks by their short names.
    """
    found = SimpleNamespace()

    def task(**options: Any) -> Any:
        def define(fun: Any) -> Any:
            made = app.task(name=f"interop.{fun.__name__}", **options)(fun)
            setattr(found, fun.__name__, made)
            return made

        return define

    _plain(task, side)
    _failing(task, side, exceptions)
    _retrying(task, side)
    _following(task, side)
    return found


def _plain(task: Any, side: str) -> None:
    @task()
    def add(x: int, y: int) -> int:
        return x + y

    @task()
    def same(value: Any) -> Any:
        return value

    @task()
    def total(values: list[int]) -> int:
        return sum(values)

    @task(bind=True)
    def notes(self: Any, values: list[int], path: str) -> int:
        """A body that leaves its id."""
        note(path, f"{side} {self.request.id}")
        return sum(values)

    @task()
    def shown(*args: Any, **kwargs: Any) -> str:
        return repr((args, kwargs))

    @task()
    def size(value: str) -> int:
        return len(value)

    @task()
    def where() -> str:
        return side

    @task()
    def when() -> float:
        return time.time()

    @task(bind=True)
    def request(self: Any) -> dict[str, Any]:
        values = {name: getattr(self.request, name, None) for name in REQUEST}
        values["x-mine"] = (self.request.headers or {}).get("x-mine")
        info = self.request.delivery_info
        values |= {name: info.get(name) for name in ("routing_key", "priority", "exchange")}
        return values

    @task(bind=True)
    def stamps(self: Any) -> list[Any]:
        return [self.request.stamped_headers, self.request.stamps]

    @task()
    def record(path: str, text: Any) -> str:
        note(path, f"{side} {text}")
        return side

    @task(ignore_result=True)
    def quiet(path: str) -> str:
        note(path, side)
        return "nobody reads this"

    @task()
    def holds(path: str, go: str, only: str = "") -> str:
        """Waits for the file, but on one side only if it is named."""
        note(path, f"{side} {os.getpid()}")
        if only in ("", side):
            wait_for(go)
        return side

    @task()
    def works(path: str, number: int) -> int:
        time.sleep(0.01)
        note(path, f"{side} {number}")
        return number

    @task(bind=True)
    def progress(self: Any, go: str) -> str:
        self.update_state(state="PROGRESS", meta={"done": 3, "of": 7})
        wait_for(go)
        return "done"

    @task(bind=True, track_started=True)
    def tracked(self: Any, go: str) -> str:
        wait_for(go)
        return "done"


def _failing(task: Any, side: str, exceptions: Any) -> None:
    @task()
    def fails(kind: str) -> None:
        if kind == "cause":
            try:
                {}["missing"]
            except KeyError as exc:
                raise CustomError(1, "outer") from exc
        raise make_error(kind)

    @task()
    def naps(seconds: float) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        return "slept"

    @task()
    def stops_softly() -> str:
        try:
            end = time.monotonic() + 30
            while time.monotonic() < end:
                time.sleep(0.01)
        except exceptions.SoftTimeLimitExceeded:
            return "stopped"
        return "not stopped"

    @task()
    def ignores() -> None:
        raise exceptions.Ignore()

    @task()
    def rejects() -> None:
        raise exceptions.Reject("no thanks", requeue=False)


def _retrying(task: Any, side: str) -> None:
    @task(bind=True, max_retries=5)
    def goes_on(self: Any, sides: list[str], queues: list[str]) -> list[Any]:
        """Retries itself on each of the queues, and returns where it was."""
        sides = [*sides, side]
        if queues:
            raise self.retry(args=(sides, queues[1:]), queue=queues[0], countdown=0)
        return [sides, self.request.retries]

    @task(bind=True)
    def roams(self: Any, sides: list[str]) -> list[str]:
        """Retries four times on the queue that it came from, and returns where it was."""
        sides = [*sides, side]
        time.sleep(0.02)
        if len(sides) < 5:
            assert self.request.retries == len(sides) - 1
            raise self.retry(args=(sides,), countdown=0.01, max_retries=4)
        return sides

    @task(
        bind=True,
        autoretry_for=(CustomError,),
        retry_kwargs={"max_retries": 3, "countdown": 0.05},
    )
    def retries_by_itself(self: Any, times: int) -> int:
        if self.request.retries < times:
            raise CustomError(self.request.retries, "not yet")
        return int(self.request.retries)

    @task(bind=True, max_retries=1)
    def gives_up(self: Any) -> None:
        try:
            raise CustomError(9, "again and again")
        except CustomError as exc:
            raise self.retry(exc=exc, countdown=0)

    @task(bind=True, max_retries=0)
    def gives_up_without_reason(self: Any) -> None:
        raise self.retry(countdown=0)

    @task(bind=True)
    def waits_for_retry(self: Any) -> None:
        raise self.retry(exc=CustomError(5, "later"), countdown=3600)


def _following(task: Any, side: str) -> None:
    @task()
    def failed_id(task_id: str, *, path: str) -> None:
        """An errback that gets the id of the task that failed."""
        note(path, f"{side} {task_id}")

    @task()
    def failed_how(request: Any, exc: BaseException, traceback: str, path: str) -> None:
        """An errback that gets the error."""
        note(path, f"{side} {request.id} {type(exc).__qualname__} {exc.args[0]!r}")
