"""What a pool gets from the worker: its place in the node.

A pool is a function that takes a :class:`Seat`, runs jobs until the run queue
ends or :meth:`Seat.enough` says so, and returns. It enters each job in the
page before it runs it and leaves the page after the report was handed in.
"""

from __future__ import annotations

import os
import socket

from chervil.pools.channel import Channel
from chervil.pools.frames import Kind, pack_report
from chervil.pools.page import Page
from chervil.pools.runner import Runner


class Seat:
    """One executor's place: its channel, its row of the page, and its limits.

    :param control: datagrams from the hub (``b"stop"``, ``b"interrupt <slot> <number>"``,
        ``b"abandon <slot> <number>"``, ``b"terminate <slot> <number>"``).
    :param max_tasks: end after that many tasks; 0: no limit.
    :param max_memory: end when the process is larger, in KiB; 0: no limit.
    """

    def __init__(
        self,
        index: int,
        slots: int,
        channel: Channel,
        page: Page,
        runner: Runner,
        control: socket.socket,
        max_tasks: int = 0,
        max_memory: int = 0,
    ) -> None:
        self.index = index
        self.slots = slots
        self.channel = channel
        self.page = page
        self.runner = runner
        self.control = control
        self._max_tasks = max_tasks
        self._max_memory = max_memory
        self._limited = bool(max_tasks or max_memory)
        self._done = 0

    def enough(self) -> bool:
        """Called after each task: whether this executor is to be replaced."""
        if not self._limited:
            return False
        self._done += 1
        if (self._max_tasks and self._done >= self._max_tasks) or (
            self._max_memory and resident_kib() > self._max_memory
        ):
            self._limited = False
            if self.slots > 1:  # it may take long to end; another is to take its place now
                self.channel.report(pack_report(self.index, Kind.LEAVING, 0.0, b""))
            return True
        return False


def resident_kib() -> int:
    """Resident memory of this process in KiB."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError:
        import resource  # not on every platform

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * (os.sysconf("SC_PAGE_SIZE") // 1024)
