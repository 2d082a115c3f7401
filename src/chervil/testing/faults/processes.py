"""The processes of a node, found in ``/proc``, and signals to them by their ids."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def parent_of(pid: int) -> int:
    """The parent of a living process; 0 where it has ended."""
    try:
        state, parent = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return 0
    return 0 if state in "ZX" else int(parent)


def children_of(pid: int) -> set[int]:
    """The living children of all threads of a process."""
    found: set[int] = set()
    for path in (_PROC / str(pid) / "task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found.update(map(int, path.read_text().split()))
    return {child for child in found if parent_of(child)}


def fork_server(node: int) -> int:
    """The fork server of the node whose hub has this id; 0 while there is none."""
    found = children_of(node)
    return found.pop() if len(found) == 1 else 0


def executors(node: int) -> set[int]:
    """The executors of the node whose hub has this id."""
    server = fork_server(node)
    return children_of(server) if server else set()


def descendants(pid: int) -> set[int]:
    """All processes that came from this one and have not lost their parent."""
    found = children_of(pid)
    for child in list(found):
        found |= descendants(child)
    return found


def send(pids: Iterable[int], number: int) -> set[int]:
    """Send a signal to processes; those that were still there.

    :raises ValueError: an id that the system takes for a whole group, ours perhaps.
    """
    reached = set()
    for pid in pids:
        _expect_one(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
            reached.add(pid)
    return reached


def send_group(group: int, number: int) -> None:
    """Send a signal to a process group, if there is one.

    :raises ValueError: an id that the system takes for our own.
    """
    _expect_one(group)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _expect_one(number: int) -> None:
    if number <= 1:
        raise ValueError(f"{number} is not the id of a process to be killed")


def kill(*pids: int) -> set[int]:
    """``SIGKILL``; those that were still there."""
    return send(pids, signal.SIGKILL)


def resume(*pids: int) -> None:
    """Let processes go on that were stopped."""
    send(pids, signal.SIGCONT)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Have processes stand still (``SIGSTOP``) for as long as the block lasts."""
    send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        resume(*pids)


def wait_until_gone(pids: Iterable[int], seconds: float = 10.0) -> set[int]:
    """Wait for the end of processes; those that have not ended in that time."""
    left = set(pids)
    end = time.monotonic() + seconds
    while left and time.monotonic() < end:
        left = {pid for pid in left if parent_of(pid)}
        time.sleep(0.002)
    return left
