"""Time, real and moved by hand."""

from __future__ import annotations

import time

import pytest

from chervil import clock


def test_the_system_clock_is_in_use() -> None:
    assert clock.now is time.time
    assert clock.monotonic is time.monotonic
    assert abs(clock.SYSTEM.now() - time.time()) < 5
    assert clock.SYSTEM.monotonic() <= time.monotonic()


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    manual = clock.ManualClock(now=1000.0)
    with clock.using(manual) as used:
        assert used is manual
        assert (clock.now(), clock.monotonic()) == (1000.0, 0.0)
        manual.advance(2.5)
        assert (clock.now(), clock.monotonic()) == (1002.5, 2.5)
        manual.jump(500.0)
        assert (clock.now(), clock.monotonic()) == (500.0, 2.5)
    assert clock.now is time.time


def test_using_puts_the_former_clock_back_after_an_error() -> None:
    outer = clock.ManualClock(now=1.0)
    with clock.using(outer):
        with pytest.raises(KeyError), clock.using(clock.ManualClock(now=2.0)):
            raise KeyError
        assert clock.now() == 1.0


def test_install_lasts_until_the_system_clock_is_back() -> None:
    try:
        clock.install(clock.ManualClock(now=7.0))
        assert clock.now() == 7.0
    finally:
        clock.install(clock.SYSTEM)
    assert clock.now is time.time
    assert clock.monotonic is time.monotonic


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="jump"):
        clock.ManualClock().advance(-1)
