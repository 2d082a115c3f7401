"""Intervals, single moments, the sun, calendars; and all of them as values."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from typing import Any

import pytest

from chervil.clock import ManualClock, using
from chervil.exceptions import ImproperlyConfigured
from chervil.schedules import (
    BaseSchedule,
    Calendar,
    clocked,
    cron,
    crontab,
    from_dict,
    maybe_schedule,
    schedule,
    solar,
    to_dict,
)

UTC = dt.timezone.utc  # noqa: UP017
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=UTC)


def after(seconds: float) -> dt.datetime:
    return NOON + dt.timedelta(seconds=seconds)


def test_an_interval_counts_from_the_time_before() -> None:
    assert schedule(30).next_after(after(7)) == after(37)
    assert schedule(dt.timedelta(hours=2)).next_after(NOON) == after(7200)
    assert schedule(0.25).next_after(NOON) == after(0.25)


@pytest.mark.parametrize(
    ("every", "at", "due"),
    [
        (3600, "12:17:05", "13:00:00"),
        (60, "12:17:05", "12:18:00"),
        (7200, "12:17:05", "14:00:00"),
        (10, "12:17:05", "12:17:15"),
    ],
)
def test_a_relative_interval_is_rounded(every: float, at: str, due: str) -> None:
    day = "2026-11-20T"
    moment = dt.datetime.fromisoformat(f"{day}{at}+00:00")
    found = schedule(every, relative=True).next_after(moment)
    assert found == dt.datetime.fromisoformat(f"{day}{due}+00:00")


def test_a_relative_day_ends_at_the_zone_s_midnight() -> None:
    rule = schedule(86400, relative=True, tz="Asia/Kolkata")
    assert rule.next_after(NOON) == dt.datetime(2026, 11, 20, 18, 30, tzinfo=UTC)


def test_a_day_is_24_hours_where_clocks_are_moved() -> None:
    before = dt.datetime(2027, 3, 27, 12, tzinfo=UTC)
    assert schedule(86400, tz="Europe/Berlin").next_after(before) == before + dt.timedelta(days=1)


@pytest.mark.parametrize("wrong", [0, -1, "5", None, True, float("nan"), float("inf")])
def test_wrong_intervals(wrong: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="run_every="):
        schedule(wrong)


def test_a_single_moment() -> None:
    rule = clocked("2027-01-01T00:00:00", tz="America/New_York")
    assert rule.next_after(NOON) == dt.datetime(2027, 1, 1, 5, tzinfo=UTC)
    assert rule.next_after(dt.datetime(2027, 1, 1, 5, tzinfo=UTC)) is None
    with pytest.raises(ImproperlyConfigured, match="ISO 8601"):
        clocked("tomorrow")


def test_the_sun() -> None:
    # United States Naval Observatory: Greenwich, 20 March 2026: rise 06:03, noon 12:08, set 18:13.
    day = dt.datetime(2026, 3, 20, tzinfo=UTC)
    for event, expected in (("sunrise", "06:03"), ("solar_noon", "12:08"), ("sunset", "18:13")):
        found = solar(event, 51.48, 0.0).next_after(day)
        assert found is not None
        minutes = int(expected[:2]) * 60 + int(expected[3:])
        assert abs((found - day).total_seconds() / 60 - minutes) < 2, event


def test_no_sunset_in_the_polar_day() -> None:
    found = solar("sunset", 78.2, 15.6).next_after(dt.datetime(2026, 5, 15, tzinfo=UTC))
    assert found is not None
    assert found.month == 8
    assert solar("sunrise", 89.9, 0).next_after(NOON) is not None


@pytest.mark.parametrize("wrong", [("noon", 0, 0), ("sunset", 91, 0), ("sunset", 0, "east")])
def test_wrong_places(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ImproperlyConfigured):
        solar(*wrong)


def test_the_order_of_twilights() -> None:
    names = [
        "dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon",
        "sunset", "dusk_civil", "dusk_nautical", "dusk_astronomical",
    ]  # fmt: skip
    day = dt.datetime(2026, 3, 20, tzinfo=UTC)
    found = [solar(name, 51.48, 0.0).next_after(day) for name in names]
    assert found == sorted(found, key=str)
    assert len(set(found)) == len(names)


# --- Celery's questions


def test_is_due() -> None:
    with using(ManualClock(NOON.timestamp())):
        assert schedule(60).is_due(after(-61)) == (True, 60.0)
        assert schedule(60).is_due(after(-20)) == (False, 40.0)
        assert schedule(60).remaining_estimate(after(-20)) == dt.timedelta(seconds=40)
        assert clocked(after(-1)).is_due(after(-5)).is_due
        assert not clocked(after(-5)).is_due(after(-1)).is_due


def test_a_schedule_written_for_celery() -> None:
    class AtNoon(BaseSchedule):
        def remaining_estimate(self, last_run_at: dt.datetime) -> dt.timedelta:
            return dt.timedelta(seconds=90)

    with using(ManualClock(NOON.timestamp())):
        assert AtNoon().next_after(after(-5)) == after(90)
        with pytest.raises(ImproperlyConfigured, match="kind"):
            to_dict(AtNoon())


# --- as values

ALL = [
    schedule(30),
    schedule(3600, relative=True, tz="Europe/Berlin"),
    crontab("*/5", [1, 2], "mon"),
    crontab(tz="Asia/Tokyo"),
    cron("@daily"),
    solar("sunset", 1.5, -2),
    clocked(NOON),
    clocked("2027-01-01T00:00", tz="UTC"),
]


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_stored_and_back(rule: BaseSchedule) -> None:
    stored = json.loads(json.dumps(to_dict(rule)))
    again = from_dict(stored)
    assert again == rule
    assert hash(again) == hash(rule)
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert again.next_after(NOON) == rule.next_after(NOON)
    assert rule.words()


def test_all_differ() -> None:
    assert len(set(ALL)) == len(ALL)
    assert schedule(30) != schedule(31)
    assert schedule(30) != 30


def test_what_may_be_written_for_a_schedule() -> None:
    assert maybe_schedule(5) == schedule(5)
    assert maybe_schedule(dt.timedelta(minutes=1)) == schedule(60)
    assert maybe_schedule("0 5 * * *") == cron("0 5 * * *")
    assert maybe_schedule(NOON) == clocked(NOON)
    assert maybe_schedule(to_dict(ALL[2])) == ALL[2]
    assert maybe_schedule(ALL[2]) is ALL[2]
    assert maybe_schedule("@daily", tz="UTC") == cron("@daily", tz="UTC")


@pytest.mark.parametrize(
    "wrong", [None, True, object(), {"type": "lunar"}, {"type": "interval", "every": 5}, {}]
)
def test_what_is_no_schedule(wrong: Any) -> None:
    with pytest.raises(ImproperlyConfigured):
        maybe_schedule(wrong)


def test_the_zone_of_who_asks() -> None:
    from zoneinfo import ZoneInfo

    rule = crontab(0, 9)
    assert rule.next_after(NOON) == dt.datetime(2026, 11, 21, 9, tzinfo=UTC)
    assert rule.next_after(NOON, ZoneInfo("Asia/Tokyo")) == dt.datetime(2026, 11, 21, tzinfo=UTC)


# --- calendars


def test_calendar() -> None:
    calendar = Calendar(["2026-11-20", "12-25"], ["sat", 0])
    assert calendar.excludes(NOON)
    assert calendar.excludes(dt.datetime(2029, 12, 25, tzinfo=UTC))
    assert calendar.excludes(dt.datetime(2026, 11, 22, tzinfo=UTC))  # a Sunday
    assert not calendar.excludes(dt.datetime(2026, 11, 23, tzinfo=UTC))
    assert Calendar(**calendar.to_dict()) == calendar
    assert Calendar(check=lambda due: due.hour == 12).excludes(NOON)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dates": ["2026-02-30"]},
        {"dates": ["02-30"]},
        {"dates": [5]},
        {"weekdays": ["x"]},
        {"weekdays": range(7)},
        {"check": 5},
    ],
)
def test_wrong_calendars(wrong: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured):
        Calendar(**wrong)
