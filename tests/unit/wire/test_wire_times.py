"""Times in messages."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.exceptions import DecodeError, EncodeError
from chervil.wire import times

WARSAW = ZoneInfo("Europe/Warsaw")


@pytest.mark.parametrize(
    ("text", "tz", "expected"),
    [
        ("2030-01-02T03:04:05.678901+00:00", None, 1893553445.678901),
        ("2030-01-02T03:04:05Z", None, 1893553445.0),
        ("2030-01-02T03:04:05Z", WARSAW, 1893553445.0),
        ("2030-01-02T03:04:05", None, 1893553445.0),
        ("2030-01-02T03:04:05", WARSAW, 1893549845.0),
        ("2030-01-02T03:04:05+02:00", WARSAW, 1893546245.0),
        ("2030-01-02 03:04:05", None, 1893553445.0),
        ("2030-01-02", None, 1893542400.0),
        ("2030-01-02T03:04:05.123456789Z", None, 1893553445.123456),
    ],
)
def test_forms(text: str, tz: dt.tzinfo | None, expected: float) -> None:
    assert times.parse_time(text, tz) == expected


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "",
        None,
        5,
        5.0,
        b"2030-01-02",
        [],
        "0001-01-01T00:00:00+23:59x",
        "2030-13-01",
        "2030-01-02T03:04:05 CET",
    ],
)
def test_junk(text: Any) -> None:
    with pytest.raises(DecodeError, match="is not a time in ISO 8601"):
        times.parse_time(text)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert isinstance(times.parse_time(text), float)
    except DecodeError:
        pass


@given(st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC)))
def test_round_trip(moment: dt.datetime) -> None:
    text = times.format_time(moment.timestamp())
    assert abs(times.parse_time(text) - moment.timestamp()) < 1e-6
    assert times.parse_time(times.format_time(moment)) == moment.timestamp()
    assert times.parse_time(times.format_time(moment.timestamp(), WARSAW)) == times.parse_time(text)


def test_offset_of_a_datetime_is_kept() -> None:
    moment = dt.datetime(2030, 1, 2, 3, 4, 5)
    assert times.format_time(moment) == "2030-01-02T03:04:05"
    two = dt.timezone(dt.timedelta(hours=2))
    assert times.format_time(moment.replace(tzinfo=two)) == "2030-01-02T03:04:05+02:00"
    assert times.format_time(0.0, WARSAW) == "1970-01-01T01:00:00+01:00"


@pytest.mark.parametrize("when", [float("nan"), float("inf"), 1e300, "5", None])
def test_numbers_that_are_no_times(when: Any) -> None:
    with pytest.raises(EncodeError, match="is not a time in seconds"):
        times.format_time(when)


def test_now() -> None:
    for _ in range(1000):
        before = time.time()
        text = times.now_text()
        after = time.time()
        moment = dt.datetime.fromisoformat(text)
        assert moment.tzinfo is dt.UTC
        assert len(text) == 32
        assert before - 2e-6 <= moment.timestamp() <= after


def test_now_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for nanoseconds, text in (
        (1893553445_000001999, "2030-01-02T03:04:05.000001+00:00"),
        (1893553445_999999999, "2030-01-02T03:04:05.999999+00:00"),
        (1893553446_000000000, "2030-01-02T03:04:06.000000+00:00"),
        (1893553445_500000000, "2030-01-02T03:04:05.500000+00:00"),
    ):
        monkeypatch.setattr(times.time, "time_ns", lambda now=nanoseconds: now)
        assert times.now_text() == text
