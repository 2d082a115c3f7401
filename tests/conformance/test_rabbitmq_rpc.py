"""Results by ``rpc://`` through the suite of result stores, and what only they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.listener import RpcListener
from chervil.drivers.amqp.location import parse
from chervil.drivers.amqp.properties import frames
from chervil.drivers.amqp.results import RpcResults
from chervil.drivers.registry import open_results
from chervil.exceptions import BackendError, BrokerUnavailable, ImproperlyConfigured
from chervil.ids import new_id, new_ids
from chervil.testing.harness import PATIENCE, other_process, wait_for
from chervil.testing.stores import StoreConformance, outcome
from chervil.wire.message import Outcome

pytestmark = pytest.mark.requires_server("rabbitmq")


@pytest.fixture
def store_url(server_url: Callable[[str], str]) -> str:
    return server_url("rabbitmq").replace("amqp://", "rpc://", 1)


class TestStore(StoreConformance):
    private = True

    @pytest.fixture
    def store_url(self, store_url: str) -> str:
        return store_url


@pytest.fixture
def open_store(store_url: str) -> Iterator[Callable[..., RpcResults]]:
    stores: list[RpcResults] = []

    def start(**options: Any) -> RpcResults:
        store = open_results(store_url, options)
        assert isinstance(store, RpcResults)
        stores.append(store)
        return store

    yield start
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., RpcResults]) -> RpcResults:
    return open_store(result_expires=3600)


@pytest.fixture
def other(open_store: Callable[..., RpcResults]) -> RpcResults:
    """The worker, say."""
    return open_store()


@pytest.fixture
def link(server_url: Callable[[str], str]) -> Iterator[Link]:
    link = Link(parse(server_url("rabbitmq"), {}), BackendError)
    yield link
    link.close()


@pytest.fixture
def listener(store: RpcResults) -> Iterator[RpcListener]:
    listener = store.listener(new_id())
    yield listener
    listener.close()


def is_there(link: Link, queue: str) -> bool:
    """Whether there is such a queue, without using it as a declaration would: a message to
    nobody comes back."""
    packed = frames(b"\0\0", b"", "", queue, link.session.frame_max, 2)
    return not link.publish([packed], link.ready(2, confirm=True))


def hear(listener: RpcListener, ids: list[str]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    deadline = time.monotonic() + PATIENCE
    while not found.keys() >= set(ids):
        assert time.monotonic() < deadline, f"heard of {len(found)} of {len(ids)}"
        for news in listener.wait(deadline - time.monotonic()):
            found[news.task_id] = news
    return found


def test_the_queue_is_declared_before_a_task_is_sent(store: RpcResults, link: Link) -> None:
    address = new_id()
    assert not is_there(link, address)
    store.expect(address, ["a"])
    arguments = {"x-expires": 3_600_000, "x-message-ttl": 3_600_000}
    link.call(1, m.QUEUE_DECLARE, address, False, True, False, False, False, arguments)
    assert store.awaits("a")
    assert not store.awaits("b")


def test_what_arrives_before_anybody_looks_waits(store: RpcResults, other: RpcResults) -> None:
    address, ids = new_id(), new_ids(300)
    store.expect(address, ids)
    other.put([outcome(i, payload=i.encode(), reply_to=address) for i in ids])
    listener = store.listener(address)
    listener.watch(ids, sent_here=True)
    while len(store.get(ids)) < 300:
        assert listener.wait(PATIENCE)
    assert {i: o.payload for i, o in store.get(ids).items()} == {i: i.encode() for i in ids}
    listener.close()


def test_results_for_somebody_who_has_gone_are_dropped(
    store: RpcResults, listener: RpcListener
) -> None:
    mine, gone, nobodys = new_ids(3)
    listener.watch([mine], sent_here=True)
    store.put(
        [
            outcome(gone, reply_to=new_id()),
            outcome(nobodys),
            outcome(new_id(), reply_to="x" * 300),
            outcome(mine, reply_to=listener.address),
        ]
    )
    assert set(hear(listener, [mine])) == {mine}
    assert not store.get([gone, nobodys])


def test_what_arrives_while_the_connection_is_away(
    store: RpcResults, other: RpcResults, listener: RpcListener
) -> None:
    ids = new_ids(4)
    listener.watch(ids, sent_here=True)
    other.put([outcome(ids[0], reply_to=listener.address)])
    hear(listener, ids[:1])
    inbox = listener._inbox
    assert inbox._link is not None
    inbox._link.sever()
    other.put([outcome(ids[1], reply_to=listener.address)])
    assert set(hear(listener, ids[1:2])) >= {ids[1]}
    heard: dict[str, Outcome] = {}
    thread = threading.Thread(target=lambda: heard.update(hear(listener, ids[2:3])))
    thread.start()
    wait_for(inbox._is_read, "the thread waits")
    inbox._link.sever()
    other.put([outcome(ids[2], reply_to=listener.address)])
    thread.join(PATIENCE)
    assert ids[2] in heard
    listener.close()
    inbox._link.sever()
    other.put([outcome(ids[3], reply_to=listener.address)])
    assert set(store.get(ids)) == set(ids)


def test_a_deleted_queue_is_declared_again(
    store: RpcResults, other: RpcResults, listener: RpcListener, link: Link
) -> None:
    task_id = new_id()
    listener.watch([task_id], sent_here=True)
    link.call(1, m.QUEUE_DELETE, listener.address, False, False, False)

    wait_for(lambda: listener.wait(0.05) or is_there(link, listener.address), "the queue is back")
    other.put([outcome(task_id, reply_to=listener.address)])
    assert set(hear(listener, [task_id])) == {task_id}


def test_a_queue_that_nobody_reads_is_kept_while_tasks_are_sent(
    open_store: Callable[..., RpcResults], link: Link
) -> None:
    store = open_store(result_expires=2.0)
    address, end = new_id(), time.monotonic() + 4.0
    while time.monotonic() < end:
        store.expect(address, ["a"])
        assert is_there(link, address)
        time.sleep(0.02)
    wait_for(lambda: not is_there(link, address), "it expires afterwards")
    store.expect(address, ["b"])
    assert is_there(link, address)


def test_closing_deletes_the_queue(store: RpcResults, link: Link) -> None:
    address = new_id()
    listener = store.listener(address)
    assert is_there(link, address)
    listener.close()
    store.close()
    assert not is_there(link, address)
    store.expect(address, ["again"])
    assert is_there(link, address)


@pytest.mark.parametrize("listens", [False, True])
def test_the_end_of_a_process_deletes_its_queue(store_url: str, link: Link, listens: bool) -> None:
    code = (
        "import threading\nstore = open_results(url)\nstore.expect(address, ['a'])\n"
        "if listens:\n"
        "    listener = store.listener(address)\n"
        "    threading.Thread(target=listener.wait, args=(60,), daemon=True).start()\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
    )
    address = new_id()
    with other_process(code, url=store_url, address=address, listens=listens) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        assert is_there(link, address)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0
    wait_for(lambda: not is_there(link, address), "the queue is deleted")


def test_threads_look_for_their_own(store: RpcResults, other: RpcResults) -> None:
    address, ids = new_id(), new_ids(200)
    store.expect(address, ids)
    failed: list[BaseException] = []

    def work(mine: list[str]) -> None:
        try:
            for task_id in mine:
                other.put([outcome(task_id, reply_to=address)])
                assert task_id in store.get([task_id])
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(ids[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_server_that_is_away(store_url: str) -> None:
    store = open_results("rpc://guest:guest@127.0.0.1:1//")
    assert isinstance(store, RpcResults)
    with pytest.raises(BrokerUnavailable, match="results could not arrive"):
        store.expect("x", ["a"])
    with pytest.raises(BackendError):
        store.listener("x")
    with pytest.raises(BackendError):
        store.put([outcome("a", reply_to="x")])
    store.close()


def test_the_brokers_address_is_used(server_url: Callable[[str], str]) -> None:
    url = server_url("rabbitmq")
    for given in ("rpc://", "rpc:///", "rpc", "rpc://?socket_timeout=2.5"):
        store = open_results(given, {"broker_url": url})
        assert isinstance(store, RpcResults)
        assert store.location.servers == parse(url, {}).servers
    assert store.location.socket_timeout == 2.5
    with pytest.raises(ImproperlyConfigured, match="has to be RabbitMQ"):
        open_results("rpc://", {"broker_url": "redis://localhost/0"})
    store = open_results("rpc://u:p@elsewhere//v", {"broker_url": "redis://localhost/0"})
    assert isinstance(store, RpcResults)
    assert store.location.servers[0].host == "elsewhere"
    assert store.location.servers[0].vhost == "/v"


@pytest.mark.parametrize("options", [{"kept_bytes": 0}, {"kept_bytes": "x"}, {"nonsense": 1}])
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured):
        open_results("rpc://", options)
