"""Ids: valid, and never twice."""

from __future__ import annotations

import os
import threading
import time
import uuid

import pytest

from chervil import ids
from chervil.ids import new_id, new_ids


def test_ids_are_uuids_of_version_7() -> None:
    for text in [new_id() for _ in range(600)] + new_ids(600):
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


@pytest.mark.parametrize("make", [new_id, lambda: new_ids(1)[0]])
def test_they_begin_with_the_time_in_milliseconds(make) -> None:  # type: ignore[no-untyped-def]
    before = int(time.time() * 1000)
    parsed = uuid.UUID(make())
    assert before <= parsed.int >> 80 <= int(time.time() * 1000)


def test_all_other_bits_are_random() -> None:
    ones = [0] * 128
    count = 4000
    for text in new_ids(count // 2) + [new_id() for _ in range(count // 2)]:
        value = uuid.UUID(text).int
        for bit in range(128):
            ones[bit] += value >> bit & 1
    fixed = {*range(80, 128), *range(76, 80), 62, 63}  # time, version, variant
    for bit in set(range(128)) - fixed:
        # Twelve standard deviations.
        assert abs(ones[bit] - count / 2) < 12 * (count**0.5) / 2, f"bit {bit}"


def test_new_ids_gives_as_many_as_asked_for() -> None:
    assert new_ids(0) == []
    assert len(set(new_ids(1000))) == 1000


def test_threads_never_get_the_same_id() -> None:
    found: list[list[str]] = []

    def work() -> None:
        found.append([new_id() for _ in range(5000)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({text for part in found for text in part}) == 8 * 5000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_does_not_repeat_its_parent() -> None:
    new_id()
    assert ids._tails, "the parent holds random bits that a child could repeat"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, " ".join(new_id() for _ in range(300)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        childs = pipe.read().decode().split()
    os.waitpid(pid, 0)
    assert len(childs) == 300
    tails = {text[14:] for text in childs}
    assert not tails & {new_id()[14:] for _ in range(300)}
