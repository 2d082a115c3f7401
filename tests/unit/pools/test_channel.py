"""The run queue and the reports."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from chervil.pools.channel import Channel
from chervil.pools.frames import (
    INLINE_LIMIT,
    Job,
    Kind,
    pack_job,
    pack_report,
    unpack_job,
    unpack_report,
)
from chervil.pools.page import Page
from chervil.pools.private import PrivateDirectory


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.close()


def frame(number: int, size: int = 10) -> bytes:
    return pack_job(Job(number, 1, b"h", b"x" * size))


def take(channel: Channel) -> bytes:
    return channel.taker().take(memoryview(bytearray(8)))


def take_now(channel: Channel) -> bytes | None:
    return channel.taker().take_now(memoryview(bytearray(8)))


def test_the_number_of_a_job_is_in_the_page_when_it_is_off_the_queue(channel: Channel) -> None:
    """Also of a process that got no further than that."""
    page = Page(1, 2)
    channel.put(frame(77))
    channel.put(frame(78))
    pid = os.fork()
    if pid == 0:
        taker = channel.taker()
        taker.take(page.place(0, 0))
        taker.take_now(page.place(0, 1))
        os._exit(0)
    os.waitpid(pid, 0)
    assert page.running(0) == {77: (0, 0.0, 0), 78: (1, 0.0, 0)}
    assert channel.take_back() == []
    page.close()


def test_in_order_and_each_once(channel: Channel) -> None:
    frames = [frame(number) for number in range(50)]
    assert all(channel.put(f) for f in frames)
    assert [take(channel) for _ in range(50)] == frames
    assert take_now(channel) is None


def test_a_job_goes_to_one_process_only(channel: Channel) -> None:
    for number in range(1, 201):
        assert channel.put(frame(number))
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            while (taken := take_now(channel)) is not None:
                channel.report(pack_report(unpack_job(taken).number, Kind.IGNORED, 0.0, b""))
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    numbers = [int.from_bytes(report[:8], "little") for report in channel.reports()]
    assert sorted(numbers) == list(range(1, 201))


def test_the_hub_takes_back_what_nobody_took(channel: Channel) -> None:
    frames = [frame(number) for number in range(10)]
    for f in frames:
        channel.put(f)
    assert take(channel) == frames[0]
    assert channel.take_back() == frames[1:]
    assert channel.take_back() == []


def test_a_full_queue_refuses_and_loses_nothing(channel: Channel) -> None:
    sent = []
    for number in range(100_000):
        f = frame(number, 20_000)
        if not channel.put(f):
            break
        sent.append(f)
    assert 10 < len(sent) < 100_000
    assert channel.take_back() == sent


def test_large_jobs_and_reports(channel: Channel) -> None:
    large = frame(1, INLINE_LIMIT * 100)
    assert channel.put(channel.pack(large))
    assert unpack_job(take(channel)) == unpack_job(large)
    channel.report(pack_report(1, Kind.ENDED, 0.0, b"y" * INLINE_LIMIT * 10))
    assert len(channel.reports()) == 1


def test_reports_handed_in_together(channel: Channel) -> None:
    frames = [
        channel.pack(pack_report(number, Kind.ENDED, 0.0, b"y" * size))
        for number, size in enumerate([10, INLINE_LIMIT - 50, 20, INLINE_LIMIT * 2, 30], 1)
    ]
    channel.report_all(frames[:1])
    channel.report_all(frames[1:])
    assert [unpack_report(frame).number for frame in channel.reports()] == [1, 2, 3, 4, 5]


def test_the_end_reaches_the_executors(channel: Channel) -> None:
    channel.put(frame(1))
    channel.close_jobs()
    assert take(channel) == frame(1), "what was sent before the end still comes"
    assert take(channel) == b""
    assert take_now(channel) == b""


def test_directories_of_killed_nodes_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chervil.pools.private._GRACE_SECONDS", -1.0)
    out, back = os.pipe()
    pid = os.fork()
    if pid == 0:
        directory = PrivateDirectory(tempfile.gettempdir())
        os.write(back, directory.path.encode())
        os._exit(0)  # without close, as after a kill
    os.waitpid(pid, 0)
    left = os.read(out, 4096).decode()
    os.close(out)
    os.close(back)
    assert os.path.isdir(left)
    alive = PrivateDirectory(tempfile.gettempdir())
    mine = PrivateDirectory(tempfile.gettempdir())
    assert not os.path.exists(left)
    assert os.path.isdir(alive.path), "its owner lives"
    for directory in (alive, mine):
        directory.close()
        assert not os.path.exists(directory.path)
