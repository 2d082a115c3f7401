"""How much a node claims."""

from __future__ import annotations

from chervil.worker.appetite import AHEAD_SECONDS, MOST_AHEAD, Appetite


def test_begins_with_what_can_start_at_once() -> None:
    assert Appetite(4).allowed == 4


def test_short_tasks_get_a_large_surplus_long_ones_none() -> None:
    short, long = Appetite(2), Appetite(2)
    for _ in range(100):
        short.ran(0.00001 * 50, 50)
        long.ran(3.0, 1)
    assert short.allowed == 2 + MOST_AHEAD
    assert long.allowed == 2


def test_the_surplus_is_worth_a_fixed_time() -> None:
    appetite = Appetite(10)
    for _ in range(200):
        appetite.ran(0.002 * 10, 10)
    waiting = (appetite.allowed - 10) * 0.002 / 10
    assert waiting <= AHEAD_SECONDS
    assert waiting > AHEAD_SECONDS / 2


def test_given_back_surplus_is_not_claimed_again_at_once() -> None:
    appetite = Appetite(2)
    appetite.ran(0.0001 * 100, 100)
    assert appetite.allowed > 2
    appetite.waited()
    assert appetite.allowed == 2


def test_multiplier_is_the_most_a_slot_holds() -> None:
    one = Appetite(8, multiplier=1)
    one.ran(0.00001 * 1000, 1000)
    assert one.allowed == 8
    four = Appetite(8, multiplier=4)
    four.ran(0.00001 * 1000, 1000)
    assert four.allowed == 32
