"""Whether a task may wait for the result of another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from chervil.context import Context, current_request

NEVER_BLOCK = """\
Never call result.get() within a task: it blocks a slot that the other task may need.
Have the other task call one more task with its result (link=), use async def and
`await result.aget()`, or say `with allow_join_result():` if you know that it cannot
block for ever."""

_may_join: ContextVar[bool] = ContextVar("chervil_may_join", default=False)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow ``get()`` inside a task, within a ``with`` block."""
    token = _may_join.set(True)
    try:
        yield
    finally:
        _may_join.reset(token)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Refuse ``get()`` inside a task again, within an ``allow_join_result`` block."""
    token = _may_join.set(False)
    try:
        yield
    finally:
        _may_join.reset(token)


def assert_may_block(always_eager: bool) -> None:
    """Refuse to wait inside a task, unless that was allowed.

    :param always_eager: tasks that run in their caller count, too.
    :raises RuntimeError: a task runs here.
    """
    request = current_request.get()
    if request is not None and not _may_join.get() and _inside_task(request, always_eager):
        raise RuntimeError(NEVER_BLOCK)


def _inside_task(request: Context | None, eager_counts: bool) -> bool:
    while request is not None:
        if not request.called_directly and (eager_counts or not request.is_eager):
            return True
        request = request.outer
    return False
