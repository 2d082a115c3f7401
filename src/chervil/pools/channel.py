"""The two sockets between the hub and its executors.

Both are ``SOCK_SEQPACKET`` pairs: one datagram is taken whole or not at all,
whatever happens to the process that takes it, and in the order in which they were
sent. All executors read the same end of the run queue, so that whoever is idle
takes the next job and nobody hoards; the hub can read it as well, to take back what
nobody has begun.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from chervil.pools.frames import INLINE_LIMIT, join, split, spool
from chervil.pools.private import PrivateDirectory, roots

_BUFFER = 4 * 1024 * 1024
_ROOM = INLINE_LIMIT + 4096
_DONTWAIT = socket.MSG_DONTWAIT
_TYPE = socket.SOCK_SEQPACKET if hasattr(socket, "SOCK_SEQPACKET") else socket.SOCK_DGRAM


class Taker:
    """Takes jobs off the run queue, one thread's.

    The number of a job is written into the page by the system call that takes it off the
    queue: it is in one of the two whenever a process is killed, however long it then takes
    that process to say that it begins.
    """

    def __init__(self, jobs: socket.socket) -> None:
        self._receive = jobs.recvmsg_into
        self._buffer = bytearray(_ROOM)
        self._view = memoryview(self._buffer)

    def take(self, place: memoryview) -> bytes:
        """The next job; waits for it. Empty when the hub has closed the queue.

        :param place: where the page has the number of the job that a slot runs.
        """
        size = self._receive((place, self._view))[0]
        return bytes(place) + self._buffer[: size - len(place)] if size else b""

    def take_now(self, place: memoryview) -> bytes | None:
        """The next job if there is one now; None if not, empty at the end."""
        try:
            size = self._receive((place, self._view), 0, _DONTWAIT)[0]
        except BlockingIOError:
            return None
        return bytes(place) + self._buffer[: size - len(place)] if size else b""


class Channel:
    """The hub's and the executors' ends of the run queue and of the reports."""

    def __init__(self) -> None:
        self._jobs_in, self._jobs_out = _pair()
        self._reports_in, self._reports_out = _pair()
        self._files = [PrivateDirectory(root) for root in roots()]
        self._paths = [files.path for files in self._files]

    # --- the hub's side

    def pack(self, frame: bytes) -> bytes:
        """The frame as :meth:`put` and :meth:`report_all` take it: one that is too large
        goes into a file.

        :raises MessageTooLarge: there is no room for the file.
        """
        return spool(frame, self._paths) if len(frame) > INLINE_LIMIT else frame

    def put(self, frame: bytes) -> bool:
        """Offer a job to the executors; False when there is no room for it now."""
        try:
            self._jobs_in.send(frame, _DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def take_back(self) -> list[bytes]:
        """All jobs that no executor has taken, in order."""
        frames = []
        try:
            while frame := self._jobs_out.recv(_ROOM, _DONTWAIT):
                frames.append(frame)
        except BlockingIOError:
            pass
        return frames

    def reports(self, most: int = 512) -> list[bytes]:
        """The reports that are there, without waiting."""
        frames: list[bytes] = []
        receive = self._reports_out.recv
        try:
            while len(frames) < most:
                frames += split(receive(_ROOM, _DONTWAIT))
        except BlockingIOError:
            pass
        return frames

    def fileno(self) -> int:
        """Readable when there are reports."""
        return self._reports_out.fileno()

    @property
    def room_fileno(self) -> int:
        """Writable when :meth:`put` has room again: less than a quarter is taken."""
        return self._jobs_in.fileno()

    # --- the executors' side

    def taker(self) -> Taker:
        """What a thread of an executor takes jobs with."""
        return Taker(self._jobs_out)

    def report(self, frame: bytes) -> None:
        """Hand a report to the hub; waits while the hub is behind."""
        if len(frame) > INLINE_LIMIT:
            frame = spool(frame, self._paths)
        self._send(frame)

    def report_all(self, frames: Sequence[bytes]) -> None:
        """Hand in several reports, each as :meth:`pack` made it; waits as :meth:`report`."""
        if len(frames) == 1:
            self._send(frames[0])
            return
        for datagram in join(frames):
            self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        try:
            self._reports_in.send(datagram)
        except (BrokenPipeError, ConnectionResetError):
            raise  # the hub has gone
        except OSError as exc:
            # A task has closed what was not its own. Only the end of this process tells the
            # hub that what it had is to be run elsewhere.
            os.write(2, f"an executor cannot report any more and ends: {exc}\n".encode())
            os._exit(os.EX_OSERR)

    @property
    def jobs_fileno(self) -> int:
        """Readable when there are jobs."""
        return self._jobs_out.fileno()

    # --- ends

    def keep_executor_ends(self) -> None:
        """In the fork server: close what only the hub uses, so that the executors
        see the end of the queue when the hub is gone."""
        self._jobs_in.close()
        self._reports_out.close()

    def close_jobs(self) -> None:
        """Tell the executors that no more jobs come."""
        self._jobs_in.close()

    def close(self) -> None:
        for end in (self._jobs_in, self._jobs_out, self._reports_in, self._reports_out):
            end.close()
        for files in self._files:
            files.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    """A writing and a reading end with room for a batch of jobs."""
    writing, reading = socket.socketpair(socket.AF_UNIX, _TYPE)
    writing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return writing, reading
