"""The benchmark's arithmetic: rates from samples, goals from values."""

from __future__ import annotations

import pytest

from bench.core import BARE, CHERVIL, Goal, Value
from bench.procs import BenchError
from bench.setup import rate_between


def test_a_rate_is_measured_between_a_tenth_and_nine_tenths() -> None:
    # 100 tasks/s with a slow start and a slow end, which must not count.
    samples = [(0.0, 0), (5.0, 50), (9.0, 450), (14.0, 500)]
    assert rate_between(samples, 500) == pytest.approx(100)


def test_a_rate_is_interpolated_between_samples() -> None:
    assert rate_between([(0.0, 0), (10.0, 1000)], 1000) == pytest.approx(100)


def test_counts_that_jump_from_nothing_to_all_in_one_sample_are_interpolated_too() -> None:
    assert rate_between([(0.0, 0), (1.0, 0), (2.0, 400), (3.0, 400)], 400) == pytest.approx(400)


def test_too_few_results_give_no_rate() -> None:
    with pytest.raises(BenchError, match="too few results"):
        rate_between([(0.0, 0), (1.0, 10)], 1000)


@pytest.mark.parametrize(
    ("goal", "mine", "met"),
    [
        (Goal("at least", 30_000), 30_000, True),
        (Goal("at least", 30_000), 29_999, False),
        (Goal("at most", 0.6), 0.6, True),
        (Goal("at most", 0.6), 0.7, False),
        (Goal("at least", 0.3, BARE), 3000, True),
        (Goal("at least", 0.3, BARE), 2999, False),
        (Goal("at least", 8, "Huey"), 8000, None),
    ],
)
def test_goals(goal: Goal, mine: float, met: bool | None) -> None:
    assert goal.met({CHERVIL: Value([mine]), BARE: Value([10_000])}) is met


def test_a_goal_without_our_value_is_not_known() -> None:
    assert Goal("at least", 1).met({BARE: Value([1])}) is None


def test_the_median_counts() -> None:
    assert Goal("at least", 10).met({CHERVIL: Value([1, 11, 12])}) is True
