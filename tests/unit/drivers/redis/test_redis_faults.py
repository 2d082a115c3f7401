"""Cut connections, servers that hang, refuse, restart: nothing is lost, errors are clear."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from chervil.drivers.contracts import Action, Depth, Queue, Settlement
from chervil.drivers.redis.results import RedisResults
from chervil.drivers.registry import open_results
from chervil.exceptions import (
    BackendError,
    BrokerUnavailable,
    ImproperlyConfigured,
    LeaseLost,
    OperationalError,
)
from chervil.ids import new_id
from chervil.testing.harness import claim, id_of, ids_of, is_readable, make_message, wait_for
from chervil.wire.message import Outcome
from tests.unit.drivers.redis.servers import Opened, Proxy, Serve

pytestmark = pytest.mark.requires_server("redis")

QUEUE = [Queue("q")]


# --- connections that are cut


def test_claims_whose_answer_was_cut_come_with_the_next_exchange(
    proxy: Proxy, opened: Opened
) -> None:
    broker = opened(proxy.url)
    messages = [make_message("q") for _ in range(5)]
    broker.publish(messages)
    consumer = broker.consumer(QUEUE, "n")
    (first,) = consumer.exchange((), 1)
    proxy.swallow = b"EVALSHA"
    with pytest.raises(BrokerUnavailable, match="closed the connection"):
        consumer.exchange((), 2)
    assert broker.depths(["q"])["q"].claimed == 3
    (second,) = consumer.exchange((), 1)
    assert is_readable(consumer) or consumer.drain()
    found = claim(consumer, 3)
    everything = [first, second, *found]
    assert ids_of(everything) == [message.id for message in messages]
    assert [d.deliveries for d in everything] == [1] * 5
    consumer.exchange([Settlement(d) for d in everything], 0)
    assert broker.depths(["q"])["q"] == Depth()
    consumer.close()


def test_settlements_whose_answer_was_cut_are_not_made_twice(proxy: Proxy, opened: Opened) -> None:
    broker = opened(proxy.url)
    broker.publish([make_message("q"), make_message("q")])
    consumer = broker.consumer(QUEUE, "n")
    one, two = claim(consumer, 2)
    settlements = [
        Settlement(one, publish=[make_message("next")]),
        Settlement(two, Action.DEAD, reason="r"),
    ]
    proxy.swallow = b"EVALSHA"
    with pytest.raises(BrokerUnavailable):
        consumer.exchange(settlements, 1)
    assert not consumer.exchange(settlements, 1)
    depths = broker.depths(["q", "next"])
    assert depths == {"q": Depth(dead=1), "next": depths["next"]}
    assert depths["next"].ready == 1
    consumer.close()


def test_what_was_not_carried_out_is_done_again(serve: Serve, opened: Opened) -> None:
    server = serve()
    broker = opened(server.url)
    broker.publish([make_message("q") for _ in range(3)])
    consumer = broker.consumer(QUEUE, "n")
    (one,) = claim(consumer, 1)
    server.call("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(BrokerUnavailable):
        consumer.exchange([Settlement(one)], 1)
    (two,) = claim_patiently(consumer, [Settlement(one)])
    assert broker.depths(["q"])["q"].claimed == 1
    consumer.exchange([Settlement(two)], 0)
    consumer.close()
    assert broker.depths(["q"])["q"].ready == 1


def claim_patiently(consumer: object, settlements: list[Settlement]) -> list[object]:
    def attempt() -> list[object]:
        try:
            return list(consumer.exchange(settlements, 1))  # type: ignore[attr-defined]
        except BrokerUnavailable:
            return []

    return list(wait_for(attempt, "the consumer is back"))


def test_a_cut_connection_for_news_wakes_and_is_made_again(serve: Serve, opened: Opened) -> None:
    server = serve()
    broker = opened(server.url)
    consumer = broker.consumer(QUEUE, "n")
    assert not consumer.drain()
    server.call("CLIENT", "KILL", "TYPE", "pubsub")
    assert is_readable(consumer, 5)
    assert consumer.drain()
    assert not consumer.exchange((), 1)
    consumer.drain()
    assert not is_readable(consumer)
    broker.publish([make_message("q")])
    assert is_readable(consumer, 5)
    consumer.close()


def test_what_a_given_up_connection_still_brings_is_void(serve: Serve, opened: Opened) -> None:
    server = serve()
    broker = opened(server.url, socket_timeout=0.3)
    messages = [make_message("q") for _ in range(4)]
    broker.publish(messages)
    consumer = broker.consumer(QUEUE, "n", lease=60)
    server.freeze()
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"not answered within 0\.3 s"):
        consumer.exchange((), 2)
    with pytest.raises(OperationalError):
        broker.publish([make_message("q")])
    assert time.monotonic() - began < 3
    server.thaw()
    # Both the old request and the new connection are in the server's hands now.
    found = []
    while len(found) < 4:
        found += claim_patiently(consumer, [])
    assert [id_of(d) for d in found] == [m.id for m in messages]
    assert broker.depths(["q"])["q"].claimed == 4
    consumer.close()


def test_a_restarted_server_without_its_data(serve: Serve, opened: Opened) -> None:
    server = serve()
    broker = opened(server.url)
    consumer = broker.consumer(QUEUE, "n")
    server.stop()
    with pytest.raises(BrokerUnavailable):
        consumer.exchange((), 1)
    with pytest.raises(BrokerUnavailable, match="cannot reach Redis at redis"):
        broker.publish([make_message("q")])
    assert consumer.drain()
    server.start()
    message = make_message("q")
    broker.publish([message])
    with pytest.raises(LeaseLost):
        consumer.exchange((), 1)
    with pytest.raises(LeaseLost):
        consumer.renew()
    consumer.close()
    another = broker.consumer(QUEUE, "n")
    assert ids_of(claim(another, 1)) == [message.id]
    another.close()


def test_scripts_that_the_server_forgot_are_loaded_again(serve: Serve, opened: Opened) -> None:
    server = serve()
    broker = opened(server.url)
    consumer = broker.consumer(QUEUE, "n")
    for _ in range(2):
        server.call("SCRIPT", "FLUSH")
        broker.publish([make_message("q"), make_message("q")])
        consumer.exchange([Settlement(d) for d in claim(consumer, 2)], 0)
    assert broker.depths(["q"])["q"] == Depth()
    consumer.close()


def test_a_listener_comes_back_and_finds_what_it_missed(serve: Serve) -> None:
    server = serve()
    store = open_results(server.url)
    assert isinstance(store, RedisResults)
    listener, (missed, later) = store.listener("me"), (new_id(), new_id())
    listener.watch([missed, later], sent_here=True)
    for _ in range(2):
        server.call("CLIENT", "KILL", "TYPE", "pubsub")
        store.put([Outcome(missed, "SUCCESS", b'{"status":"SUCCESS"}')])
    assert [o.task_id for o in wait_for(lambda: listener.wait(5), "news")] == [missed]
    store.put([Outcome(later, "SUCCESS", b'{"status":"SUCCESS"}')])
    assert [o.task_id for o in wait_for(lambda: listener.wait(5), "news")] == [later]
    server.stop()
    with pytest.raises(BackendError, match="cannot reach"):
        listener.wait(5)
    with pytest.raises(BackendError):
        store.put([Outcome(later, "SUCCESS", b"")])
    listener.close()
    store.close()


# --- servers that refuse


def test_passwords(serve: Serve, opened: Opened) -> None:
    server = serve("--requirepass", "secret")
    with pytest.raises(BrokerUnavailable, match="wants a password"):
        opened(server.url).publish([make_message("q")])
    with pytest.raises(BrokerUnavailable, match="refused the user name or password") as caught:
        opened(server.url, password="wrong!").publish([make_message("q")])
    assert "wrong!" not in str(caught.value)
    broker = opened(server.url, password="secret")
    broker.publish([make_message("q")])
    server.call("ACL", "SETUSER", "ann", "on", ">pw", "+@all", "-lpush", "~*", password="secret")
    with pytest.raises(BrokerUnavailable, match="ACL"):
        opened(server.url, username="ann", password="pw").publish([make_message("q")])


def test_servers_that_are_not_there(tmp_path: Path, opened: Opened) -> None:
    for url in ("redis://127.0.0.1:1", f"redis+socket://{tmp_path}/none"):
        with pytest.raises(BrokerUnavailable, match="cannot reach Redis at redis"):
            opened(url).publish([make_message("q")])
        with pytest.raises(BrokerUnavailable):
            opened(url).consumer(QUEUE, "n")
        store = open_results(url)
        with pytest.raises(BackendError):
            store.get(["id"])
        with pytest.raises(BackendError):
            store.listener("me")


def test_a_full_server_loses_nothing_and_lets_nodes_make_room(serve: Serve, opened: Opened) -> None:
    server = serve()
    broker = opened(server.url)
    messages = [make_message("q") for _ in range(8)]
    broker.publish(messages)
    consumer = broker.consumer(QUEUE, "n")
    found = claim(consumer, 2)
    server.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(BrokerUnavailable, match="out of memory"):
        broker.publish([make_message("q")])
    found += claim(consumer, 4)
    one, two, three, four, five, _ = found
    outcome = Outcome(id_of(one), "SUCCESS", b'{"status":"SUCCESS"}')
    for settlement in (
        Settlement(one, outcome=outcome),
        Settlement(two, publish=[make_message("q")]),
        Settlement(three, Action.REQUEUE),
        Settlement(four, Action.DEAD),
        Settlement(five, Action.DEFER, until=time.time() + 60),
    ):
        consumer.exchange([settlement], 0)
    depth = broker.depths(["q"])["q"]
    assert (depth.ready, depth.claimed, depth.dead, depth.delayed) == (4, 1, 1, 1)
    assert server.call("GET", f"celery-task-meta-{id_of(one)}") == outcome.payload
    assert ids_of(found) == [message.id for message in messages[:6]]
    consumer.close()
    depth = broker.depths(["q"])["q"]
    assert (depth.ready, depth.claimed) == (5, 0)


def test_without_tracking_it_looks_twice_a_second(serve: Serve, opened: Opened) -> None:
    server = serve()
    server.call("ACL", "SETUSER", "ann", "on", ">pw", "+@all", "-client|tracking", "~*", "&*")
    broker = opened(server.url, username="ann", password="pw")
    consumer = broker.consumer(QUEUE, "n")
    assert not consumer.exchange((), 1)
    assert not consumer.drain()
    due = consumer.next_due()
    assert due is not None
    assert 0 < due - time.time() < 1
    broker.publish([make_message("q")])
    assert consumer.drain()
    consumer.wake()
    assert is_readable(consumer)
    assert len(consumer.exchange((), 1)) == 1
    consumer.close()


def test_tls(tmp_path: Path, serve: Serve, opened: Opened) -> None:
    certificate, key = str(tmp_path / "c.pem"), str(tmp_path / "k.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve(
        "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-cert-file", certificate,
        "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no",
    )  # fmt: skip
    url = f"rediss://localhost:{port}"
    with pytest.raises(BrokerUnavailable, match="no TLS connection"):
        opened(url).publish([make_message("q")])
    with pytest.raises(ImproperlyConfigured, match="cannot read a certificate"):
        opened(url, ssl_ca_certs=str(tmp_path / "none.pem")).publish([make_message("q")])
    options = {"ssl_ca_certs": certificate}
    broker, store = opened(url, **options), open_results(url, options)
    consumer, listener = broker.consumer(QUEUE, "n"), store.listener("me")
    assert broker.shares(store)
    assert not consumer.exchange((), 1)
    messages = [make_message("q", b"x" * 300_000) for _ in range(3)]
    broker.publish(messages)
    assert is_readable(consumer, 5)
    assert consumer.drain()
    found = claim(consumer, 3)
    assert [d.body for d in found] == [m.body for m in messages]
    ids = ids_of(found)
    listener.watch(ids, sent_here=True)
    payload = b'{"status":"SUCCESS","result":"%b"}' % (b"y" * 100_000)
    consumer.exchange(
        [Settlement(d, outcome=Outcome(id_of(d), "SUCCESS", payload)) for d in found], 0
    )
    heard: set[str] = set()
    deadline = time.monotonic() + 5
    while len(heard) < 3 and time.monotonic() < deadline:
        heard.update(o.task_id for o in listener.wait(1) if o.payload == payload)
    assert heard == set(ids)
    listener.close()
    consumer.close()
    store.close()
