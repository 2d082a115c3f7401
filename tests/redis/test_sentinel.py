"""Sentinel: one primary, two replicas, three Sentinels, and the primary is killed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from chervil.drivers.redis.link import Link
from chervil.drivers.redis.location import parse
from chervil.exceptions import BrokerUnavailable, ImproperlyConfigured
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.redis_server import OPTIONS, WAIT, MakeServer, RedisServer, Sentinel, says
from tests.support.waiting import lines, wait_until

pytestmark = pytest.mark.requires_server("redis")
Client = Callable[..., Any]
Start = Callable[..., WorkerProcess]
Watch = Callable[..., list[Sentinel]]


def url_of(sentinels: list[Sentinel], server: str = "") -> str:
    first, *others = (f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    return ";".join([f"sentinel://{server}{first}/0", *(f"sentinel://{o}" for o in others)])


def replicas_of(
    make: MakeServer, primary: RedisServer, count: int, **options: Any
) -> list[RedisServer]:
    found = [make(replicaof=f"127.0.0.1 {primary.port}", **options) for _ in range(count)]
    password = options.get("requirepass")
    with primary.client(password=password) as admin:
        wait_until(lambda: admin.info("replication")["connected_slaves"] == count, WAIT)
        wait_until(
            lambda: all(
                admin.info("replication")[f"slave{n}"]["state"] == "online" for n in range(count)
            ),
            WAIT,
        )
    return found


def know_each_other(sentinels: list[Sentinel], replicas: int) -> None:
    for sentinel in sentinels:
        with sentinel.client() as admin:

            def complete(admin: redis.Redis = admin) -> bool:
                state = admin.sentinel_master("mymaster")
                return (state["num-other-sentinels"], state["num-slaves"]) == (2, replicas)

            wait_until(complete, WAIT, "the Sentinels know one another and the replicas")


def test_the_primary_is_killed(
    redis_server: MakeServer, sentinels: Watch, start: Start, client: Client, tmp_path: Path
) -> None:
    primary = redis_server()
    replicas_of(redis_server, primary, 2)
    watchers = sentinels(primary)
    know_each_other(watchers, 2)
    url, options = url_of(watchers), {"master_name": "mymaster"}
    app = client(url, publish_timeout=WAIT, **options)
    app.conf.task_publish_retry_policy = {"max_retries": None, "interval_start": 0.2}
    worker = start(url, "-P", "prefork", "-c", "2", "--lease", "60", options=options)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2

    log, started, go = tmp_path / "ran", tmp_path / "started", tmp_path / "go"
    running = pooled.holds.delay(str(started), str(go))
    late = pooled.add.apply_async((2, 1), countdown=3)
    wait_until(lambda: lines(started), WAIT)
    sent = [pooled.writes.delay(str(log), str(number)) for number in range(300)]
    with primary.client() as admin:
        # WAIT is for the writes of its own connection, and replication keeps the order.
        admin.set("mark", 1)
        assert admin.wait(2, 10_000) == 2
    answers: list[object] = []
    blocked = threading.Thread(target=lambda: answers.append(running.get(timeout=2 * WAIT)))
    blocked.start()
    with primary.client() as admin:
        channel = f"celery-task-meta-{running.id}"
        wait_until(lambda: admin.pubsub_numsub(channel)[0][1] == 1, WAIT, "somebody waits")
    primary.kill()

    result = pooled.add.delay(3, 1)  # within publish_timeout, to the new one
    assert watchers[0].do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[1] != primary.port
    assert result.get(timeout=WAIT) == 4
    go.touch()
    blocked.join(2 * WAIT)
    assert answers == [running.get(timeout=WAIT)]
    for one in sent:
        one.get(timeout=WAIT)
    assert late.get(timeout=WAIT) == 3
    assert set(lines(log)) >= {str(number) for number in range(300)}
    assert len(lines(started)) == 1, "its claim is still its own"
    says(worker, "The broker is back")


def test_passwords_of_servers_and_sentinels(redis_server: MakeServer, sentinels: Watch) -> None:
    primary = redis_server(requirepass="server")
    watchers = sentinels(primary, password="sentinel")
    url = url_of(watchers, ":server@")
    options = {"master_name": "mymaster", "sentinel_kwargs": {"password": "sentinel"}, **OPTIONS}
    link = Link(parse(url, options), BrokerUnavailable)
    assert link.call("PING") == b"PONG"
    assert link.location.port == primary.port
    link.close()
    for wrong, words in (
        ({"sentinel_kwargs": {}}, "wants a password"),
        ({"master_name": "other"}, "knows no primary named 'other'"),
    ):
        with pytest.raises(BrokerUnavailable, match="to be found") as caught:
            Link(parse(url, {**options, **wrong}), BrokerUnavailable)
        assert str(caught.value).count(words) == 3


def test_sentinels_that_are_gone_or_behind(redis_server: MakeServer, sentinels: Watch) -> None:
    primary = redis_server()
    (replica,) = replicas_of(redis_server, primary, 1)
    watchers = sentinels(primary)
    location = parse(url_of(watchers), {"master_name": "mymaster", **OPTIONS})
    watchers[0].kill()
    Link(location, BrokerUnavailable).close()
    # The one that is asked next believes that the replica is the primary.
    watchers[1].do("SENTINEL", "REMOVE", "mymaster")
    watchers[1].do("SENTINEL", "MONITOR", "mymaster", "127.0.0.1", str(replica.port), "9")
    link = Link(location, BrokerUnavailable)
    assert link.location.port == primary.port
    link.close()
    for watcher in watchers[1:]:
        watcher.kill()
    with pytest.raises(BrokerUnavailable) as caught:
        Link(location, BrokerUnavailable)
    assert str(caught.value).count("cannot reach") == 3


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("sentinel://a/0", {}, "broker_transport_options"),
        ("sentinel://a/0", {"master_name": "m", "sentinel_kwargs": "x"}, "must be a dict"),
        ("sentinel://a/0", {"master_name": "m", "sentinel_kwargs": {"pasword": 1}}, "'password'"),
        ("sentinel://a;redis://b", {"master_name": "m"}, "sentinel://"),
        ("redis://a;redis://b", {}, "several Sentinels"),
        ("redis://a/0", {"master_name": "m"}, "they are for sentinel://"),
        ("sentinel://a,b/0", {"master_name": "m"}, "with commas"),
    ],
)
def test_mistakes_are_named(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        parse(url, options)
    assert words in str(caught.value)


def test_urls_as_kombu_writes_them() -> None:
    url = "sentinel://user:p%40ss@one:26380/3;sentinel://two;sentinel://three:26381/9"
    found = parse(url, {"master_name": "m", "min_other_sentinels": 1})
    assert [(s.host, s.port, s.password) for s in found.sentinels] == [
        ("one", 26380, ""),
        ("two", 26379, ""),
        ("three", 26381, ""),
    ]
    assert (found.username, found.password, found.db) == ("user", "p@ss", 3)
    assert "p@ss" not in found.name
    other = parse(
        "sentinel://three:26381/3;sentinel://two;sentinel://one:26380", {"master_name": "m"}
    )
    assert found.place == other.place
