"""Runs of numbers, bounded steps, and the order in which things are stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil import clock
from chervil.drivers.contracts import Action, Queue, Settlement
from chervil.drivers.sqlite import broker as broker_module
from chervil.drivers.sqlite import messages
from chervil.drivers.sqlite.broker import SqliteBroker
from chervil.drivers.sqlite.results import SqliteResults
from chervil.testing.harness import claim, ids_of, make_message
from chervil.wire.message import Outcome


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SqliteBroker]:
    broker = SqliteBroker(f"sqlite:///{tmp_path}/chervil.db")
    yield broker
    broker.close()


@given(st.sets(st.integers(min_value=1, max_value=60)))
def test_runs_cover_exactly_the_numbers(numbers: set[int]) -> None:
    found = messages.runs(list(numbers))
    covered = [number for first, last in found for number in range(first, last + 1)]
    assert covered == sorted(numbers)
    assert len(found) == sum(number - 1 not in numbers for number in numbers)


def test_many_due_at_once_are_moved_in_steps(
    broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_PROMOTE", 10)
    with clock.using(clock.ManualClock()) as manual:
        due = manual.now() + 10
        sent = [make_message("q", due=due) for _ in range(25)]
        broker.publish(sent)
        consumer = broker.consumer([Queue("q")], "node")
        assert not consumer.exchange((), 100)
        assert consumer.next_due() == due
        assert isinstance(manual, clock.ManualClock)
        manual.advance(11)
        assert consumer.drain()
        assert broker.depths()["q"].ready == 25
        found = []
        for _ in range(3):
            assert consumer.next_due() == due
            found += consumer.exchange((), 100)
        assert consumer.next_due() is None
        assert ids_of(found) == [message.id for message in sent]
        consumer.close()


def test_purging_goes_in_steps(broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "_PURGE", 4)
    with clock.using(clock.ManualClock()) as manual:
        later = manual.now() + 60
        broker.publish([make_message("q", priority=n % 3) for n in range(6)])
        broker.publish([make_message("q", due=later + n) for n in range(6)])
        broker.publish([make_message("other"), make_message("other", due=later)])
        assert broker.purge("q") == 12
        assert broker.depths()["q"] == broker_module.Depth()
        assert (broker.depths()["other"].ready, broker.depths()["other"].delayed) == (1, 1)
    count = "SELECT count(*) FROM messages"
    assert broker.database.read(lambda link: link.execute(count).fetchone()) == (2,)


def test_the_oldest_is_the_one_that_waits_longest(broker: SqliteBroker) -> None:
    with clock.using(clock.ManualClock()) as manual:
        assert isinstance(manual, clock.ManualClock)
        broker.publish([make_message("q", due=manual.now() + 50)])
        manual.advance(10)
        broker.publish([make_message("q")])
        manual.advance(60)
        # Sent 70 s ago and waiting since 20 s; sent and waiting since 60 s.
        assert broker.depths()["q"].oldest == pytest.approx(60)
        assert broker.depths()["q"].ready == 2


def test_a_dead_letter_starts_anew(broker: SqliteBroker) -> None:
    consumer = broker.consumer([Queue("q")], "node")
    sent = make_message("q", priority=7)
    broker.publish([sent])
    for _ in range(3):
        (delivery,) = claim(consumer, 1)
        consumer.exchange([Settlement(delivery, Action.REQUEUE)], 0)
    (delivery,) = claim(consumer, 1)
    consumer.exchange([Settlement(delivery, Action.DEAD, reason="r")], 0)
    (letter,) = broker.dead("q")
    assert letter.deliveries == 4
    broker.publish([make_message("q", priority=1)])
    assert broker.replay([letter.key]) == 1
    (again, _) = claim(consumer, 2)
    assert (ids_of([again]), again.deliveries) == ([sent.id], 1)
    consumer.close()


def test_results_and_revocations_expire_in_steps(
    broker: SqliteBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteResults(f"sqlite:///{tmp_path}/chervil.db")
    monkeypatch.setattr("chervil.drivers.sqlite.results._EXPIRE", 4)
    with clock.using(clock.ManualClock()) as manual:
        assert isinstance(manual, clock.ManualClock)
        soon = manual.now() + 10
        outcomes = [Outcome(f"t{n}", "SUCCESS", b"", soon if n < 10 else 0) for n in range(12)]
        store.put(outcomes)
        broker.revoke(["a", "b"], soon)
        broker.revoke(["a"], soon - 5)  # the later one stays
        assert store.expire() == 0
        manual.advance(11)
        assert [store.expire() for _ in range(4)] == [4, 4, 2, 0]
        assert set(store.get([o.task_id for o in outcomes])) == {"t10", "t11"}
        broker.revoke(["c"], soon + 60)
        names = "SELECT task_id FROM revoked"
        found = broker.database.read(lambda link: link.execute(names).fetchall())
        assert found == [("c",)]
    store.close()


def test_a_success_that_expired_gives_way(tmp_path: Path) -> None:
    store = SqliteResults(f"sqlite:///{tmp_path}/chervil.db")
    with clock.using(clock.ManualClock()) as manual:
        assert isinstance(manual, clock.ManualClock)
        store.put([Outcome("t", "SUCCESS", b"old", manual.now() + 10)])
        manual.advance(11)
        store.put([Outcome("t", "FAILURE", b"new")])
        assert store.get(["t"])["t"].payload == b"new"
    store.close()
