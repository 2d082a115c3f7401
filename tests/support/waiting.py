"""Waiting for conditions instead of sleeping for as long as it probably takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], timeout: float = 10.0, what: str = "", interval: float = 0.002
) -> T:
    """Call ``condition`` until it returns something true, and return that.

    :param timeout: seconds after which the test fails.
    :param what: the condition in words, for the failure's message.
    :param interval: seconds between the first calls; grows to 50 ms.
    :raises AssertionError: it did not become true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            text = what or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"not within {timeout:g} s: {text} (last value: {value!r})")
        time.sleep(interval)
        interval = min(interval * 1.5, 0.05)


def lines(path: Path) -> list[str]:
    """The whole lines of a file that another process writes to; none where it is not there.

    A file exists before its first line is in it: wait for lines, not for files.
    """
    if not path.exists():
        return []
    return [line[:-1] for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"]
