"""When an entry is due: its schedule, with start and end, and without what is left out.

Times are Unix times in seconds, of whole microseconds, so that a due time is the same
number wherever it is computed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math

from chervil.schedules import BaseSchedule, Calendar, clocked, schedule
from chervil.schedules.base import UTC

#: A smallest step back, so that "after" can mean "from ... on".
_TICK = 1e-6
#: Due times in a row that a calendar may leave out, before nothing is expected any more.
_MOST_EXCLUDED = 100_000
#: Seconds; how far back the last due time is looked for at first.
_WINDOW = 3600.0


class Rule:
    """The due times of an entry.

    :param tz: zone of a schedule that has none of its own, and of the calendar.
    """

    def __init__(
        self,
        when: BaseSchedule,
        tz: dt.tzinfo,
        start: float | None = None,
        end: float | None = None,
        exclude: Calendar | None = None,
    ) -> None:
        self.when = when
        self.tz = tz
        self.start, self.end, self.exclude = start, end, exclude
        #: Seconds from one due time to the next, where that is all there is to it.
        self.every = when.seconds if type(when) is schedule and not when.relative else None

    def first(self, since: float) -> float | None:
        """The first due time of an entry that there is from ``since`` on."""
        start = self.start
        if start is None:
            return self.after(since)
        if self.every is None:
            return self.after(max(since, start - _TICK))
        # An interval is counted from the start, which is due itself.
        if start > since:
            return self._allowed(start) or self.after(start)
        return self.after(self._on_grid(start, since))

    def after(self, due: float) -> float | None:
        """The due time that follows ``due``; None: there is none any more."""
        at, tz = moment(due), self.tz
        for _ in range(_MOST_EXCLUDED):
            following = self.when.next_after(at, tz)
            if following is None:
                return None
            found = following.timestamp()
            if self.end is not None and found > self.end:
                return None
            if self._allowed(found) is not None:
                return found
            at = self._skip(following)
        return None

    def from_now(self, last: float | None, now: float) -> float | None:
        """The first due time later than now.

        :param last: a due time of the entry, from which an interval is counted.
        """
        if last is None or self.start is not None:
            return self.first(now)
        if self.every is not None:
            return self.after(self._on_grid(last, now))
        return self.after(max(last, now))

    def latest(self, due: float, until: float) -> float:
        """The last due time up to ``until``, from the due time ``due`` on."""
        if type(self.when) is not schedule or self.every is not None:
            back = _WINDOW
            while until - back > due:
                begin = until - back if self.every is None else self._on_grid(due, until - back)
                found = self.after(begin)
                if found is not None and due < found <= until:
                    due = found
                    break
                back *= 8
        while (following := self.after(due)) is not None and following <= until:
            due = following
        return due

    def since(self, due: float, oldest: float) -> float | None:
        """The first due time from ``oldest`` on, which is later than the due time ``due``."""
        if self.every is not None:
            found = self.after(self._on_grid(due, oldest - _TICK))
        elif type(self.when) is schedule:
            found = due
            while found is not None and found < oldest:
                found = self.after(found)
        else:
            found = self.after(oldest - _TICK)
        return found

    def _on_grid(self, due: float, until: float) -> float:
        """The last of the regular steps from ``due`` that is not later than ``until``."""
        assert self.every is not None
        steps = math.floor((until - due + _TICK / 2) / self.every)
        return (moment(due) + steps * dt.timedelta(seconds=self.every)).timestamp()

    def _allowed(self, due: float) -> float | None:
        if self.exclude is not None and self.exclude.excludes(self._local(due)):
            return None
        return due if self.end is None or due <= self.end else None

    def _local(self, due: float) -> dt.datetime:
        return moment(due).astimezone(self.when.in_zone(self.tz))

    def _skip(self, excluded: dt.datetime) -> dt.datetime:
        """From where to look on: behind a due time that was left out, or behind its day."""
        if self.exclude is None or self.exclude.check is not None:
            return excluded
        zone = self.when.in_zone(self.tz)
        local = excluded.astimezone(zone)
        day = local.date() + dt.timedelta(days=1)
        midnight = dt.datetime.combine(day, dt.time(), zone).astimezone(UTC)
        if midnight <= excluded:
            return excluded
        if self.every is not None:
            back = self._on_grid(excluded.timestamp(), midnight.timestamp() - _TICK)
            return moment(back)
        if type(self.when) is schedule:
            return excluded
        return midnight - dt.timedelta(microseconds=1)

    @property
    def is_once(self) -> bool:
        """Whether it is one single moment."""
        return isinstance(self.when, clocked)


def moment(seconds: float) -> dt.datetime:
    """An aware datetime, in UTC."""
    return dt.datetime.fromtimestamp(seconds, UTC)


def spread(name: str, due: float, jitter: float) -> float:
    """Seconds from 0 to ``jitter``, always the same for one due time of one entry."""
    if not jitter:
        return 0.0
    digest = hashlib.blake2b(f"{name}\0{due:.6f}".encode(), digest_size=8).digest()
    return jitter * int.from_bytes(digest, "big") / 2**64


def firing_id(book: str, name: str, due: float) -> str:
    """The id of the task that an entry's firing sends, which follows from entry and due time.

    A UUID of version 8 (RFC 9562, section 5.8) that begins, as those of version 7, with
    the time: so it lies beside other ids of that time in an index.
    """
    digest = hashlib.blake2b(f"{book}\0{name}\0{due:.6f}".encode(), digest_size=10).hexdigest()
    text = f"{int(due * 1000) & (1 << 48) - 1:012x}8{digest[:3]}"
    text += f"{8 | int(digest[3], 16) & 3:x}{digest[4:19]}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"
