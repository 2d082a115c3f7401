"""The process that makes executors.

It is forked from the hub after the application was imported and before the hub
has connections, does nothing but fork and wait for its children, and has one
thread. An executor forked from it is ready in milliseconds, shares its memory,
and inherits no connection and no lock that another thread holds.

Orders from the hub (one datagram each): ``spawn <index>`` with the executor's
end of its control socket as ancillary data. Answers: ``pid <index> <pid>`` and
``exit <index> <pid> <status>``. When the hub is gone, so are the executors, and on Linux
the kernel ends them when the fork server is gone: a task does not look at sockets.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

#: Between looks whether it has ended.
_LOOK_SECONDS = 0.001
#: ``<linux/prctl.h>``: the signal that a process gets when its parent has ended.
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


class ForkServer:
    """The loop of the fork server; ``executor(index, control)`` is what a child runs."""

    def __init__(
        self, orders: socket.socket, executor: Callable[[int, socket.socket], int]
    ) -> None:
        self._orders = orders
        self._executor = executor
        self._children: dict[int, int] = {}

    def serve(self) -> None:
        """Until the hub has gone."""
        # The terminal's Ctrl-C reaches the whole process group; only the hub decides.
        for number in _STOPS:
            signal.signal(number, signal.SIG_IGN)
        wakeup_out, wakeup_in = socket.socketpair()
        for end in (wakeup_in, wakeup_out):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_in.fileno(), warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(wakeup_out, select.POLLIN)
        poller.register(self._orders, select.POLLIN)
        self._wakeups = (wakeup_in, wakeup_out)
        while True:
            ready = {descriptor for descriptor, _ in poller.poll()}
            if wakeup_out.fileno() in ready:
                _drain(wakeup_out)
                self._reap()
            if self._orders.fileno() in ready and not self._obey():
                break
        self._end()

    def _obey(self) -> bool:
        try:
            order, descriptors, _, _ = socket.recv_fds(self._orders, 256, 1)
        except OSError:
            return False
        if not order:
            return False
        index = int(order.split()[1])
        control = socket.socket(fileno=descriptors[0])
        mine, pid = os.getpid(), os.fork()
        if pid == 0:
            self._become_executor(index, control, mine)
        control.close()
        self._children[pid] = index
        self._tell(b"pid %d %d" % (index, pid))
        return True

    def _become_executor(self, index: int, control: socket.socket, parent: int) -> None:
        """In the child; never returns."""
        status = 1
        try:
            _end_with(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._orders.close()
            for end in self._wakeups:
                end.close()
            # Should this process's parent end before it could tell the hub of it. There is
            # no other end any more when the hub has noticed that already.
            control.send(b"%d" % os.getpid())
            status = self._executor(index, control)
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else 0
        except BrokenPipeError:
            status = 0
        finally:
            # Not through the interpreter's exit, which would run the clean-up that
            # the hub registered before the fork.
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            index = self._children.pop(pid, None)
            if index is not None:
                self._tell(b"exit %d %d %d" % (index, pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, text: bytes) -> None:
        try:
            self._orders.send(text)
        except OSError:
            pass  # the hub has gone; the end of its socket says so as well

    def _end(self) -> None:
        """The hub has gone: nobody waits for what the executors still do."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so the pid is still theirs
        for pid in self._children:
            os.waitpid(pid, 0)


def _end_with(parent: int) -> None:
    """Have this process killed when its parent ends, whatever it is at by then."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it has ended already
            os._exit(0)


def _drain(end: socket.socket) -> None:
    try:
        while end.recv(4096):
            pass
    except BlockingIOError:
        pass


def start(executor: Callable[[int, socket.socket], int], *hub_only: Callable[[], None]) -> Handle:
    """Fork the fork server.

    :param hub_only: called in the fork server first, to close what only the hub uses.
    """
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # What exists now is out of the collector's reach from here on, in all processes of
    # the node, so that none of them touches, and so copies, the pages that they share.
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            mine.close()
            for close in hub_only:
                close()
            ForkServer(its, executor).serve()
            status = 0
        finally:
            os._exit(status)
    its.close()
    return Handle(pid, mine)


class Handle:
    """The hub's side of the fork server."""

    def __init__(self, pid: int, orders: socket.socket) -> None:
        self.pid = pid
        self._orders = orders

    def fileno(self) -> int:
        """Readable when there are answers, or when the fork server has gone."""
        return self._orders.fileno()

    def spawn(self, index: int) -> socket.socket:
        """Have an executor made; the hub's end of its control socket.

        :raises OSError: the fork server has gone.
        """
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            socket.send_fds(self._orders, [b"spawn %d" % index], [its.fileno()])
        except OSError:
            mine.close()
            raise
        finally:
            its.close()
        return mine

    def answers(self) -> list[list[str]] | None:
        """The answers that are there; None when the fork server has gone."""
        found: list[list[str]] = []
        while True:
            try:
                text = self._orders.recv(256, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError:
                text = b""
            if not text:
                return found or None
            found.append(text.decode().split())

    def close(self, seconds: float = 5.0) -> bool:
        """Have it end, with all executors that are left, and wait for that.

        :param seconds: after that it is killed.
        :returns: whether it has ended its executors; if not, they are orphans.
        """
        self._orders.close()
        end = time.monotonic() + seconds
        try:
            while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGKILL)
                time.sleep(_LOOK_SECONDS)
        except ChildProcessError:  # somebody else has asked for its status
            return False
        return ended[1] == 0
