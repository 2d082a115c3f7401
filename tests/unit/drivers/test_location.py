"""URLs and options of databases, and the errors they give."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from chervil.drivers.registry import open_broker, open_results
from chervil.drivers.sqlite.location import Location, parse
from chervil.exceptions import ImproperlyConfigured


def test_relative_and_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = parse("sqlite:///sub/../my%20tasks.db", {})
    assert here == parse(f"sqlite:///{tmp_path}/my tasks.db", {})
    assert here.path == os.path.realpath(tmp_path / "my tasks.db")
    # Taken when the URL is read: a later change of directory changes nothing.
    monkeypatch.chdir("/")
    assert here.path == os.path.realpath(tmp_path / "my tasks.db")


def test_defaults() -> None:
    location = parse("sqlite:////data/x.db", {})
    assert location == Location("/data/x.db", "NORMAL", 5.0, 8192)


def test_options_from_the_query_and_the_map() -> None:
    options = {"busy_timeout": 1, "cache_size": "256"}
    found = parse("sqlite:////data/x.db?synchronous=full&busy_timeout=2.5", options)
    assert found == Location("/data/x.db", "FULL", 2.5, 256)


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("sqlite://", {}, "memory://"),
        ("sqlite:///", {}, "memory://"),
        ("sqlite:///:memory:", {}, "memory://"),
        ("sqlite://:memory:", {}, "memory://"),
        ("sqlite://x.db", {}, "sqlite:///x.db"),
        ("sqlite:x.db", {}, "three slashes"),
        ("sqlite:////tmp", {}, "names a directory"),
        ("sqlite:////tmp/x/", {}, "names a directory"),
        ("sqlite:////tmp/a%00b", {}, "NUL"),
        ("sqlite:///x.db?syncronous=FULL", {}, "did you mean 'synchronous'"),
        ("sqlite:///x.db", {"visibility_timeout": 3}, "'visibility_timeout'"),
        ("sqlite:///x.db?synchronous=OFF", {}, "NORMAL, FULL, EXTRA"),
        ("sqlite:///x.db?busy_timeout=soon", {}, "'soon' is no number of seconds"),
        ("sqlite:///x.db?busy_timeout=-1", {}, "between 0 and 3600"),
        ("sqlite:///x.db?busy_timeout=nan", {}, "between 0 and 3600"),
        ("sqlite:///x.db", {"busy_timeout": None}, "no number of seconds"),
        ("sqlite:///x.db", {"cache_size": "big"}, "no whole number"),
        ("sqlite:///x.db", {"cache_size": 1}, "between 64"),
    ],
)
def test_what_is_wrong_is_named(url: str, options: dict[str, Any], words: str) -> None:
    for open_ in (open_broker, open_results):
        with pytest.raises(ImproperlyConfigured) as caught:
            open_(url, options)
        assert words in str(caught.value)
        assert url in str(caught.value)


@pytest.mark.parametrize("url", ["memory://", "memory://x", "disabled://"])
def test_unknown_options_elsewhere(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="'synchronous'"):
        open_results(url, {"synchronous": "FULL"})
