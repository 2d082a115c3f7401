from __future__ import annotations

from typing import Any

import click
import pytest

from chervil.cli.params import COMMA_LIST, LOG_LEVEL, JsonValue


@pytest.mark.parametrize(
    ("text", "level"),
    [("info", "INFO"), ("I", "INFO"), ("warn", "WARNING"), ("Debug", "DEBUG"), ("15", 15)],
)
def test_log_level(text: str, level: Any) -> None:
    assert LOG_LEVEL.convert(text, None, None) == level


@pytest.mark.parametrize("text", ["loud", "", "infos"])
def test_wrong_log_level(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not one of DEBUG, INFO"):
        LOG_LEVEL.convert(text, None, None)


def test_comma_list() -> None:
    assert COMMA_LIST.convert("a, b,c", None, None) == ["a", "b", "c"]
    with pytest.raises(click.BadParameter, match="empty"):
        COMMA_LIST.convert("a,,b", None, None)


def test_json() -> None:
    assert JsonValue(list, "[1]").convert('[1, "x"]', None, None) == [1, "x"]
    assert JsonValue(dict, "{}").convert('{"a": null}', None, None) == {"a": None}


def test_json_error_points_at_the_place() -> None:
    with pytest.raises(click.BadParameter) as caught:
        JsonValue(list, "[1, 2]").convert("[1, oops]", None, None)
    lines = caught.value.message.splitlines()
    line = next(index for index, text in enumerate(lines) if "oops" in text)
    assert lines[line + 1].index("^") == lines[line].index("oops")
    assert "[1, 2]" in lines[-1]


def test_json_error_in_a_long_text_shows_its_surroundings() -> None:
    text = "[" + "1, " * 200 + "oops]"
    with pytest.raises(click.BadParameter) as caught:
        JsonValue(list, "[1]").convert(text, None, None)
    lines = caught.value.message.splitlines()
    line = next(index for index, shown in enumerate(lines) if "oops" in shown)
    assert len(lines[line]) < 80
    assert lines[line + 1].index("^") == lines[line].index("oops")


def test_json_of_another_kind() -> None:
    with pytest.raises(click.BadParameter, match=r"an array, for example \[1\]"):
        JsonValue(list, "[1]").convert('{"a": 1}', None, None)
