"""Kinds of option values that several commands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:  # in older releases of click it is no generic class
    ParamType = click.ParamType


class CommaList(ParamType):
    """``a,b,c``; an empty item is an error."""

    name = "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        if isinstance(value, list):
            return value
        items = [item.strip() for item in str(value).split(",")]
        if not all(items):
            self.fail(f"{value!r}: an item of this comma-separated list is empty.", param, ctx)
        return items


class LogLevel(ParamType):
    """A level's name in any case, an unambiguous beginning of one, or a number."""

    name = "level"
    LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        if isinstance(value, int):
            return value
        text = str(value).strip().upper()
        if text.isdecimal():
            return int(text)
        found = [level for level in self.LEVELS if level.startswith(text)] if text else []
        if len(found) != 1:
            self.fail(f"{value!r} is not one of {', '.join(self.LEVELS)}.", param, ctx)
        return found[0]


class JsonValue(ParamType):
    """JSON of one kind; an error points at the place."""

    def __init__(self, kind: type, example: str) -> None:
        self.kind = kind
        self.example = example
        self.name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, self.kind):
            return value
        import json

        try:
            decoded = json.loads(value)
        except json.JSONDecodeError as exc:
            self.fail(pointed(str(value), exc.msg, exc.pos, self.example), param, ctx)
        if not isinstance(decoded, self.kind):
            word = "an array" if self.kind is list else "an object"
            self.fail(f"must be {word}, for example {self.example}", param, ctx)
        return decoded


def pointed(text: str, message: str, position: int, example: str, width: int = 60) -> str:
    """A message about bad JSON with an arrow under the place."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : end if end >= 0 else len(text)]
    column = position - start
    cut = max(0, column - width // 2)
    shown = line[cut : cut + width]
    return (
        f"not JSON: {message}\n\n    {shown}\n    {' ' * (column - cut)}^\n\n"
        f"It looks like this: {example}"
    )


COMMA_LIST = CommaList()
LOG_LEVEL = LogLevel()
