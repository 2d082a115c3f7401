"""What becomes of due times that have passed."""

from __future__ import annotations

from typing import Final

from chervil.beat.rule import Rule

#: What may be said of due times that nobody was there for.
MISSED: Final = ("skip", "once", "all")
#: Seconds for which a due time that has passed does not count as missed.
GRACE: Final = 60.0
#: Seconds for which ``all`` makes up, where nobody said it.
WINDOW: Final = 86_400.0
#: Firings of one entry in one turn; others come in the next.
AT_ONCE: Final = 100


def decide(
    rule: Rule, missed: str, window: float | None, due: float, now: float
) -> tuple[list[float], float | None]:
    """The due times to fire now, and the next one.

    :param missed: ``skip``, ``once`` or ``all``.
    :param window: seconds for which is made up; None: without a limit (``all``: a day).
    :param due: the first one that has not been decided; not later than ``now``.
    """
    following = rule.after(due)
    if missed == "all":
        window = WINDOW if window is None else window
    limit = GRACE if missed == "skip" else window
    oldest = float("-inf") if limit is None else now - max(limit, GRACE)
    if missed == "all":
        return _all(rule, due, following, oldest, now)
    last = due
    if following is not None and following <= now:
        last = rule.latest(due, now)
        following = rule.after(last)
    return ([last] if last >= oldest else []), following


def _all(
    rule: Rule, due: float, following: float | None, oldest: float, now: float
) -> tuple[list[float], float | None]:
    found: list[float] = []
    at: float | None = due
    if due < oldest:
        at = rule.since(due, oldest)
    elif following is None or following > now:
        return [due], following
    while at is not None and at <= now and len(found) < AT_ONCE:
        found.append(at)
        at = rule.after(at)
    return found, at
