"""What the tasks do, whatever the system."""

from __future__ import annotations

import os
import sys
import time
from types import FrameType

_last: list[FrameType] = []


def stamp() -> int:
    """Append the time at which this runs to the file $BENCH_STAMP."""
    line = f"{time.monotonic()!r}\n".encode()
    file = os.open(os.environ["BENCH_STAMP"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line)
    os.close(file)
    return 1


def frames(packages: tuple[str, ...]) -> list[int]:
    """Frames of these packages below the task: [all of them, entered for this task].

    Frames that are there since the last task in this process (the loop that
    takes tasks, and what is below it) are not entered for each task. Call it
    twice in one process; the first answer counts all as new.
    """
    chain: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        chain.append(frame)
        frame = frame.f_back
    parts = tuple(f"{os.sep}{package}{os.sep}" for package in packages)
    own = [f for f in chain if any(part in f.f_code.co_filename for part in parts)]
    own = [f for f in own if f"{os.sep}bench{os.sep}" not in f.f_code.co_filename]
    new = [f for f in own if not any(f is old for old in _last)]
    _last[:] = chain
    return [len(own), len(new)]
