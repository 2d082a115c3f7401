"""Due times with start, end and calendar, against walking from one to the next."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chervil.beat.missed import AT_ONCE, GRACE, decide
from chervil.beat.rule import Rule, firing_id, moment, spread
from chervil.schedules import BaseSchedule, Calendar, clocked, cron, crontab, schedule
from chervil.schedules.base import UTC

BERLIN = ZoneInfo("Europe/Berlin")
#: 2026-03-28 12:00 UTC, a Saturday; in the night clocks are moved.
BEGIN = 1774699200.0

rules = st.builds(
    Rule,
    st.sampled_from(
        [
            schedule(97),
            schedule(0.25),
            schedule(7200, relative=True),
            crontab(minute="*/20"),
            crontab(minute="30", hour="2"),
            cron("15 9-17 * * mon-fri"),
            cron("0 0 1,15 * *"),
        ]
    ),
    st.sampled_from([UTC, BERLIN]),
    exclude=st.sampled_from([None, Calendar(weekdays=["sun"]), Calendar(dates=["2026-03-30"])]),
)


def walk(rule: Rule, due: float, until: float) -> list[float]:
    """All due times from ``due`` to ``until``, one after the other."""
    found: list[float] = []
    at: float | None = due
    while at is not None and at <= until:
        found.append(at)
        at = rule.after(at)
    return found


@settings(max_examples=150, deadline=None)
@given(rules, st.floats(0, 4 * 86400), st.floats(0, 1.5))
def test_the_last_due_time_is_found(rule: Rule, offset: float, far: float) -> None:
    due = rule.first(BEGIN + offset)
    assert due is not None
    until = due + far * (60 if rule.every and rule.every < 1 else 86400)
    assert rule.latest(due, until) == walk(rule, due, until)[-1]


@settings(max_examples=150, deadline=None)
@given(rules, st.floats(0, 86400), st.integers(0, 60_000))
def test_the_first_due_time_from_a_moment_on_is_found(rule: Rule, offset: float, far: int) -> None:
    due = rule.first(BEGIN + offset)
    assert due is not None
    oldest = due + far / 100
    expected = due
    while expected < oldest - 1e-6:
        expected = rule.after(expected) or 0.0
    assert rule.since(due, oldest) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    rules,
    st.sampled_from(["skip", "once", "all"]),
    st.sampled_from([None, 0.0, 120.0, 3600.0]),
    st.floats(0, 86400),
)
def test_what_was_missed_is_decided_as_documented(
    rule: Rule, missed: str, window: float | None, late: float
) -> None:
    due = rule.first(BEGIN)
    assert due is not None
    now = due + (late / 1000 if rule.every and rule.every < 1 else late)
    passed = walk(rule, due, now)
    limit = {"skip": GRACE, "once": window, "all": 86400.0 if window is None else window}[missed]
    young = [at for at in passed if limit is None or at >= now - max(limit, GRACE)]
    if missed == "all":
        expected = young[:AT_ONCE]
    else:
        expected = [at for at in passed[-1:] if at in young]
    dues, following = decide(rule, missed, window, due, now)
    assert dues == pytest.approx(expected, abs=1e-5)
    last = expected[-1] if missed == "all" and expected else passed[-1]
    assert following == pytest.approx(rule.after(last), abs=1e-5)


def test_an_interval_is_counted_from_its_start() -> None:
    rule = Rule(schedule(600), UTC, start=BEGIN + 30)
    assert rule.first(BEGIN) == BEGIN + 30
    assert rule.first(BEGIN + 30) == BEGIN + 630
    assert rule.first(BEGIN + 6000) == BEGIN + 6030
    assert rule.from_now(BEGIN + 30, BEGIN + 100) == BEGIN + 630


def test_other_schedules_begin_with_the_start() -> None:
    rule = Rule(crontab(minute="0"), UTC, start=BEGIN + 3600)
    assert rule.first(BEGIN) == BEGIN + 3600
    assert rule.first(BEGIN + 3600) == BEGIN + 7200


def test_nothing_is_due_after_the_end() -> None:
    rule = Rule(schedule(10), UTC, end=BEGIN + 20)
    assert walk(rule, BEGIN + 10, BEGIN + 1000) == [BEGIN + 10, BEGIN + 20]
    assert rule.after(BEGIN + 20) is None
    assert rule.first(BEGIN + 20) is None


def test_a_single_moment_comes_once() -> None:
    rule = Rule(clocked(moment(BEGIN + 5)), UTC)
    assert rule.first(BEGIN) == BEGIN + 5
    assert rule.after(BEGIN + 5) is None
    assert rule.from_now(BEGIN + 5, BEGIN + 6) is None


def test_a_calendar_is_read_in_the_zone() -> None:
    """Saturday 23:30 UTC is Sunday in Berlin."""
    saturday = dt.datetime(2026, 1, 3, 23, 30, tzinfo=UTC).timestamp()
    hourly: BaseSchedule = cron("30 * * * *")
    no_sundays = Calendar(weekdays=["sun"])
    assert Rule(hourly, UTC, exclude=no_sundays).after(saturday - 60) == saturday
    following = Rule(hourly, BERLIN, exclude=no_sundays).after(saturday - 60)
    assert following == dt.datetime(2026, 1, 4, 23, 30, tzinfo=UTC).timestamp()


def test_a_calendar_that_leaves_out_everything_ends_the_search() -> None:
    rule = Rule(schedule(3600), UTC, exclude=Calendar(check=lambda due: True))
    assert rule.after(BEGIN) is None


def test_ids_follow_from_entry_and_due_time() -> None:
    first = firing_id("book", "a", BEGIN)
    assert first == firing_id("book", "a", BEGIN)
    assert len({first, *(firing_id(b, n, d) for b, n, d in (
        ("other", "a", BEGIN), ("book", "b", BEGIN), ("book", "a", BEGIN + 1e-6),
    ))}) == 4  # fmt: skip
    assert (len(first), first[14], first[19] in "89ab") == (36, "8", True)
    assert int(first[:8] + first[9:13], 16) == int(BEGIN * 1000)


def test_jitter_stays_in_its_bounds_and_is_the_same_each_time() -> None:
    found = [spread("a", BEGIN + number, 10.0) for number in range(200)]
    assert found == [spread("a", BEGIN + number, 10.0) for number in range(200)]
    assert all(0 <= value < 10 for value in found)
    assert min(found) < 1 < 9 < max(found)
    assert spread("a", BEGIN, 0.0) == 0.0
