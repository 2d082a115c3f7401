"""Frames between hub and executors."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from chervil.pools.frames import (
    SUCCEEDED,
    Extra,
    Job,
    Kind,
    job_number,
    pack_job,
    pack_report,
    spool,
    unpack_job,
    unpack_report,
)
from chervil.wire.message import Message

numbers = st.integers(min_value=1, max_value=2**64 - 1)


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
