"""Points in time as messages carry them: ISO 8601 text, usually with an offset.

Celery writes a naive ``eta`` or ``expires`` as it got it and lets the worker read
it in the worker's own time zone, so reading needs that zone.
"""

from __future__ import annotations

import datetime as _dt
import time

from chervil.exceptions import DecodeError, EncodeError

UTC = _dt.timezone.utc  # noqa: UP017 - an attribute that mypy and readers know
_fromisoformat = _dt.datetime.fromisoformat


def parse_time(text: object, default_tz: _dt.tzinfo | None = None) -> float:
    """Read ISO 8601 text, with an offset, a trailing ``Z`` or neither.

    :param default_tz: what text without an offset is meant in; UTC when None.
    :returns: Unix time in seconds.
    :raises DecodeError: it is not such text, or too far away to be counted.
    """
    try:
        moment = _fromisoformat(text)  # type: ignore[arg-type]
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=default_tz or UTC)
        return moment.timestamp()
    except (TypeError, ValueError, OverflowError) as exc:
        raise DecodeError(
            f"{text!r:.100} is not a time in ISO 8601 (such as 2030-01-02T03:04:05+00:00)"
        ) from exc


def format_time(when: float | _dt.datetime, tz: _dt.tzinfo | None = None) -> str:
    """Write a time as ISO 8601 text.

    :param when: Unix time in seconds, or a datetime, which keeps its offset (or the
        lack of one).
    :param tz: zone to write seconds in; UTC when None.
    :raises EncodeError: the number is no time.
    """
    try:
        if isinstance(when, _dt.datetime):
            return when.isoformat()
        return _dt.datetime.fromtimestamp(when, tz or UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError) as exc:
        raise EncodeError(f"{when!r:.100} is not a time in seconds since 1970") from exc


_second = (-1, "")


def now_text() -> str:
    """The present in UTC as ISO 8601 text, as ``date_done`` of results carries it."""
    global _second
    now = time.time_ns()
    second, rest = divmod(now, 1_000_000_000)
    # One tuple, so that threads see either the old pair or the new one.
    known, prefix = _second
    if second != known:
        prefix = _dt.datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second = (second, prefix)
    return f"{prefix}.{rest // 1000:06d}+00:00"
