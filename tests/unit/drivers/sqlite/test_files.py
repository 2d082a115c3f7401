"""Files that are not there, not ours, not writable, full or locked."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil.drivers.contracts import Queue, Settlement
from chervil.drivers.sqlite import database, schema
from chervil.drivers.sqlite.broker import SqliteBroker
from chervil.drivers.sqlite.results import SqliteResults
from chervil.exceptions import (
    BackendError,
    BrokerUnavailable,
    ImproperlyConfigured,
    LeaseLost,
    MessageTooLarge,
)
from chervil.ids import new_id
from chervil.testing.harness import claim, ids_of, in_fork, make_message, wait_for
from chervil.wire.message import Outcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chervil.db"


@pytest.fixture
def broker(path: Path) -> Iterator[SqliteBroker]:
    broker = SqliteBroker(f"sqlite:///{path}", {"busy_timeout": 0.1})
    yield broker
    broker.close()


@pytest.fixture
def store(path: Path) -> Iterator[SqliteResults]:
    store = SqliteResults(f"sqlite:///{path}", {"busy_timeout": 0.1})
    yield store
    store.close()


def outcome() -> Outcome:
    return Outcome(new_id(), "SUCCESS", b"{}")


@pytest.fixture
def other(path: Path, broker: SqliteBroker) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection to the file."""
    broker.declare([])
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    broker = SqliteBroker(f"sqlite:///{tmp_path}/not/there.db")
    with pytest.raises(ImproperlyConfigured, match=f"{tmp_path}/not of .* create it"):
        broker.publish([make_message("q")])


def test_opening_touches_nothing(path: Path, broker: SqliteBroker, store: SqliteResults) -> None:
    assert broker.shares(store)
    broker.close()
    assert not path.exists()


def test_another_file_is_left_alone(path: Path, broker: SqliteBroker, store: SqliteResults) -> None:
    path.write_bytes(b"a file of something else entirely\n" * 100)
    before = path.read_bytes()
    with pytest.raises(BrokerUnavailable, match="not an SQLite database"):
        broker.publish([make_message("q")])
    with pytest.raises(BackendError, match="not an SQLite database"):
        store.put([outcome()])
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(path: Path, broker: SqliteBroker) -> None:
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE messages (x)")
    theirs.commit()
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(ImproperlyConfigured, match="another program"):
        broker.publish([make_message("q")])
    assert path.read_bytes() == before


def test_a_newer_version_is_named(
    path: Path, broker: SqliteBroker, other: sqlite3.Connection
) -> None:
    other.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    broker.close()
    with pytest.raises(ImproperlyConfigured, match="newer Chervil"):
        broker.publish([make_message("q")])


def test_a_full_disk_is_named_and_passes(path: Path, broker: SqliteBroker) -> None:
    broker.publish([make_message("q")])
    link = broker.database.take()
    pages = link.execute("PRAGMA page_count").fetchone()[0]
    link.execute(f"PRAGMA max_page_count = {pages + 1}")
    broker.database.give(link)
    with pytest.raises(BrokerUnavailable, match="the disk is full"):
        broker.publish([make_message("q", b"x" * 100_000)])
    assert broker.depths()["q"].ready == 1
    link = broker.database.take()
    link.execute("PRAGMA max_page_count = 1000000")
    broker.database.give(link)
    broker.publish([make_message("q", b"x" * 100_000)])
    assert broker.depths()["q"].ready == 2


def test_a_connection_that_cannot_write_is_named_and_replaced(broker: SqliteBroker) -> None:
    broker.declare([Queue("q")])
    link = broker.database.take()
    link.execute("PRAGMA query_only = ON")
    broker.database.give(link)
    with pytest.raises(BrokerUnavailable, match="cannot be written to"):
        broker.publish([make_message("q")])
    broker.publish([make_message("q")])
    assert broker.depths()["q"].ready == 1


def test_a_damaged_file_is_named(path: Path, broker: SqliteBroker) -> None:
    broker.publish([make_message("q", b"x" * 2000) for _ in range(100)])
    broker.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(BrokerUnavailable, match="damaged"):
        broker.publish([make_message("q")])


def test_a_lock_that_is_held_too_long_is_named(
    broker: SqliteBroker, store: SqliteResults, other: sqlite3.Connection
) -> None:
    consumer = broker.consumer([Queue("q")], "node")
    broker.publish([make_message("q")])
    (delivery,) = claim(consumer, 1)
    other.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"locked .* busy_timeout of 0.1 s"):
        broker.publish([make_message("q")])
    assert 0.1 <= time.monotonic() - start < 2
    with pytest.raises(BackendError, match="busy_timeout"):
        store.put([outcome()])
    with pytest.raises(BrokerUnavailable, match="busy_timeout"):
        consumer.exchange([Settlement(delivery)], 1)
    # Looking takes no lock, and nothing was lost.
    assert not consumer.exchange((), 5)
    assert store.get([new_id()]) == {}
    other.execute("ROLLBACK")
    consumer.exchange([Settlement(delivery)], 1)
    assert broker.depths()["q"].claimed == 0
    consumer.close()


def test_waiting_for_the_lock_succeeds(path: Path, other: sqlite3.Connection) -> None:
    patient = SqliteBroker(f"sqlite:///{path}")
    other.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=patient.publish, args=([make_message("q")],))
    thread.start()
    wait_for(lambda: patient.database._lent == 1, "the thread waits")
    other.execute("COMMIT")
    thread.join(5)
    assert not thread.is_alive()
    assert patient.depths()["q"].ready == 1
    patient.close()


def test_a_message_that_no_file_can_hold(broker: SqliteBroker) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2_000_000_000

    message = make_message("q", Huge(b"x"))
    with pytest.raises(MessageTooLarge, match=message.id):
        broker.publish([make_message("q"), message])
    assert broker.depths() == {}


def test_a_large_message(broker: SqliteBroker) -> None:
    body = os.urandom(1 << 20) * 50
    broker.publish([make_message("q", body)])
    consumer = broker.consumer([Queue("q")], "node")
    (delivery,) = claim(consumer, 1)
    assert delivery.body == body
    consumer.exchange([Settlement(delivery)], 0)
    consumer.close()


@pytest.mark.parametrize("name", ["nul\0inside", "", "ü" * 40_000, "a'b\"c;--", "new\nline"])
def test_names_of_queues(broker: SqliteBroker, name: str) -> None:
    consumer = broker.consumer([Queue(name), Queue("other")], "node")
    broker.publish([make_message(name)])
    (delivery,) = claim(consumer, 1)
    assert delivery.queue == name
    assert broker.depths([name])[name].claimed == 1
    assert broker.depths(["other"])["other"].claimed == 0
    consumer.close()


def test_a_name_that_is_no_text(broker: SqliteBroker) -> None:
    with pytest.raises(ImproperlyConfigured, match="name of a queue"):
        broker.publish([make_message("half \ud800")])


def test_many_processes_create_the_file_together(path: Path) -> None:
    code = (
        "import sys\nfrom chervil.drivers.registry import open_broker\n"
        "from chervil.testing.harness import make_message\nsys.stdin.readline()\n"
        "open_broker(sys.argv[1]).publish([make_message('q')])"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{path}"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, results
    broker = SqliteBroker(f"sqlite:///{path}")
    assert broker.depths()["q"].ready == 5
    broker.close()


def test_synchronous_is_applied(path: Path) -> None:
    for name, level in (("NORMAL", 1), ("FULL", 2), ("EXTRA", 3)):
        broker = SqliteBroker(f"sqlite:///{path}?synchronous={name}")
        found = broker.database.read(lambda link: link.execute("PRAGMA synchronous").fetchone()[0])
        assert found == level
        broker.close()


def test_a_fork_in_the_middle_of_an_operation_is_refused(
    broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish([make_message("q")])
    link = broker.database.take()
    monkeypatch.setattr(database, "_FORK_WAIT", 0.05)

    def child() -> None:
        with pytest.raises(BrokerUnavailable, match="forked while another thread"):
            broker.publish([make_message("q")])

    assert in_fork(child) == 0
    broker.database.give(link)
    broker.publish([make_message("q")])
    assert broker.depths()["q"].ready == 2


def test_a_fork_closes_what_was_open(broker: SqliteBroker) -> None:
    broker.publish([make_message("q")])
    assert broker.database._idle
    assert in_fork(lambda: _assert_no_connections(broker)) == 0
    assert not broker.database._idle


def _assert_no_connections(broker: SqliteBroker) -> None:
    assert not broker.database._idle
    found = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    assert broker.location.path not in found


def _wait_for_a_look(broker: SqliteBroker) -> None:
    wait_for(lambda: time.monotonic() > broker.database._look_at, "it looks again")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_deleted_or_replaced_in_use(
    replaced: bool, path: Path, broker: SqliteBroker, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = broker.consumer([Queue("q")], "node")
    broker.publish([make_message("q"), make_message("q")])
    (mine, _) = claim(consumer, 2)
    for name in (path, f"{path}-wal", f"{path}-shm"):
        os.unlink(name)
    if replaced:
        with_others = SqliteBroker(f"sqlite:///{path}")
        theirs = make_message("q")
        with_others.publish([theirs])
        with_others.close()
    _wait_for_a_look(broker)
    # What is sent now is where everybody looks for it.
    sent = make_message("q")
    broker.publish([sent])
    assert "deleted or replaced" in caplog.text
    with pytest.raises(LeaseLost):
        consumer.renew()
    time.sleep(max(0, consumer._database._look_at - time.monotonic()))
    with pytest.raises(LeaseLost):
        consumer.exchange([Settlement(mine)], 1)
    consumer.close()
    fresh = SqliteBroker(f"sqlite:///{path}")
    again = fresh.consumer([Queue("q")], "node")
    expected = [theirs.id, sent.id] if replaced else [sent.id]
    assert ids_of(claim(again, len(expected))) == expected
    again.close()
    fresh.close()
