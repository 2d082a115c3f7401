"""The five fields of a crontab as Celery reads them: text, a number, or several."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from chervil.exceptions import ImproperlyConfigured

#: What a user may give for a field.
Spec = int | str | Iterable[int | str]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun",
           "jul", "aug", "sep", "oct", "nov", "dec")  # fmt: skip
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?\Z")


class Field(NamedTuple):
    """What a field may hold."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day_of_week", 0, 6, _DAYS),
    Field("day_of_month", 1, 31),
    Field("month_of_year", 1, 12, _MONTHS),
)


def expand(field: Field, spec: Spec) -> set[int]:
    """All values that a field stands for.

    :raises ImproperlyConfigured: it stands for none, or for one that cannot be.
    """
    if isinstance(spec, bool) or not isinstance(spec, int | str | Iterable):
        raise _wrong(field, spec, "it must be text, a number, or several of them")
    if isinstance(spec, int):
        return {_number(field, spec, str(spec))}
    if isinstance(spec, str):
        found: set[int] = set()
        for part in spec.split(","):
            found |= _part(field, spec, part.strip())
    else:
        found = set().union(*(expand(field, item) for item in spec))
    if not found:
        raise _wrong(field, spec, "it stands for nothing")
    return found


def _part(field: Field, spec: Spec, part: str) -> set[int]:
    match = _PART.match(part.lower())
    if match is None:
        raise _wrong(field, spec, f"{part!r} is neither *, a value, a-b, nor one of these with /n")
    start, end, step = match.groups()
    every = int(step) if step else 1
    if every < 1:
        raise _wrong(field, spec, "a step must be at least 1")
    if start == "*":
        if end:
            raise _wrong(field, spec, "a range needs two values")
        values = list(range(field.least, field.most + 1))
    else:
        first = _number(field, spec, start)
        if end is None:
            values = [first] if step is None else list(range(first, field.most + 1))
        else:
            values = _span(field, first, _number(field, spec, end), end)
    return set(values[::every])


def _span(field: Field, first: int, last: int, text: str) -> list[int]:
    """From the first to the last, over the end of the field where that is smaller."""
    if field.names is _DAYS and last == 0 and first > 0 and text in ("7", "0", "sun"):
        return [*range(first, field.most + 1), 0]
    if first <= last:
        return list(range(first, last + 1))
    return [*range(first, field.most + 1), *range(field.least, last + 1)]


def _number(field: Field, spec: Spec, value: int | str) -> int:
    text = str(value).lower()
    if field.names and text[:3] in field.names and text.isalpha():
        return field.names.index(text[:3]) + field.least
    if not (text.isascii() and text.isdigit()):
        raise _wrong(field, spec, f"{value!r} is no value of it")
    number = int(text)
    if field.names is _DAYS and number == 7:
        return 0  # as in cron, where Sunday is both
    if not field.least <= number <= field.most:
        raise _wrong(field, spec, f"{number} is not within {field.least} to {field.most}")
    return number


def _wrong(field: Field, spec: object, why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"crontab({field.name}={spec!r}): {why}")


def as_text(field: Field, spec: Spec, values: set[int]) -> str:
    """A field as standard cron reads it. What began with a star still does: it matters
    where clocks are moved."""
    if isinstance(spec, str) and re.fullmatch(r"\*(/\d+)?", spec.strip()):
        return spec.strip()
    if len(values) == field.most - field.least + 1:
        return "*"
    return ",".join(_runs(sorted(values)))


def _runs(values: list[int]) -> list[str]:
    """Three and more in a row as a range."""
    found: list[str] = []
    while values:
        count = 1
        while count < len(values) and values[count] == values[0] + count:
            count += 1
        if count > 2:
            found.append(f"{values[0]}-{values[count - 1]}")
        else:
            found += map(str, values[:count])
        values = values[count:]
    return found
