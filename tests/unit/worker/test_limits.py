"""Time limits as the hub enforces them."""

from __future__ import annotations

from typing import Any, cast

from chervil.drivers.contracts import Delivery
from chervil.worker.flight import Flight
from chervil.worker.limits import Limits, Place


class World:
    """Jobs with limits, where they run, and what was enforced."""

    def __init__(self) -> None:
        self.flights: dict[int, Flight] = {}
        self.places: dict[int, Place] = {}
        self.soft: list[int] = []
        self.hard: list[int] = []
        self.limits = Limits(
            self.flights,
            self.places.get,
            lambda flight, _place: self.soft.append(flight.number),
            lambda flight, _place: self.hard.append(flight.number),
        )

    def dispatch(self, number: int, now: float, soft: float = 0, hard: float = 0) -> None:
        delivery = Delivery(None, "q", b"", b"", 1)
        flight = Flight(
            number, delivery, str(number), cast("Any", None), "", False, now, soft, hard
        )
        self.flights[number] = flight
        self.limits.watch(flight)


def test_counts_from_the_start_not_from_the_dispatch() -> None:
    world = World()
    world.dispatch(1, now=100.0, soft=5.0)
    assert world.limits.next() == 105.0
    world.limits.check(105.0)
    assert world.soft == [], "it has not begun"
    world.places[1] = (0, 0, 104.0)
    world.limits.check(110.0)
    assert world.soft == [1]
    assert world.limits.next() is None


def test_begun_later_than_thought() -> None:
    world = World()
    world.dispatch(1, now=100.0, hard=5.0)
    world.places[1] = (0, 0, 103.0)
    world.limits.check(105.0)
    assert world.hard == []
    assert world.limits.next() == 108.0
    world.limits.check(108.0)
    assert world.hard == [1]


def test_soft_comes_before_hard_and_ended_jobs_are_left_alone() -> None:
    world = World()
    world.dispatch(1, now=0.0, soft=1.0, hard=2.0)
    world.dispatch(2, now=0.0, soft=1.0, hard=2.0)
    world.places.update({1: (0, 0, 0.0), 2: (0, 1, 0.0)})
    world.limits.check(1.0)
    assert world.soft == [1, 2]
    del world.flights[1]
    world.limits.check(2.0)
    assert world.hard == [2]


def test_does_not_grow_with_jobs_that_ended_in_time() -> None:
    world = World()
    for number in range(20_000):
        world.dispatch(number, now=float(number), soft=1e6, hard=1e6)
        del world.flights[number]
    assert len(world.limits._heap) < 5_000
