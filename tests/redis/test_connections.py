"""How many connections there are, and that a worker hears although one of them does not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.drivers.redis.broker import RedisBroker
from chervil.exceptions import BrokerUnavailable
from chervil.testing.harness import make_message
from tests.apps import pooled
from tests.support.processes import WorkerProcess
from tests.support.proxy import Proxy
from tests.support.redis_server import OPTIONS, WAIT, MakeServer, RedisServer, free_port, says
from tests.support.waiting import wait_until

pytestmark = pytest.mark.requires_server("redis")
Client = Callable[..., Any]
Start = Callable[..., WorkerProcess]
#: As the documentation says.
OF_A_NODE = 7


def connections(server: RedisServer, name: str = "chervil") -> int:
    with server.client() as admin:
        return sum(c["name"].startswith(name) for c in admin.client_list())


@pytest.mark.parametrize(
    "pool",
    [
        ("prefork", "-c", "1"),
        ("prefork", "-c", "8"),
        ("threads", "-c", "40"),
        ("asyncio", "-c", "200"),
        ("solo",),
    ],
)
def test_a_node_has_a_few_whatever_its_concurrency(
    pool: tuple[str, ...], redis_server: MakeServer, start: Start, client: Client
) -> None:
    server = redis_server()
    worker = start(server.url, "-P", *pool)
    app = client(server.url)
    most = 0
    results = [pooled.add.delay(number, 1) for number in range(300)]
    results += [pooled.tracked.delay("/") for _ in range(10)]
    results += [pooled.succeeds_after.delay(1) for _ in range(10)]
    for result in results:
        result.get(timeout=WAIT)
        if result in results[::50]:
            app.close()  # so that only the node's are left
            most = max(most, connections(server))
    app.close()
    assert 2 <= connections(server) <= most <= OF_A_NODE
    assert worker.stop() == 0
    wait_until(lambda: connections(server) == 0, WAIT)


def test_a_client_has_a_few(redis_server: MakeServer, start: Start, client: Client) -> None:
    server = redis_server()
    app = client(server.url, client_name="shop")
    results = [pooled.add.delay(number, 1) for number in range(20)]
    assert connections(server, "shop") == 1
    start(server.url, "-P", "solo")
    for result in results:
        result.get(timeout=WAIT)
    assert connections(server, "shop") == 2
    app.close()
    wait_until(lambda: connections(server, "shop") == 0, WAIT)


# --- wake-ups that do not arrive


def test_a_killed_connection_is_noticed_before_the_next_message(
    redis_server: MakeServer, start: Start, client: Client
) -> None:
    server = redis_server()
    client(server.url)
    worker = start(server.url)
    with server.client() as admin:
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        # It is there again by itself, and is told of news.
        wait_until(
            lambda: any(c["flags"] == "t" for c in admin.client_list()), WAIT, "it connects again"
        )
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    assert "did not tell" not in worker.log()


@pytest.fixture
def proxy() -> Iterator[Callable[[RedisServer], Proxy]]:
    proxies: list[Proxy] = []

    def make(server: RedisServer) -> Proxy:
        proxies.append(Proxy(server.port))
        return proxies[-1]

    yield make
    for one in proxies:
        one.close()


def test_a_half_open_connection_for_news(
    redis_server: MakeServer,
    proxy: Callable[[RedisServer], Proxy],
    start: Start,
    client: Client,
) -> None:
    """The server tells, and it does not arrive: the worker finds the message all the same."""
    server = redis_server()
    way = proxy(server)
    client(server.url)
    worker = start(f"redis://127.0.0.1:{way.port}/0")
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    way.swallow(b"__redis__:invalidate")
    result = pooled.add.delay(2, 1)
    says(worker, "did not tell of new messages: the connection on which it should")
    way.stop_swallowing()
    assert result.get(timeout=WAIT) == 3
    assert pooled.add.delay(3, 1).get(timeout=WAIT) == 4


def test_a_half_open_connection_for_results(
    redis_server: MakeServer,
    proxy: Callable[[RedisServer], Proxy],
    start: Start,
    client: Client,
    tmp_path: Path,
) -> None:
    server = redis_server()
    way = proxy(server)
    client(f"redis://127.0.0.1:{way.port}/0")
    start(server.url)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    way.swallow(b"celery-task-meta-")
    started, go = tmp_path / "started", tmp_path / "go"
    result = pooled.holds.delay(str(started), str(go))
    go.touch()
    way.stop_swallowing()
    assert result.get(timeout=WAIT)


# --- other ways to a server


def test_a_unix_socket(
    redis_server: MakeServer, start: Start, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "redis.sock"
    redis_server(unixsocket=str(path))
    url = f"redis+socket://{path}?virtual_host=2"
    client(url)
    start(url)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2


def certificates(folder: Path) -> dict[str, str]:
    """A certificate authority, and a certificate of localhost that server and client use."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        command = ["openssl", *words]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)

    new = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    # As Python 3.13 wants them (VERIFY_X509_STRICT).
    usage = "keyUsage=critical,keyCertSign,cRLSign"
    names = ("-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Test CA", "-addext", usage)
    openssl("req", "-x509", *new, *names)
    openssl("req", *new, "-keyout", "key", "-out", "request", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl("x509", "-req", "-in", "request", "-out", "crt", "-days", "2", *signed)
    return {name: str(folder / name) for name in ("ca.crt", "crt", "key")}


def test_tls(redis_server: MakeServer, start: Start, client: Client, tmp_path: Path) -> None:
    files = certificates(tmp_path / "tls")
    port = free_port()
    redis_server(
        tls_port=str(port),
        tls_cert_file=files["crt"],
        tls_key_file=files["key"],
        tls_ca_cert_file=files["ca.crt"],
        tls_auth_clients="yes",
    )
    url = f"rediss://localhost:{port}/0"
    options = {
        "ssl_ca_certs": files["ca.crt"],
        "ssl_certfile": files["crt"],
        "ssl_keyfile": files["key"],
    }
    client(url, **options)
    worker = start(url, options=options)
    assert pooled.add.delay(1, 1).get(timeout=WAIT) == 2
    assert len(pooled.large.delay(1_000_000).get(timeout=WAIT)) == 1_000_000
    assert worker.stop() == 0
    assert "ERROR" not in worker.log()

    def refused(words: str, host: str = "localhost", **other: str) -> None:
        broker = RedisBroker(f"rediss://{host}:{port}/0", {**OPTIONS, **options, **other})
        with pytest.raises(BrokerUnavailable, match=words):
            broker.publish([make_message("celery")])
        broker.close()

    refused("certificate verify failed", ssl_ca_certs="")
    refused("certificate verify failed", "127.0.0.1")  # another name
    refused("no TLS connection|lost the connection|closed the", ssl_certfile="", ssl_keyfile="")
    unchecked = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=CERT_NONE&ssl_ca_certs="
    broker = RedisBroker(unchecked, {**OPTIONS, **options})
    broker.publish([make_message("celery")])
    broker.close()
    plain = RedisBroker(f"redis://localhost:{port}/0", {**OPTIONS, "socket_timeout": 0.5})
    with pytest.raises(BrokerUnavailable):
        plain.publish([make_message("celery")])
    plain.close()
