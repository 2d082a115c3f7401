"""Tasks that do to their process what no task should; see test_hostile_tasks.py."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from chervil import Chervil

app = Chervil("hostile")
app.conf.task_max_deliveries = 2
app.conf.worker_redirect_stdouts = True


class OddError(BaseException):
    """Not an Exception."""


class StubbornError(Exception):
    """Cannot be pickled, has no text, and its arguments are no JSON."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise TypeError("no pickle")


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def segfaults() -> None:
    ctypes.string_at(0)


@app.task
def exits_at_once() -> None:
    os._exit(9)


@app.task
def aborts() -> None:
    os.abort()


@app.task
def closes_descriptors() -> str:
    os.closerange(3, 4096)
    return "closed"


@app.task
def closes_and_raises() -> None:
    os.closerange(3, 4096)
    raise ValueError("closed")


@app.task(time_limit=0.5)
def blocks_all_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            continue


@app.task(time_limit=0.5)
def holds_the_interpreter_lock() -> None:
    """In C, for a minute."""
    ctypes.PyDLL(None).sleep(60)


@app.task
def naps(seconds: float) -> str:
    time.sleep(seconds)
    return "ended"


@app.task
def leaves_a_fork_behind() -> int:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
        os._exit(0)
    return pid


@app.task
def leaves_a_program_behind() -> int:
    return subprocess.Popen(["sleep", "60"]).pid


@app.task
def prints_megabytes() -> int:
    line = "x" * 1023
    for _ in range(4096):
        print(line)
    os.write(1, (line.encode() + b"\n") * 1024)
    sys.stderr.write(line * 1024)
    return 4


@app.task
def raises_odd() -> None:
    raise OddError("odd")


@app.task
def raises_stubborn() -> None:
    raise StubbornError


@app.task
def returns_stubborn() -> Any:
    return threading.Lock()


@app.task
def has_no_memory() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, hard))
    try:
        bytearray(16 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@app.task
def returns(size: int) -> str:
    return "x" * size


@app.task
def changes_directory_and_signals() -> None:
    os.chdir("/")
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM):
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, signal.SIG_IGN)
