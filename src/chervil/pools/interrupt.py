"""Raising an exception in another thread.

CPython delivers it between two bytecodes, so a thread that waits in the
operating system (``time.sleep``, a socket) gets it when the wait is over.
"""

from __future__ import annotations

import ctypes

from chervil.coroutines import interrupt_coroutine


def raise_in_thread(thread: int, exception: type[BaseException]) -> None:
    """Raise in that thread, in the coroutine it runs if it runs one."""
    if not interrupt_coroutine(thread, exception()):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread), ctypes.py_object(exception)
        )


def take_back_raise(thread: int) -> None:
    """Withdraw an exception that has not been delivered yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)
