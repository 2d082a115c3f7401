"""Delays before the next attempt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.backoff import Backoff, exponential_backoff


@pytest.mark.parametrize(
    ("factor", "retries", "maximum", "delay"),
    [
        (1, 0, 600, 1),
        (1, 3, 600, 8),
        (4, 3, 600, 32),
        (10, 10, 600, 600),
        (0, 5, 600, 0),
        (-3, 2, 600, 0),
        (1, 3, -5, 0),
        (1, 10_000, 600, 600),
        (0.5, 5_000, 600, 600),
        (0.25, 1, 600, 0.5),
    ],
)
def test_the_delay_doubles_up_to_the_maximum(
    factor: float, retries: int, maximum: float, delay: float
) -> None:
    assert exponential_backoff(factor, retries, maximum) == delay


def test_whole_numbers_stay_whole() -> None:
    assert type(exponential_backoff(2, 3, 600)) is int
    assert type(exponential_backoff(2, 3, 600, full_jitter=True)) is int


@given(
    factor=st.integers(0, 1000) | st.floats(0, 1000),
    retries=st.integers(0, 3000),
    maximum=st.integers(0, 10_000),
)
def test_jitter_stays_between_nothing_and_the_delay(
    factor: float, retries: int, maximum: int
) -> None:
    delay = exponential_backoff(factor, retries, maximum)
    assert 0 <= delay <= maximum
    assert 0 <= exponential_backoff(factor, retries, maximum, full_jitter=True) <= delay


def test_full_jitter_reaches_both_ends_and_the_middle() -> None:
    drawn = {exponential_backoff(1, 2, 600, full_jitter=True) for _ in range(1000)}
    assert drawn == {0, 1, 2, 3, 4}


def test_reconnecting_waits_longer_each_time_and_starts_over() -> None:
    backoff = Backoff(base=0.5, cap=3, jitter=0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    assert backoff.attempts == 5
    backoff.reset()
    assert backoff.next() == 0.5


@given(base=st.floats(0.001, 10), jitter=st.floats(0, 1), attempts=st.integers(1, 80))
def test_jitter_takes_only_its_share(base: float, jitter: float, attempts: int) -> None:
    backoff, exact = Backoff(base, 60, jitter), Backoff(base, 60, 0)
    for _ in range(attempts):
        full, delay = exact.next(), backoff.next()
        assert full * (1 - jitter) - 1e-9 <= delay <= full <= 60


@pytest.mark.parametrize("arguments", [(0, 1, 0), (2, 1, 0), (1, 2, -0.1), (1, 2, 1.1)])
def test_arguments_out_of_range(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"must be|need"):
        Backoff(*arguments)
