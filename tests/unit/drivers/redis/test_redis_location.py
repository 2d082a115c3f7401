from __future__ import annotations

import ssl
from typing import Any

import pytest

from chervil.drivers.redis.location import Location, parse
from chervil.exceptions import ImproperlyConfigured


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", Location()),
        ("redis://h", Location(host="h")),
        ("redis://h:1234/5", Location(host="h", port=1234, db=5)),
        ("redis://:s%40cret@h//3", Location(host="h", db=3, password="s@cret")),
        ("redis://me:pw@[::1]:6380/1", Location("::1", 6380, db=1, username="me", password="pw")),
        ("REDISS://h/0", Location(host="h", tls=True)),
        ("redis+socket:///run/r.sock", Location(path="/run/r.sock")),
        ("redis+socket:///run/r.sock?virtual_host=4", Location(path="/run/r.sock", db=4)),
        ("redis+socket://:pw@/r?virtual_host=/4", Location(path="/r", db=4, password="pw")),
        ("redis://h/1?db=2", Location(host="h", db=2)),
        ("redis://h?global_keyprefix=a:&sep=:&priority_steps=0,5", Location(
            host="h", global_keyprefix="a:", sep=":", priority_steps=(0, 5))),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", Location(host="h", tls=True, ssl_cert_reqs="none")),
    ],
)  # fmt: skip
def test_urls(url: str, expected: Location) -> None:
    assert parse(url, {}) == expected


def test_options() -> None:
    options = {
        "visibility_timeout": 3600,  # Celery's, and without meaning here
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "socket_timeout": 3,
        "priority_steps": [0, 5],
        "global_keyprefix": "x",
        "ssl_cert_reqs": ssl.CERT_OPTIONAL,
        "socket_keepalive": False,
        "socket_connect_timeout": None,
    }
    assert parse("redis://h?global_keyprefix=y", options) == Location(
        host="h",
        socket_timeout=3.0,
        priority_steps=(0, 5),
        global_keyprefix="y",
        ssl_cert_reqs="optional",
        socket_keepalive=False,
    )


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("redis://h/mydb", {}, "'mydb' is no number"),
        ("redis://h:port/0", {}, "cannot be read"),
        ("redis://h:99999/0", {}, "cannot be read"),
        ("redis://a;redis://b", {}, "several servers"),
        ("redis://a:1,b:2/0", {}, "several servers"),
        ("redis+socket://host", {}, "three slashes"),
        ("http://h", {}, "none of redis"),
        ("redis://h", {"socket_timeut": 1}, "did you mean 'socket_timeout'"),
        ("redis://h?nothing_like_it=1", {}, "unknown option"),
        ("redis://h", {"socket_timeout": "soon"}, "no number of seconds"),
        ("redis://h", {"socket_timeout": 0}, "not between"),
        ("redis://h", {"priority_steps": [3, 6]}, "rising numbers from 0"),
        ("redis://h", {"priority_steps": "many"}, "no list of whole numbers"),
        ("redis://h", {"sep": ""}, "must not be empty"),
        ("redis://h", {"global_keyprefix": 3}, "is no text"),
        ("redis://h", {"global_keyprefix": "\ud800"}, "surrogates"),
        ("redis://h", {"socket_keepalive": "maybe"}, "neither true nor false"),
        ("redis://h", {"ssl_cert_reqs": "some"}, "none of required"),
        ("redis://h", {"master_name": "mymaster"}, "sentinel://"),
    ],
)
def test_mistakes(url: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text) as caught:
        parse(url, options)
    assert "secret" not in str(caught.value)


def test_passwords_are_not_told() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        parse("redis://me:secret@h/0?sockt_timeout=1", {})
    assert "secret" not in str(caught.value)
    assert parse("redis://me:secret@[::1]:1/2", {}).name == "redis://[::1]:1/2"


def test_one_database_has_one_place() -> None:
    assert parse("redis://h/1", {}).place == parse("redis://u:p@h:6379/1?sep=:", {}).place
    assert parse("redis://h/1", {}).place != parse("redis://h/2", {}).place
    assert parse("redis+socket:///a", {}).place != parse("redis+socket:///b", {}).place
