"""A page of shared memory in which executors say what they are running.

Writing a slot is one ``pack_into``, no system call, so that executors can do it
for each task; that a job was taken is written by the system call that takes it (see
``channel.Taker``). The hub reads it to enforce time limits, and after an executor's
death to know which job died with it.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

_SLOT = struct.Struct("<QdQQ")
_NUMBER_SIZE = 8
#: What a slot begins with that has been used and runs nothing.
_LEFT = struct.pack("<Qd", 0, -1.0)
#: Marks a number of a job that was cancelled.
_END = 1 << 63


class Page:
    """Slots for ``executors`` processes with ``slots`` places each."""

    def __init__(self, executors: int, slots: int, descriptor: int | None = None) -> None:
        self.executors, self.slots = executors, slots
        size = max(executors * slots * _SLOT.size, mmap.PAGESIZE)
        self.descriptor = _new_file(size) if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, size)

    def place(self, executor: int, slot: int) -> memoryview:
        """Where the number of the job that this slot runs is, for ``Taker.take``."""
        offset = (executor * self.slots + slot) * _SLOT.size
        return memoryview(self._memory)[offset : offset + _NUMBER_SIZE]

    def enter(self, executor: int, slot: int, number: int, now: float, thread: int = 0) -> None:
        """This slot begins to run the job of that number (``now``: monotonic seconds)."""
        _SLOT.pack_into(
            self._memory, (executor * self.slots + slot) * _SLOT.size, number, now, thread, 0
        )

    def leave(self, executor: int, slot: int) -> None:
        """This slot runs nothing."""
        offset = (executor * self.slots + slot) * _SLOT.size
        self._memory[offset : offset + len(_LEFT)] = _LEFT

    def read(self, executor: int, slot: int) -> tuple[int, float, int]:
        """Number of the job (0: none), monotonic time it began, thread that runs it.

        A job that was taken and has not begun has no time (0 or less)."""
        number, began, thread, _ = _SLOT.unpack_from(
            self._memory, (executor * self.slots + slot) * _SLOT.size
        )
        return number, began, thread

    def running(self, executor: int) -> dict[int, tuple[int, float, int]]:
        """The jobs of one executor: number -> (slot, monotonic time it began, thread)."""
        found = {}
        for slot in range(self.slots):
            number, began, thread = self.read(executor, slot)
            if number:
                found[number] = (slot, began, thread)
        return found

    def used(self, executor: int) -> bool:
        """Whether this executor has taken any job since :meth:`clear`."""
        return any(any(self.read(executor, slot)[:2]) for slot in range(self.slots))

    def interrupt(self, executor: int, slot: int, number: int, *, end: bool = False) -> None:
        """Ask for the job in this slot to be interrupted, if it still is that number.

        :param end: because it was cancelled, not because its soft limit is over.
        """
        offset = (executor * self.slots + slot) * _SLOT.size + 24
        struct.pack_into("<Q", self._memory, offset, number | (_END if end else 0))

    def interrupted(self, executor: int, slot: int, *, end: bool = False) -> bool:
        """Whether the job that this slot runs now is to be interrupted (for that reason)."""
        number, _, _, asked = _SLOT.unpack_from(
            self._memory, (executor * self.slots + slot) * _SLOT.size
        )
        return bool(number) and bool(number | (_END if end else 0) == asked)

    def clear(self, executor: int) -> None:
        """Empty all slots of an executor that has ended."""
        width = self.slots * _SLOT.size
        self._memory[executor * width : (executor + 1) * width] = bytes(width)

    def close(self) -> None:
        self._memory.close()
        os.close(self.descriptor)


def _new_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("chervil-page")
    else:
        with tempfile.NamedTemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
