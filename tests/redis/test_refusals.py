"""What clients and workers are told by servers that cannot or will not serve them."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chervil.drivers.redis.broker import RedisBroker
from chervil.drivers.redis.link import Link
from chervil.drivers.redis.location import parse
from chervil.exceptions import BackendError, BrokerUnavailable, ImproperlyConfigured
from chervil.testing.harness import make_message
from tests.apps import pooled
from tests.support.redis_server import OPTIONS, MakeServer, RedisServer, free_port

pytestmark = pytest.mark.requires_server("redis")


def send(url: str, **options: Any) -> None:
    broker = RedisBroker(url, {**OPTIONS, "socket_timeout": 0.5, **options})
    try:
        broker.publish([make_message("celery")])
    finally:
        broker.close()


def refusal(url: str, kind: type[Exception] = BrokerUnavailable, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        send(url, **options)
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_nobody_there() -> None:
    port = free_port()
    words = refusal(f"redis://:secret@127.0.0.1:{port}/0")
    assert f"cannot reach Redis at redis://127.0.0.1:{port}/0" in words


def test_clients_get_typed_errors(client: Callable[..., Any]) -> None:
    client(f"redis://127.0.0.1:{free_port()}/0", publish_timeout=0.5)
    with pytest.raises(BrokerUnavailable, match="cannot reach Redis"):
        pooled.add.delay(1, 2)
    with pytest.raises(BackendError, match="cannot reach Redis"):
        pooled.add.AsyncResult("x").get(timeout=1)


@pytest.mark.parametrize("url", ["redis://:secret-wrong@", "redis://nobody:secret-wrong@"])
def test_a_wrong_password(url: str, redis_server: MakeServer) -> None:
    server = redis_server(requirepass="secret")
    here = f"127.0.0.1:{server.port}/0"
    assert "refused the user name or password" in refusal(url + here)
    assert "wants a password: redis://user:password@" in refusal(f"redis://{here}")
    send(f"redis://:secret@{here}")
    send(f"redis://default:secret@{here}")
    send(f"redis://{here}", password="secret")


class Stranger:
    """Something that is no Redis: says this to whoever connects, and reads on."""

    def __init__(self, says: bytes, close: bool) -> None:
        self._says, self._close = says, close
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._held: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.recv(100)
            connection.sendall(self._says)
            if self._close:
                connection.close()
            else:
                self._held.append(connection)

    def end(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._held:
            connection.close()


@pytest.fixture
def stranger() -> Iterator[Callable[..., str]]:
    strangers: list[Stranger] = []

    def make(says: bytes, close: bool = False) -> str:
        strangers.append(Stranger(says, close))
        return f"redis://127.0.0.1:{strangers[-1].port}/0"

    yield make
    for one in strangers:
        one.end()


@pytest.mark.parametrize(
    ("says", "close", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "is no Redis server"),
        (b"+OK\r\n", False, "is no Redis server"),
        (b"\x15\x03\x03\x00\x02\x02\x28", True, "is no Redis server"),  # a TLS alert
        (b"", True, "closed the connection"),
        (b"", False, "has not answered within 0.5 s"),
        # As Redis and Valkey write it in networking.c to who is not on the same machine.
        (b"-DENIED Redis is running in protected mode because ...\r\n", True, "protected mode"),
        (b"-ERR max number of clients reached\r\n", True, "too many connections (maxclients)"),
    ],
)
def test_something_else_listens(
    says: bytes, close: bool, words: str, stranger: Callable[..., str]
) -> None:
    assert words in refusal(stranger(says, close))


def test_a_port_that_speaks_no_tls(redis_server: MakeServer) -> None:
    server = redis_server()
    words = refusal(server.url.replace("redis:", "rediss:"))
    assert "no TLS connection" in words
    assert "without TLS, its scheme is redis://" in words


def test_a_cluster_is_refused(redis_server: MakeServer) -> None:
    port = next(port for port in iter(free_port, 0) if port < 55_000)  # its bus has a higher one
    server = redis_server(port=port, cluster_enabled="yes", cluster_config_file="nodes.conf")
    for url in (server.url, server.url[:-1] + "3"):
        words = refusal(url, ImproperlyConfigured)
        assert "is part of a Redis Cluster" in words
        assert "cluster-enabled no" in words


def test_a_sentinel_is_no_server(
    redis_server: MakeServer, sentinels: Callable[..., list[RedisServer]]
) -> None:
    server = redis_server()
    sentinel = sentinels(server)[0]
    words = refusal(sentinel.url, ImproperlyConfigured)
    assert f"sentinel://127.0.0.1:{sentinel.port}/0" in words
    assert "master_name" in words
    url = f"sentinel://127.0.0.1:{server.port}/0"
    words = refusal(url, ImproperlyConfigured, master_name="mymaster")
    assert f"write {server.url}" in words


def test_a_server_without_hello(redis_server: MakeServer) -> None:
    """Redis 5 and older; here one that had it taken away."""
    server = redis_server(rename_command="HELLO nothing", requirepass="secret")
    words = refusal(f"redis://:secret@127.0.0.1:{server.port}/0", ImproperlyConfigured)
    version = server.do("INFO", "server", password="secret")["redis_version"]
    assert f"is Redis {version} and does not know the command HELLO" in words
    assert "6.2 or newer" in words


def test_an_old_server_is_refused(
    monkeypatch: pytest.MonkeyPatch, redis_server: MakeServer
) -> None:
    server = redis_server()
    monkeypatch.setattr("chervil.drivers.redis.link._OLDEST", (99, 0))
    words = refusal(server.url, ImproperlyConfigured)
    assert re.search(r"is Redis \d+\.\d+\.\d+; it must be 6\.2 or newer, or Valkey", words)


def test_a_replica_is_refused_and_a_former_one_is_not(redis_server: MakeServer) -> None:
    server = redis_server()
    server.do("REPLICAOF", "127.0.0.1", "1")
    assert "read-only replica: give the URL of the primary" in refusal(server.url)
    server.do("REPLICAOF", "NO", "ONE")
    broker = RedisBroker(server.url, OPTIONS)
    broker.publish([make_message("celery")])
    server.do("REPLICAOF", "127.0.0.1", "1")  # with connections open
    with pytest.raises(BrokerUnavailable, match="read-only replica"):
        broker.publish([make_message("celery")])
    with pytest.raises(BrokerUnavailable, match="read-only replica"):
        broker.publish([make_message("celery"), make_message("celery")])
    server.do("REPLICAOF", "NO", "ONE")
    broker.publish([make_message("celery")])
    assert broker.depths(["celery"])["celery"].ready == 2
    broker.close()


def test_a_database_that_is_not_there(redis_server: MakeServer) -> None:
    server = redis_server(databases="1")
    assert "no database of that number" in refusal(server.url[:-1] + "1")


def test_the_client_name_is_shown(redis_server: MakeServer) -> None:
    server = redis_server()
    links = [
        Link(parse(server.url, {}), BrokerUnavailable),
        Link(parse(server.url, {"client_name": "shop"}), BrokerUnavailable),
        Link(parse(server.url, {}).named("w 1@here"), BrokerUnavailable),
    ]
    with server.client() as admin:
        names = {connection["name"] for connection in admin.client_list()}
    assert {"chervil", "shop", "chervil:w-1@here"} <= names
    for link in links:
        link.close()
