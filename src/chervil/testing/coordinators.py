"""What every coordinator must do, as tests: inherit them, and say where it is.

.. code-block:: python

    class TestMine(CoordinatorConformance):
        @pytest.fixture
        def coordinator_url(self) -> str:
            return "mine://localhost"

Each test uses names of its own, so the storage need not be empty.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from chervil.drivers.contracts import Queue
from chervil.drivers.coordination import ANY, NEW, Coordinator, Firing, Grant, Record, Watch
from chervil.drivers.registry import open_broker, open_coordinator
from chervil.exceptions import LeaseLost
from chervil.ids import new_id
from chervil.testing.harness import PATIENCE, claim, ids_of, make_message, wait_for

Open = Callable[[], Coordinator]


class CoordinatorConformance:
    """The whole suite. Subclasses define the fixture ``coordinator_url``."""

    @pytest.fixture
    def open_one(self, coordinator_url: str) -> Iterator[Open]:
        """Opens coordinators of the same store, as several nodes do."""
        opened: list[Coordinator] = []

        def make() -> Coordinator:
            opened.append(open_coordinator(coordinator_url))
            return opened[-1]

        yield make
        for coordinator in opened:
            coordinator.close()

    @pytest.fixture
    def one(self, open_one: Open) -> Coordinator:
        return open_one()

    @pytest.fixture
    def table(self) -> str:
        return f"table-{new_id()}"

    # --- leases

    def test_one_holds_a_lease(self, one: Coordinator, open_one: Open, table: str) -> None:
        assert one.holder(table) is None
        mine = one.acquire(table, "me", 60.0)
        assert (mine.owner, 0 < mine.remaining <= 60) == ("me", True)
        other = open_one().acquire(table, "you", 60.0)
        assert (other.owner, other.token) == ("me", mine.token)
        assert 0 < other.remaining <= 60
        holder = one.holder(table)
        assert holder is not None
        assert (holder.owner, holder.token) == ("me", mine.token)

    def test_renewing_keeps_the_token(self, one: Coordinator, table: str) -> None:
        first = one.acquire(table, "me", 60.0)
        assert one.acquire(table, "me", 90.0).token == first.token

    def test_who_comes_after_gets_a_larger_token(self, one: Coordinator, table: str) -> None:
        mine = one.acquire(table, "me", 0.05)
        found = wait_for(lambda: _taken(one, table, "you"), "the lease runs out")
        assert found.token > mine.token
        assert one.acquire(table, "me", 60.0).owner == "you"

    def test_a_released_lease_is_free(self, one: Coordinator, table: str) -> None:
        mine = one.acquire(table, "me", 60.0)
        one.release(table, mine.token + 1)
        assert one.holder(table) is not None
        one.release(table, mine.token)
        assert one.holder(table) is None
        yours = one.acquire(table, "you", 60.0)
        assert yours.owner == "you"
        assert yours.token > mine.token

    # --- records

    def test_records_come_back(self, one: Coordinator, open_one: Open, table: str) -> None:
        data = bytes(range(256))
        versions = one.put(table, [Record("a", data), Record("ü:1", b"")])
        assert all(versions)
        found = {record.key: record for record in open_one().get(table)}
        assert {k: r.data for k, r in found.items()} == {"a": data, "ü:1": b""}
        assert [found["a"].version, found["ü:1"].version] == list(versions)
        assert [r.key for r in one.get(table, ["none", "a", "a"])] == ["a"]
        assert list(one.get(table, [])) == []
        assert list(one.get(f"{table}-other")) == []

    def test_a_version_is_replaced_once(self, one: Coordinator, table: str) -> None:
        (first,) = one.put(table, [Record("a", b"1", NEW)])
        assert list(one.put(table, [Record("a", b"2", NEW)])) == [0]
        (second,) = one.put(table, [Record("a", b"2", first)])
        assert second > first
        answers = one.put(table, [Record("a", b"3", first), Record("b", b"x", NEW)])
        assert [bool(answer) for answer in answers] == [False, True]
        assert one.get(table, ["a"])[0].data == b"2"
        assert all(one.put(table, [Record("a", b"4", ANY)]))

    def test_versions_do_not_come_again(self, one: Coordinator, table: str) -> None:
        (first,) = one.put(table, [Record("a", b"1")])
        assert one.delete(table, ["a", "a", "none"]) == 1
        assert one.delete(table, ["a"]) == 0
        (second,) = one.put(table, [Record("a", b"1", NEW)])
        assert second > first
        assert list(one.put(table, [Record("a", b"2", first)])) == [0]

    def test_many_records(self, one: Coordinator, table: str) -> None:
        records = [Record(f"key-{number}", str(number).encode()) for number in range(2500)]
        assert all(one.put(table, records))
        assert {r.key: r.data for r in one.get(table)} == {r.key: r.data for r in records}
        assert one.delete(table, [record.key for record in records]) == 2500

    # --- changes

    def test_changes_are_told(self, one: Coordinator, open_one: Open, table: str) -> None:
        watch = one.watch(table)
        try:
            before = one.changes(table)
            assert not watch.wait(0)
            other = open_one()
            other.put(f"{table}-other", [Record("a", b"1")])
            assert not watch.wait(0)
            other.put(table, [Record("a", b"1")])
            assert _told(watch)
            assert one.changes(table) > before
            assert not watch.wait(0)
            other.delete(table, ["none"])
            assert not watch.wait(0)
            other.delete(table, ["a"])
            assert _told(watch)
        finally:
            watch.close()
            watch.close()

    def test_a_watch_can_be_woken(self, one: Coordinator, table: str) -> None:
        watch = one.watch(table)
        try:
            timer = threading.Timer(0.05, watch.wake)
            timer.start()
            began = time.monotonic()
            assert not watch.wait(PATIENCE)
            assert time.monotonic() - began < PATIENCE
            timer.join()
        finally:
            watch.close()

    # --- firing

    def test_fire_stores_record_and_message(
        self, one: Coordinator, coordinator_url: str, table: str
    ) -> None:
        broker = open_broker(coordinator_url)
        queue = f"queue-{new_id()}"
        try:
            assert one.shares(broker)
            token = one.acquire(table, "me", 60.0).token
            (version,) = one.put(table, [Record("a", b"1")])
            first, second, later = (
                make_message(queue),
                make_message(queue),
                make_message(queue, due=time.time() + 3600),
            )
            watch = one.watch(table)
            changes = one.changes(table)
            (fired,) = one.fire(
                table, table, token, [Firing(Record("a", b"2", version), (first, later))]
            )
            assert fired > version
            # The same version again: nothing is stored.
            answers = one.fire(table, table, token, [Firing(Record("a", b"3", version), (second,))])
            assert list(answers) == [0]
            assert one.get(table, ["a"])[0].data == b"2"
            assert one.changes(table) == changes
            assert not watch.wait(0)
            watch.close()
            consumer = broker.consumer([Queue(queue)], "node")
            assert ids_of(claim(consumer, 1)) == [first.id]
            depth = broker.depths([queue])[queue]
            assert (depth.ready, depth.delayed, depth.claimed) == (0, 1, 1)
            consumer.close()
        finally:
            broker.purge(queue)
            broker.close()

    def test_fire_wakes_a_consumer(
        self, one: Coordinator, coordinator_url: str, table: str
    ) -> None:
        broker = open_broker(coordinator_url)
        queue = f"queue-{new_id()}"
        consumer = broker.consumer([Queue(queue)], "node")
        try:
            assert not consumer.exchange((), 1)
            consumer.drain()
            token = one.acquire(table, "me", 60.0).token
            (version,) = one.put(table, [Record("a", b"1")])
            message = make_message(queue)
            one.fire(table, table, token, [Firing(Record("a", b"2", version), (message,))])
            assert ids_of(claim(consumer, 1)) == [message.id]
        finally:
            consumer.close()
            broker.close()

    def test_only_the_holder_fires(self, one: Coordinator, table: str) -> None:
        mine = one.acquire(table, "me", 0.05)
        (version,) = one.put(table, [Record("a", b"1")])
        wait_for(lambda: _taken(one, table, "you"), "the lease runs out")
        with pytest.raises(LeaseLost):
            one.fire(table, table, mine.token, [Firing(Record("a", b"2", version))])
        assert one.get(table, ["a"])[0].data == b"1"

    def test_who_released_does_not_fire(self, one: Coordinator, table: str) -> None:
        mine = one.acquire(table, "me", 60.0)
        (version,) = one.put(table, [Record("a", b"1")])
        one.release(table, mine.token)
        with pytest.raises(LeaseLost):
            one.fire(table, table, mine.token, [Firing(Record("a", b"2", version))])

    def test_pending_messages_are_kept(self, one: Coordinator, open_one: Open, table: str) -> None:
        token = one.acquire(table, "me", 60.0).token
        versions = one.put(table, [Record(str(n), b"1") for n in range(3)])
        messages = [make_message("q", due=5.0, priority=3, reply_to="x") for _ in range(3)]
        firings = [
            Firing(Record(str(n), b"2", versions[n] + (n == 1)), (), (messages[n],))
            for n in range(3)
        ]
        answers = one.fire(table, table, token, firings)
        assert [bool(a) for a in answers] == [True, False, True]
        found = {message.id: message for message in open_one().pending(table)}
        assert found == {message.id: message for message in (messages[0], messages[2])}
        one.sent(table, [messages[0].id])
        assert [m.id for m in one.pending(table)] == [messages[2].id]
        one.sent(table, [messages[2].id])
        assert not one.pending(table)

    def test_many_at_once_are_fired_once(self, open_one: Open, table: str) -> None:
        """Several threads that believe in the same token."""
        first = open_one()
        token = first.acquire(table, "me", 60.0).token
        versions = first.put(table, [Record(str(n), b"0") for n in range(50)])
        firings = [Firing(Record(str(n), b"1", versions[n])) for n in range(50)]
        counts: list[int] = []

        def fire(coordinator: Coordinator) -> None:
            counts.append(sum(map(bool, coordinator.fire(table, table, token, firings))))

        threads = [threading.Thread(target=fire, args=(open_one(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(counts) == [0, 0, 0, 50]


def _taken(coordinator: Coordinator, name: str, owner: str) -> Grant | None:
    grant = coordinator.acquire(name, owner, 60.0)
    return grant if grant.owner == owner else None


def _told(watch: Watch) -> bool:
    """A wait may end early; the change comes in time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if watch.wait(0.2):
            return True
    return False
