"""Crontab schedules, against a slow obvious reading of the rule."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chervil.exceptions import ImproperlyConfigured
from chervil.schedules import BaseSchedule, cron, crontab

UTC = dt.timezone.utc  # noqa: UP017
MINUTE = dt.timedelta(minutes=1)
#: With clocks moved by an hour, by half an hour, at midnight, not at all, and a day left out.
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Pacific/Apia",
    "UTC",
]


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


def firings(rule: BaseSchedule, start: dt.datetime, end: dt.datetime) -> Iterator[dt.datetime]:
    moment = rule.next_after(start)
    while moment is not None and moment < end:
        yield moment
        moment = rule.next_after(moment)


# --- the oracle: look at every minute


def matches(rule: crontab, wall: dt.datetime) -> bool:
    return (
        wall.minute in rule.minute
        and wall.hour in rule.hour
        and wall.day in rule.day_of_month
        and wall.month in rule.month_of_year
        and wall.isoweekday() % 7 in rule.day_of_week
    )


def by_looking(
    rule: crontab, zone: dt.tzinfo, start: dt.datetime, end: dt.datetime, fixed: bool
) -> list[dt.datetime]:
    found = set()
    if fixed:
        wall = (start.astimezone(zone) - dt.timedelta(days=2)).replace(
            tzinfo=None, second=0, microsecond=0
        )
        while wall < end.astimezone(zone).replace(tzinfo=None) + dt.timedelta(days=2):
            if matches(rule, wall):
                found.add(first_time_that_exists(wall, zone))
            wall += MINUTE
    else:
        moment = start.replace(second=0, microsecond=0)
        while moment < end:
            if matches(rule, moment.astimezone(zone)):
                found.add(moment)
            moment += MINUTE
    return sorted(moment for moment in found if start < moment < end)


def first_time_that_exists(wall: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    while True:
        moment = wall.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == wall:
            return moment
        wall += MINUTE


def transitions(zone: dt.tzinfo, year: int) -> list[dt.datetime]:
    found, moment = [], dt.datetime(year, 1, 1, tzinfo=UTC)
    while moment.year == year:
        later = moment + dt.timedelta(hours=1)
        if moment.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            found.append(moment)
        moment = later
    return found


hours = st.one_of(
    st.just("*"), st.just("*/2"), st.sets(st.integers(0, 4), min_size=1, max_size=3),
    st.sets(st.integers(0, 23), min_size=1, max_size=3),
)  # fmt: skip
minutes = st.one_of(
    st.just("*/20"), st.just("*"), st.sets(st.integers(0, 59), min_size=1, max_size=3)
)
days = st.one_of(st.just("*"), st.just("*"), st.sets(st.integers(0, 6), min_size=1))


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(ZONES), year=st.integers(2005, 2035), which=st.integers(0, 9),
    minute=minutes, hour=hours, day=days, second=st.integers(0, 59),
)  # fmt: skip
@example(
    zone="Europe/Berlin", year=2027, which=0, minute={30}, hour={2}, day="*", second=0,
)  # fmt: skip
@example(zone="Pacific/Apia", year=2011, which=3, minute={0}, hour={0}, day="*", second=0)
def test_around_moved_clocks(
    zone: str, year: int, which: int, minute: Any, hour: Any, day: Any, second: int
) -> None:
    tz = ZoneInfo(zone)
    moved = transitions(tz, year) or [dt.datetime(year, 6, 1, tzinfo=UTC)]
    middle = moved[which % len(moved)]
    start = middle - dt.timedelta(hours=30) + dt.timedelta(seconds=second)
    end = middle + dt.timedelta(hours=30)
    rule = crontab(minute, hour, day_of_week=day, tz=zone)
    fixed = not isinstance(minute, str) and not isinstance(hour, str)
    fixed = fixed and len(hour) < 24
    assert list(firings(rule, start, end)) == by_looking(rule, tz, start, end, fixed)


@settings(max_examples=40, deadline=None)
@given(
    start=st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2060, 1, 1), timezones=st.just(UTC)),
    month=st.sets(st.integers(1, 12), min_size=1, max_size=4),
    day=st.sets(st.integers(1, 28), min_size=1, max_size=5),
    weekday=st.sets(st.integers(0, 6), min_size=1, max_size=3),
)
def test_days_must_all_match(start: dt.datetime, month: Any, day: Any, weekday: Any) -> None:
    rule = crontab(0, 12, day_of_week=weekday, day_of_month=day, month_of_year=month)
    found = rule.next_after(start)
    assert found is not None
    expected = start.replace(hour=12, minute=0, second=0, microsecond=0)
    while expected <= start or not matches(rule, expected):
        expected += dt.timedelta(days=1)
    assert found == expected


def test_a_unix_crontab_takes_either_day() -> None:
    start = utc("2026-11-01")
    either = list(firings(cron("0 0 13 * fri"), start, utc("2026-12-01")))
    assert [moment.day for moment in either] == [6, 13, 20, 27]
    both = list(firings(crontab.from_string("0 0 13 * fri"), start, utc("2027-01-01")))
    assert [moment.date() for moment in both] == [dt.date(2026, 11, 13)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@daily", "2026-11-21T00:00"),
        ("@weekly", "2026-11-22T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("0 9 L * *", "2026-11-30T09:00"),
        ("0 9 * * fri#2", "2026-12-11T09:00"),
        ("0 0 29 feb *", "2028-02-29T00:00"),
    ],
)
def test_more_of_unix(expression: str, expected: str) -> None:
    assert cron(expression).next_after(utc("2026-11-20T13:00")) == utc(expected)


def test_hours_over_midnight_and_names() -> None:
    rule = crontab(0, "22-2", day_of_week="sat,sunday", month_of_year="November")
    assert rule.hour == {22, 23, 0, 1, 2}
    assert rule.day_of_week == {6, 0}
    assert rule.month_of_year == {11}
    assert crontab(day_of_week="fri-sun").day_of_week == {5, 6, 0}
    assert crontab(day_of_week="5-7").day_of_week == {5, 6, 0}
    assert crontab(minute="10-20/5,40").minute == {10, 15, 20, 40}
    assert crontab(day_of_month="*/10").day_of_month == {1, 11, 21, 31}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"minute": 60}, "minute=60"),
        ({"minute": -1}, "minute=-1"),
        ({"hour": "24"}, "24 is not within 0 to 23"),
        ({"hour": ""}, "hour=''"),
        ({"hour": "1-"}, "'1-'"),
        ({"minute": "*/0"}, "at least 1"),
        ({"minute": []}, "nothing"),
        ({"minute": 1.5}, "minute=1.5"),
        ({"minute": True}, "minute=True"),
        ({"day_of_week": "someday"}, "someday"),
        ({"day_of_month": 31, "month_of_year": "feb,apr"}, "day-of-month"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=says.replace("*", r"\*")):
        crontab(**fields)


@pytest.mark.parametrize(
    "text", ["", "* * * *", "61 * * * *", "* * * * * * *", "@never", "a b c d e"]
)
def test_wrong_expressions(text: str) -> None:
    with pytest.raises(ImproperlyConfigured):
        cron(text)


def test_from_string_names_the_fields() -> None:
    with pytest.raises(ImproperlyConfigured, match="needs 5: minute, hour"):
        crontab.from_string("* * *")


def test_in_words() -> None:
    rule = crontab(30, 9, "mon-fri", tz="Europe/Berlin")
    assert rule.words() == "at 09:30 on Monday through Friday, Europe/Berlin"
    assert repr(rule) == "<crontab: 30 9 * * mon-fri (m/h/dM/MY/d)>"
    assert "when both match" in crontab(0, 0, "fri", 13).words()
