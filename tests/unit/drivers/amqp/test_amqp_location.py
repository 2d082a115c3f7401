"""URLs of RabbitMQ and their options."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from chervil.drivers.amqp.location import Server, parse
from chervil.exceptions import ImproperlyConfigured


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("amqp://", Server()),
        ("pyamqp://h", Server("h")),
        ("amqp://h:1/", Server("h", 1)),
        ("amqp://h:1//", Server("h", 1)),
        ("amqp://u:p%40@h/v", Server("h", 5672, "v", "u", "p@")),
        ("amqp://u:@h/%2Fv", Server("h", 5672, "/v", "u", "")),
        ("amqps://[::1]/v", Server("::1", 5671, "v", tls=True)),
    ],
)
def test_urls(url: str, server: Server) -> None:
    assert parse(url, {}).servers == (server,)


def test_several_servers() -> None:
    location = parse("amqps://u:p@one/v;two:7;amqp://three?socket_timeout=2", {})
    assert location.servers == (
        Server("one", 5671, "v", "u", "p", True),
        Server("two", 7, "/", tls=True),
        Server("three"),
    )
    assert location.socket_timeout == 2.0
    assert "p@" not in location.name
    assert location.name.count(";") == 2


def test_options() -> None:
    given: dict[str, Any] = {
        "queue_type": "quorum",
        "ssl_cert_reqs": ssl.CERT_NONE,
        "virtual_host": "v",
        "confirm_publish": True,
        "max_retries": None,
    }
    location = parse("amqp://h?queue_type=classic", given)
    assert (location.queue_type, location.ssl_cert_reqs) == ("classic", "none")
    assert location.servers[0].vhost == "v"


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("amqp://h:x", {}, "cannot be read"),
        ("amqp://h;redis://i", {}, "redis:// is none of"),
        ("amqp://h", {"socket_timout": 1}, "socket_timeout"),
        ("amqp://h", {"socket_timeout": "soon"}, "no number"),
        ("amqp://h", {"queue_type": "stream"}, "neither classic nor quorum"),
        ("amqp://h", {"revocations_kept": 1}, "60 seconds"),
    ],
)
def test_what_is_wrong(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        parse(url, options)
