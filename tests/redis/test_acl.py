"""The user with the least rights that the documentation names."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest

from chervil import chord
from chervil.exceptions import BrokerUnavailable
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.redis_acl import documented
from tests.support.redis_server import WAIT, MakeServer, says

pytestmark = pytest.mark.requires_server("redis")
Client = Callable[..., Any]
Start = Callable[..., WorkerProcess]


def test_a_worker_and_a_client(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    server.do(*documented())
    url = f"redis://chervil:password@127.0.0.1:{server.port}/0"
    client(url)
    worker = start(url)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    assert pooled.add.apply_async((2, 1), countdown=0.2).get(timeout=WAIT) == 3
    assert pooled.succeeds_after.delay(1).get(timeout=WAIT) == 1
    joined = chord([pooled.add.s(1, 1), pooled.early_fine.s(2)], pooled.echo.s()).delay()
    assert joined.get(timeout=WAIT)
    assert worker.stop() == 0
    assert "ERROR" not in worker.log()
    assert "WARNING" not in worker.log().replace("WARNING/hub] Stopping when", "")
    with server.client() as admin:
        assert admin.acl_log() == []


def test_each_of_its_commands_is_used() -> None:
    folder = resources.files("chervil.drivers.redis")
    files = [path for path in folder.iterdir() if path.name.endswith((".py", ".lua"))]
    text = "\n".join(path.read_text("utf-8") for path in files)
    commands = [rule[1:] for rule in documented() if rule[0] == "+"]
    assert len(commands) > 30
    for command in commands:
        words = r'", "'.join(command.upper().split("|"))
        assert re.search(rf"""["']{words}["']""", text), command


def test_a_right_that_is_missing(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    server.do(*documented())
    server.do("ACL", "SETUSER", "chervil", "-lpush", "-zadd")
    url = f"redis://chervil:password@127.0.0.1:{server.port}/0"
    client(url, publish_timeout=0.5)
    worker = start(url)
    for options in ({}, {"countdown": 60}):
        with pytest.raises(BrokerUnavailable, match="does not let this user do that: see its ACL"):
            pooled.add.apply_async((1, 1), **options)
    server.do("ACL", "SETUSER", "chervil", "+lpush", "+zadd", "-hset")
    result = pooled.add.delay(1, 1)
    says(worker, "does not let this user do that: see its ACL")
    server.do("ACL", "SETUSER", "chervil", "+hset")
    assert result.get(timeout=WAIT) == 2


def test_without_being_told_of_news(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    server.do(*documented())
    server.do("ACL", "SETUSER", "chervil", "-client", "-info")
    url = f"redis://chervil:password@127.0.0.1:{server.port}/0"
    client(url)
    worker = start(url)
    says(worker, "so this node asks for them twice a second")
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
