"""What the hub and the executors say to each other, in datagrams.

A *job* goes to an executor: the number under which the hub knows it, how often
it was delivered, and the message as it was claimed. A *report* comes back: what
became of the job, the encoded outcome, and messages to be stored with it.
Both have a fixed head so that the usual ones cost one ``pack`` and no codec; it begins
with the number, so that who takes a job can have that put elsewhere (``channel.Taker``).
A job is a datagram of its own, so that whoever is idle takes it and no more; reports of
jobs that ended together may share one.

A datagram has a limit of its own (the socket's send buffer), so a frame above
``INLINE_LIMIT`` bytes is written into a file of the node's private directory and
the datagram carries the path.
"""

from __future__ import annotations

import contextlib
import enum
import os
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from chervil.drivers.chords import Arrival
from chervil.exceptions import MessageTooLarge
from chervil.wire.message import Message, Outcome

#: Frames up to this many bytes travel in the datagram itself.
INLINE_LIMIT = 32 * 1024

_JOB = struct.Struct("<QBIII")
_REPORT = struct.Struct("<QBBdI")
#: Where the byte is that says how to read the rest, and what comes behind it.
_FLAG, _REST = 8, 9
_INLINE, _SPOOLED, _FULL_ENVELOPE, _LIMITED, _JUDGED = 0, 1, 2, 4, 16
_SIZE = struct.Struct("<I")
#: Several frames are an array of MessagePack, behind this.
_SEVERAL = 8
_SEVERAL_HEAD = bytes([*bytes(_FLAG), _SEVERAL])
#: Bytes that MessagePack writes before a frame, at most.
_FRAME_HEAD = 5


class Kind(enum.IntEnum):
    """What a report says."""

    #: Ended with an outcome to be stored (SUCCESS, FAILURE): acknowledge.
    ENDED = 0
    #: Ended, nothing to store: acknowledge.
    IGNORED = 1
    #: To be run again: store the follow-up message and acknowledge.
    RETRY = 2
    #: Rejected by the task: to the dead-letter queue.
    REJECTED = 3
    #: Rejected with ``requeue=True``.
    REQUEUE = 4
    #: The message could not be understood: to the dead-letter queue.
    UNREADABLE = 5
    #: Not the end: a state to be stored while the job goes on.
    STATE = 6
    #: Failed, and the task wants its failures delivered again.
    FAILED_UNACKED = 7
    #: Not begun, because its executor is leaving: to be queued again.
    NOT_BEGUN = 8
    #: The executor of that index takes no more jobs and ends when what it runs has ended.
    LEAVING = 9
    #: What follows from a verdict.
    CONCLUDED = 10


class Verdict(msgspec.Struct, array_like=True, gc=False):
    """How a task has ended that did not run, or did not end by itself."""

    #: FAILURE or REVOKED.
    status: str
    #: The exception's class, module and arguments, as in a stored result.
    error: dict[str, Any]
    #: Call no code of the application: an executor died of it.
    quiet: bool = False


class Job(msgspec.Struct, gc=False):
    """A claimed message on its way to an executor."""

    number: int
    deliveries: int
    head: bytes
    #: None when the head is the whole envelope.
    body: bytes | None
    #: The queue it was claimed from.
    queue: str = ""
    #: It has a time limit, so the pool must be able to interrupt it.
    limited: bool = False
    #: It has ended without its executor: only what follows from that is to be worked out.
    verdict: Verdict | None = None


class Extra(msgspec.Struct, array_like=True, gc=False):
    """The rarer parts of a report."""

    status: str = ""
    publish: Sequence[Message] = ()
    reason: str = ""
    detail: str = ""
    #: The task the state is about, where it is not the job's own.
    task_id: str = ""
    #: As in :class:`chervil.drivers.contracts.Settlement`.
    others: Sequence[Outcome] = []
    arrivals: Sequence[Arrival] = []
    begins: Mapping[str, int] = {}
    closes: Sequence[str] = []


class Report(msgspec.Struct, gc=False):
    """What became of a job."""

    number: int
    kind: Kind
    #: Seconds that the task ran.
    runtime: float
    #: The encoded outcome; empty when there is none to store.
    payload: bytes
    extra: Extra


SUCCEEDED = Extra("SUCCESS")
_KINDS = tuple(Kind)
_encode_extra = msgspec.msgpack.Encoder().encode
_decode_verdict = msgspec.msgpack.Decoder(Verdict).decode
_decode_extra = msgspec.msgpack.Decoder(Extra).decode
_encode_frames = msgspec.msgpack.Encoder().encode
_decode_frames = msgspec.msgpack.Decoder(list[bytes]).decode


def pack_job(job: Job) -> bytes:
    """The frame of a job."""
    head, body, queue = job.head, job.body, job.queue.encode()
    flag = (_FULL_ENVELOPE if body is None else _INLINE) | (_LIMITED if job.limited else 0)
    if job.verdict is not None:
        verdict = _encode_extra(job.verdict)
        queue = _SIZE.pack(len(verdict)) + verdict + queue
        flag |= _JUDGED
    fixed = _JOB.pack(job.number, flag, job.deliveries, len(head), len(queue))
    return fixed + queue + head + (body or b"")


def unpack_job(frame: bytes) -> Job:
    """The job of a frame; reads and removes the file of a spooled one."""
    if frame[_FLAG] == _SPOOLED:
        frame = _unspool(frame)
    number, flag, deliveries, size, width = _JOB.unpack_from(frame)
    start = _JOB.size + width
    body = None if flag & _FULL_ENVELOPE else frame[start + size :]
    head = frame[start : start + size]
    if flag & _JUDGED:
        at = _JOB.size + _SIZE.size
        end = at + _SIZE.unpack_from(frame, _JOB.size)[0]
        verdict = _decode_verdict(frame[at:end])
        queue = frame[end:start].decode()
        return Job(number, deliveries, head, body, queue, bool(flag & _LIMITED), verdict)
    return Job(
        number, deliveries, head, body, frame[_JOB.size : start].decode(), bool(flag & _LIMITED)
    )


def job_number(frame: bytes) -> int:
    """The number of a job's frame, without reading the rest."""
    return int.from_bytes(frame[:_FLAG], "little")


def pack_report(
    number: int, kind: int, runtime: float, payload: bytes, extra: Extra = SUCCEEDED
) -> bytes:
    """The frame of a report."""
    frame = _REPORT.pack(number, _INLINE, kind, runtime, len(payload)) + payload
    return frame if extra is SUCCEEDED else frame + _encode_extra(extra)


def unpack_report(frame: bytes) -> Report:
    """The report of a frame; reads and removes the file of a spooled one."""
    if frame[_FLAG] == _SPOOLED:
        frame = _unspool(frame)
    number, _, kind, runtime, size = _REPORT.unpack_from(frame)
    start = _REPORT.size
    end = start + size
    extra = SUCCEEDED if len(frame) == end else _decode_extra(frame[end:])
    return Report(number, _KINDS[kind], runtime, frame[start:end], extra)


def join(frames: Sequence[bytes]) -> list[bytes]:
    """Datagrams that carry several frames each, as few as hold them.

    :param frames: none longer than ``INLINE_LIMIT``.
    """
    datagrams: list[bytes] = []
    start = size = 0
    for number, frame in enumerate(frames):
        if size + len(frame) > INLINE_LIMIT and number > start:
            datagrams.append(_SEVERAL_HEAD + _encode_frames(frames[start:number]))
            start, size = number, 0
        size += len(frame) + _FRAME_HEAD
    datagrams.append(_SEVERAL_HEAD + _encode_frames(frames[start:]))
    return datagrams


def split(datagram: bytes) -> list[bytes]:
    """The frames of a datagram, which is one itself or was made by :func:`join`."""
    return [datagram] if datagram[_FLAG] != _SEVERAL else _decode_frames(datagram[_REST:])


def spool(frame: bytes, directories: Sequence[str]) -> bytes:
    """Write a frame into a file; the short frame that says where it is.

    :param directories: tried in this order.
    :raises MessageTooLarge: none has room for it.
    """
    name, problem = uuid.uuid4().hex, None
    for directory in directories:
        path = os.path.join(directory, name)
        try:
            with open(path, "wb") as file:
                file.write(frame)
        except OSError as exc:
            problem = exc
            with contextlib.suppress(OSError):
                os.unlink(path)
        else:
            return frame[:_FLAG] + bytes([_SPOOLED]) + os.fsencode(path)
    raise MessageTooLarge(f"{len(frame):,} bytes cannot be handed to another process: {problem}")


def discard(frame: bytes) -> None:
    """Remove the file of a frame that nobody is going to read."""
    if frame[_FLAG] == _SPOOLED:
        with contextlib.suppress(OSError):
            os.unlink(frame[_REST:])


def _unspool(frame: bytes) -> bytes:
    path = frame[_REST:]
    with open(path, "rb") as file:
        whole = file.read()
    os.unlink(path)
    return whole
