"""Sockets, locks, and what happens when a datagram is lost or its receiver dead."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil import clock
from chervil.drivers.contracts import Delivery, Depth, Queue, Settlement
from chervil.drivers.sqlite import listener as listener_module
from chervil.drivers.sqlite import outcomes, wake
from chervil.drivers.sqlite.broker import SqliteBroker
from chervil.drivers.sqlite.results import SqliteResults
from chervil.drivers.sqlite.wake import Bell, Ear, Places
from chervil.exceptions import LeaseLost
from chervil.ids import new_id
from chervil.testing.harness import claim, ids_of, in_fork, is_readable, make_message, wait_for
from chervil.wire.message import Outcome


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/chervil.db"


@pytest.fixture
def broker(url: str) -> Iterator[SqliteBroker]:
    broker = SqliteBroker(url)
    yield broker
    broker.close()


@pytest.fixture
def store(url: str) -> Iterator[SqliteResults]:
    store = SqliteResults(url)
    yield store
    store.close()


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every datagram is lost."""
    monkeypatch.setattr(Bell, "ring", lambda self, names, data=b"": [])


def rows(broker: SqliteBroker, table: str) -> int:
    return int(
        broker.database.read(
            lambda link: link.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        )
    )


def test_a_lost_datagram_is_noticed(broker: SqliteBroker, deaf: None) -> None:
    consumer = broker.consumer([Queue("q")], "node")
    consumer.drain()
    assert not consumer.drain()
    broker.publish([make_message("q")])
    assert not is_readable(consumer)
    assert consumer.drain()
    assert not consumer.drain()
    claim(consumer, 1)
    assert not consumer.drain()
    consumer.close()


def test_a_listener_notices_lost_datagrams(store: SqliteResults, deaf: None) -> None:
    listener = store.listener("me")
    task_id = new_id()
    listener.watch([task_id], sent_here=True)
    store.put([Outcome(task_id, "SUCCESS", b"p", reply_to="me")])
    (found,) = listener.wait(5)
    assert (found.task_id, found.payload) == (task_id, b"p")
    assert not listener.wait(0.3)  # once
    listener.close()


def test_checks_grow_rarer(
    store: SqliteResults, deaf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_FIRST_CHECK", 0.01)
    monkeypatch.setattr(listener_module, "_LAST_CHECK", 0.02)
    listener = store.listener("me")
    listener._check = 0.01
    listener.watch(["x"], sent_here=True)
    assert not listener.wait(0.1)
    assert listener._check == 0.02
    listener.close()


def test_listeners_are_told_of_others_only_while_they_wait_for_them(
    store: SqliteResults, broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "_UNFLAG", 0.05)
    listener = store.listener("me")
    flagged = "listeners WHERE foreign_ids"
    listener.watch(["mine"], sent_here=True)
    assert rows(broker, flagged) == 0
    listener.watch(["other"], sent_here=False)
    assert rows(broker, flagged) == 1
    listener.unwatch(["other"])

    def unflagged() -> bool:
        listener.wait(0.02)
        return rows(broker, flagged) == 0

    wait_for(unflagged, "the flag is taken away")
    listener.watch(["other"], sent_here=False)
    assert rows(broker, flagged) == 1
    listener.close()
    assert rows(broker, "listeners") == 0


def test_the_dead_are_forgotten(broker: SqliteBroker, store: SqliteResults) -> None:
    consumer = broker.consumer([Queue("q")], "node", 3600)
    listener = store.listener("me")
    # What a kill leaves behind: rows and files, and nobody at the sockets.
    consumer._ear.abandon()
    listener._ear.abandon()
    folder = broker.places.sockets
    assert len(os.listdir(folder)) == 3
    broker.publish([make_message("q")])
    store.put([Outcome(new_id(), "SUCCESS", b"", reply_to="me")])
    assert (rows(broker, "wants"), rows(broker, "listeners")) == (0, 0)
    assert rows(broker, "consumers") == 1
    other = broker.consumer([Queue("q")], "other")
    other.recover()
    assert rows(broker, "consumers") == 1
    assert sorted(os.listdir(folder)) == [other._ear.name, other._ear.name + ".lock"]
    other.close()
    assert os.listdir(folder) == []
    listener._closed = consumer._closed = True


def test_a_consumer_that_cannot_be_reached_is_not_dead(broker: SqliteBroker) -> None:
    consumer = broker.consumer([Queue("q")], "node")
    os.unlink(f"{broker.places.sockets}/{consumer._ear.name}")
    broker.publish([make_message("q")])
    assert rows(broker, "wants") == 1
    other = broker.consumer([Queue("q")], "other")
    assert other.recover() == 0
    consumer.wake()  # its own end still works
    assert is_readable(consumer)
    assert len(claim(consumer, 1)) == 1
    other.close()
    consumer.close()


def test_stray_files_are_swept(broker: SqliteBroker) -> None:
    consumer = broker.consumer([Queue("q")], "node")
    folder = Path(broker.places.sockets)
    old = time.time() - 2 * wake._ORPHAN_AGE
    for name in ("c-dead", "c-dead.lock", "l-dead", "c-new.lock"):
        (folder / name).touch()
        if "dead" in name:
            os.utime(folder / name, (old, old))
    for name in (consumer._ear.name, consumer._ear.name + ".lock"):
        os.utime(folder / name, (old, old))
    broker._swept = -1e9
    consumer.recover()
    names = {consumer._ear.name, consumer._ear.name + ".lock", "c-new.lock"}
    assert set(os.listdir(folder)) == names
    consumer.close()


def test_long_paths_have_their_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    broker = SqliteBroker(f"sqlite:///{deep}/chervil.db")
    places = broker.places
    assert places.sockets.startswith("/tmp/chervil-wake-")
    assert places.locks == f"{deep}/chervil.db-wake"
    consumer, other = broker.consumer([Queue("q")], "one"), broker.consumer([Queue("q")], "two")
    try:
        assert os.stat(places.sockets).st_mode & 0o077 == 0
        consumer.drain()
        broker.publish([make_message("q")])
        assert is_readable(consumer, 5)
        claim(consumer, 1)
        assert other.recover() == 0
        consumer._ear.abandon()
        assert other.recover() == 1
    finally:
        other.close()
        broker.close()
        os.rmdir(places.sockets)


def test_a_child_does_not_keep_its_parents_lock(broker: SqliteBroker) -> None:
    ready, go = os.pipe()
    consumer = broker.consumer([Queue("q")], "node", 3600)
    other = broker.consumer([Queue("q")], "other", 3600)
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(ready, 1)  # until the parent closes it
        os._exit(0)
    try:
        consumer._ear.abandon()  # as if the parent had died
        wait_for(lambda: broker.places.is_dead(consumer._ear.name), "the lock is free")
        other.recover()
        with pytest.raises(LeaseLost):
            consumer.exchange((), 1)
    finally:
        os.close(go)
        os.waitpid(pid, 0)
        os.close(ready)
    consumer.close()
    other.close()


def test_a_child_that_closes_a_consumer_ends_nothing(broker: SqliteBroker) -> None:
    broker.publish([make_message("q")])
    consumer = broker.consumer([Queue("q")], "node")
    (delivery,) = claim(consumer, 1)
    assert in_fork(consumer.close) == 0
    assert os.path.exists(f"{broker.places.sockets}/{consumer._ear.name}")
    consumer.exchange([Settlement(delivery)], 0)
    assert broker.depths()["q"] == Depth()
    consumer.close()


def test_a_lease_outlives_the_time_of_day(broker: SqliteBroker) -> None:
    manual = clock.ManualClock()
    with clock.using(manual):
        consumer = broker.consumer([Queue("q")], "node", 10)
        other = broker.consumer([Queue("q")], "other", 10)
        broker.publish([make_message("q")])
        (delivery,) = claim(consumer, 1)
        manual.jump(manual.now() + 86400)
        assert other.recover() == 0
        manual.advance(11)
        assert other.recover() == 1
        with pytest.raises(LeaseLost):
            consumer.exchange([Settlement(delivery)], 0)
        other.renew()
        consumer.close()
        other.close()


def test_nothing_of_a_lost_lease_is_stored(broker: SqliteBroker, store: SqliteResults) -> None:
    broker.publish([make_message("q")])
    consumer = broker.consumer([Queue("q")], "node")
    (delivery,) = claim(consumer, 1)
    consumer._ear.abandon()
    other = broker.consumer([Queue("q")], "other")
    assert other.recover() == 1
    (task_id,) = ids_of([delivery])
    settlement = Settlement(
        delivery, outcome=Outcome(task_id, "SUCCESS", b""), publish=[make_message("next")]
    )
    with pytest.raises(LeaseLost):
        consumer.exchange([settlement], 1)
    other.exchange([settlement], 0)
    assert store.get([task_id]) == {}
    assert broker.depths(["next"])["next"] == Depth()
    consumer.close()
    other.close()


def test_a_commit_that_was_reported_as_failed(
    broker: SqliteBroker, store: SqliteResults, url: str
) -> None:
    broker.publish([make_message("q") for _ in range(3)])
    consumer = broker.consumer([Queue("q")], "node")
    found = claim(consumer, 3)

    def settlements(deliveries: list[Delivery]) -> list[Settlement]:
        return [
            Settlement(d, outcome=Outcome(t, "SUCCESS", b""), publish=[make_message("next")])
            for d, t in zip(deliveries, ids_of(deliveries), strict=True)
        ]

    # The file says that the first one was settled; the consumer was told otherwise.
    held = dict(consumer._held)
    consumer.exchange(settlements(found[:1]), 0)
    consumer._held = held
    consumer.exchange(settlements(found), 0)
    assert broker.depths()["q"] == Depth()
    assert broker.depths()["next"].ready == 3
    assert len(store.get(ids_of(found))) == 3
    consumer.close()


def test_files_are_compared_and_not_their_names(tmp_path: Path, broker: SqliteBroker) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "chervil.db")
    same = SqliteResults(f"sqlite:///{tmp_path}/link.db")
    other = SqliteResults(f"sqlite:///{tmp_path}/other.db")
    assert broker.shares(same)
    assert not broker.shares(other)


def test_a_directory_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(str(tmp_path / ("x" * 80)))
    places.sockets = str(tmp_path / "taken")
    Path(places.sockets).symlink_to(tmp_path)
    (tmp_path / ("x" * 80)).touch()
    with pytest.raises(wake.ImproperlyConfigured, match="another user's"):
        places.make()


def test_datagrams_of_unknown_kinds_are_ignored() -> None:
    assert outcomes.read_news(b"!") == []
    assert outcomes.read_news(b"\x93\x01\x02") == []
    assert outcomes.read_news(os.urandom(50)) == []


def test_an_ear_hears_until_it_is_closed(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    places = Places(str(tmp_path / "x.db"))
    ear, bell = Ear(places, "l"), Bell(places)
    assert bell.ring([ear.name, "l-nobody"], b"news") == ["l-nobody"]
    assert ear.wait(5) == [b"news"]
    assert ear.wait(0) == []
    ear.close()
    assert bell.ring([ear.name]) == [ear.name]
    assert ear.wait(1) == []
    ear.wake()
    bell.close()


def test_closing_leaves_no_files_but_the_database(tmp_path: Path, url: str) -> None:
    broker, store = SqliteBroker(url), SqliteResults(url)
    consumer, listener = broker.consumer([Queue("q")], "n"), store.listener("me")
    broker.publish([make_message("q")])
    claim(consumer, 1)
    for thing in (consumer, listener, broker, store):
        thing.close()
    assert sorted(os.listdir(tmp_path)) == ["chervil.db", "chervil.db-wake"]
    assert os.listdir(tmp_path / "chervil.db-wake") == []
    connection = sqlite3.connect(tmp_path / "chervil.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_renewal_in_the_last_moment_counts(broker: SqliteBroker) -> None:
    with clock.using(clock.ManualClock()) as manual:
        assert isinstance(manual, clock.ManualClock)
        consumer = broker.consumer([Queue("q")], "node", 10)
        broker.publish([make_message("q")])
        claim(consumer, 1)
        until = manual.monotonic() + 10
        manual.advance(11)
        consumer.renew()  # after somebody saw it run out, before he took the claims
        number, name = consumer._id, consumer._ear.name
        assert broker.dismiss(number, name, unless_renewed_since=until) == 0
        assert broker.depths()["q"].claimed == 1
        consumer.renew()
        assert broker.dismiss(number, name, unless_renewed_since=until + 11) == 1
        consumer.close()
