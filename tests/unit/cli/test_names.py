from __future__ import annotations

import pytest

from chervil.cli.names import expand, host_name, node_name, node_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "chervil@box.example.org"),
        ("w1", "w1@box.example.org"),
        ("w1@%h", "w1@box.example.org"),
        ("w1@%n", "w1@box"),
        ("w1@%d", "w1@example.org"),
        ("w1@elsewhere", "w1@elsewhere"),
        ("w-%n@%h", "w-box@box.example.org"),
        ("w1@", "w1@box.example.org"),
        ("@other", "chervil@other"),
        ("100%%@%h", "100%@box.example.org"),
    ],
)
def test_node_name(given: str | None, expected: str) -> None:
    assert node_name(given, "box.example.org") == expected


def test_node_name_uses_this_machine() -> None:
    assert node_name("w") == f"w@{host_name()}"


def test_unknown_abbreviation_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"%x in 'w%x@h' means nothing here \(known: %h, %n, %d"):
        node_name("w%x@h", "box")


def test_node_path() -> None:
    assert node_path("/var/log/%n-%h%I.log", "w1@box") == "/var/log/w1-box.log"
    assert node_path("%p.pid", "w1@box") == "w1@box.pid"


def test_expand_leaves_a_single_percent_at_the_end_alone() -> None:
    assert expand("50%", {}) == "50%"
