"""The page of shared memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from chervil.pools.page import Page


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page(3, 4)
    yield page
    page.close()


def test_enter_read_leave(page: Page) -> None:
    page.enter(1, 2, 77, 12.5, thread=5)
    assert page.read(1, 2) == (77, 12.5, 5)
    assert page.running(1) == {77: (2, 12.5, 5)}
    assert page.running(0) == page.running(2) == {}
    page.leave(1, 2)
    assert page.running(1) == {}


def test_interrupt_is_for_one_job_only(page: Page) -> None:
    page.enter(0, 0, 5, 1.0)
    page.interrupt(0, 0, 5)
    assert page.interrupted(0, 0)
    page.leave(0, 0)
    assert not page.interrupted(0, 0)
    page.enter(0, 0, 6, 1.0)
    assert not page.interrupted(0, 0)


def test_clear_touches_one_row(page: Page) -> None:
    for executor in range(3):
        page.enter(executor, 3, 10 + executor, 1.0)
    page.clear(1)
    assert page.running(1) == {}
    assert list(page.running(0)) == [10]
    assert list(page.running(2)) == [12]


def test_is_shared_with_a_forked_process(page: Page) -> None:
    pid = os.fork()
    if pid == 0:
        page.enter(2, 0, 1234, 9.0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert page.read(2, 0)[0] == 1234
