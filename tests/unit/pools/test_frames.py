"""Frames between hub and executors."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from chervil.pools.frames import (
    INLINE_LIMIT,
    SUCCEEDED,
    Extra,
    Job,
    Kind,
    discard,
    job_number,
    join,
    pack_job,
    pack_report,
    split,
    spool,
    unpack_job,
    unpack_report,
)
from chervil.wire.message import Message

numbers = st.integers(min_value=1, max_value=2**64 - 1)


@given(st.lists(st.tuples(numbers, st.integers(0, INLINE_LIMIT - 100)), min_size=1, max_size=30))
def test_frames_share_datagrams(sizes: list[tuple[int, int]]) -> None:
    frames = [pack_report(number, Kind.ENDED, 1.5, b"x" * size) for number, size in sizes]
    datagrams = join(frames)
    assert [frame for datagram in datagrams for frame in split(datagram)] == frames
    assert max(map(len, datagrams)) <= INLINE_LIMIT + 100
    assert len(datagrams) == 1 or sum(map(len, datagrams)) > INLINE_LIMIT


@given(numbers, st.binary(max_size=100))
def test_a_frame_alone_is_its_own_datagram(number: int, payload: bytes) -> None:
    for frame in (
        pack_report(number, Kind.ENDED, 1.5, payload),
        pack_job(Job(number, 1, b"h", None, "q", True)),
        spool(b"\0" + number.to_bytes(8, "little"), [tempfile.gettempdir()]),
    ):
        assert split(frame) == [frame]
        discard(frame)


@given(
    numbers,
    st.integers(1, 2**32 - 1),
    st.binary(),
    st.none() | st.binary(),
    st.text(max_size=99),
    st.booleans(),
)
def test_job_survives(
    number: int, deliveries: int, head: bytes, body: bytes | None, queue: str, limited: bool
) -> None:
    job = Job(number, deliveries, head, body, queue, limited)
    frame = pack_job(job)
    assert unpack_job(frame) == job
    assert job_number(frame) == number


@given(numbers, st.sampled_from(Kind), st.floats(0, 1e9), st.binary(), st.text(), st.text())
def test_report_survives(
    number: int, kind: Kind, runtime: float, payload: bytes, reason: str, detail: str
) -> None:
    follow = Message({"id": "1", "task": "t"}, b"[]", "application/json", "utf-8", "q", due=1.5)
    extra = Extra("FAILURE", [follow], reason, detail)
    report = unpack_report(pack_report(number, kind, runtime, payload, extra))
    assert (report.number, report.kind, report.runtime) == (number, kind, runtime)
    assert report.payload == payload
    assert report.extra == extra


def test_usual_report_has_no_extra() -> None:
    frame = pack_report(7, Kind.ENDED, 0.25, b"{}")
    assert unpack_report(frame).extra is SUCCEEDED
    assert len(frame) < 40


def test_large_frames_go_through_a_file(tmp_path: Path) -> None:
    job = Job(99, 3, b"head" * 10_000, os.urandom(1_000_000))
    short = spool(pack_job(job), [str(tmp_path)])
    assert len(short) < 200
    assert job_number(short) == 99
    assert unpack_job(short) == job
    assert list(tmp_path.iterdir()) == [], "read once, then gone"

    payload = os.urandom(1_000_000)
    short = spool(pack_report(98, Kind.ENDED, 1.0, payload), [str(tmp_path)])
    assert unpack_report(short).payload == payload
    assert list(tmp_path.iterdir()) == []
