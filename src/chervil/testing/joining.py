"""What every store that joins chords must do, as tests: alone, and settled by a broker."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence

import pytest

from chervil.drivers.chords import Arrival
from chervil.drivers.contracts import Action, Broker, ResultStore, Settlement
from chervil.ids import new_id
from chervil.testing.harness import Consume, claim, id_of, ids_of, make_message

QUEUE = "joining"


def arrival(
    join: str,
    member: str = "",
    index: int = 0,
    size: int = 0,
    failed: bool = False,
    value: bytes = b"",
    queue: str = QUEUE,
) -> Arrival:
    """An arrival whose trigger has an id that tells where it is from."""
    member = member or new_id()
    value = value or b'[1, "%b", "SUCCESS", %d]' % (member.encode(), index)
    trigger = make_message(queue, task_id=f"trigger-{join}")
    return Arrival(join, member, index, size, failed, value, trigger)


class JoinConformance:
    """The suite of stores. Needs the fixture ``store``."""

    @pytest.fixture
    def joins(self, store: ResultStore) -> ResultStore:
        if not store.joins:
            pytest.skip("the store joins nothing")
        return store

    def test_the_last_of_them_fires_whatever_the_order(self, joins: ResultStore) -> None:
        join = new_id()
        members = [arrival(join, index=index, size=7) for index in range(7)]
        shuffled = random.sample(members, 7)
        assert joins.joined(join) is None
        assert not joins.arrive(shuffled[:2])
        assert not joins.arrive(shuffled[2:6])
        found = joins.joined(join)
        assert found is not None
        assert (found.complete, len(found.values)) == (False, 6)
        assert joins.arrive(shuffled[6:]) == shuffled[6:]
        found = joins.joined(join)
        assert found is not None
        assert found.complete
        assert [bytes(value) for value in found.values] == [member.value for member in members]

    def test_a_member_counts_once(self, joins: ResultStore) -> None:
        join = new_id()
        first, second = arrival(join, index=0, size=2), arrival(join, index=1, size=2)
        for _ in range(3):
            assert not joins.arrive([first])
        assert joins.arrive([second]) == [second]

    def test_who_asks_again_is_told_again_until_it_is_closed(self, joins: ResultStore) -> None:
        # The caller may have died before it could publish the trigger.
        join = new_id()
        first, second = arrival(join, index=0, size=2), arrival(join, index=1, size=2)
        joins.arrive([first])
        assert joins.arrive([second]) == [second]
        assert joins.arrive([first, second]) == [second]
        joins.close_joins([join])
        assert not joins.arrive([first, second])
        assert joins.joined(join) is None

    def test_a_trigger_is_found_until_it_is_sent(self, joins: ResultStore) -> None:
        one, other = new_id(), new_id()
        members = [arrival(join, index=0, size=1) for join in (one, other)]
        for member in members:
            member.trigger.headers["argsrepr"] = "(\u017c)"
        assert len(joins.arrive(members)) == 2
        assert not {one, other} & joins.unsent(60).keys()
        joins.sent([other, new_id()])
        found = joins.unsent(0)
        assert one in found
        assert other not in found
        assert (found[one].id, found[one].queue) == (f"trigger-{one}", QUEUE)
        assert found[one].headers == members[0].trigger.headers
        assert found[one].body == members[0].trigger.body
        assert one not in joins.unsent(60), "each time is counted anew"
        assert one in joins.unsent(0)
        assert joins.arrive([members[0]]), "who asks again sends it, too"
        joins.close_joins([one])
        assert one not in joins.unsent(0)

    def test_one_that_failed_fires_at_once_and_the_others_change_nothing(
        self, joins: ResultStore
    ) -> None:
        join = new_id()
        bad = arrival(join, index=1, size=3, failed=True)
        assert joins.arrive([bad]) == [bad]
        assert not joins.arrive([arrival(join, index=0, size=3), arrival(join, index=2, size=3)])
        worse = arrival(join, index=2, size=3, failed=True)
        assert not joins.arrive([worse])
        found = joins.joined(join)
        assert found is not None
        assert found.complete
        assert bytes(bad.value) in [bytes(value) for value in found.values]

    def test_joins_are_apart(self, joins: ResultStore) -> None:
        one, other = new_id(), new_id()
        mixed = [arrival(join, index=index, size=2) for index in (0, 1) for join in (one, other)]
        assert not joins.arrive(mixed[:2])
        assert {fired.join for fired in joins.arrive(mixed[2:])} == {one, other}

    def test_it_waits_for_more_when_it_was_widened(self, joins: ResultStore) -> None:
        join = new_id()
        joins.widen(join, 1)
        assert not joins.arrive([arrival(join, index=0, size=1)])
        assert joins.arrive([arrival(join, index=0, size=1)])

    def test_closing_what_nobody_knows_is_no_error(self, joins: ResultStore) -> None:
        joins.close_joins([new_id(), new_id()])
        joins.close_joins([])
        assert not joins.arrive([])

    def test_many_arrive_from_many_threads_and_one_fires(self, joins: ResultStore) -> None:
        join, count = new_id(), 40
        fired: list[Arrival] = []
        members = [arrival(join, index=index, size=count) for index in range(count)]

        def bring(part: Sequence[Arrival]) -> None:
            for member in part:
                fired.extend(joins.arrive([member]))

        threads = [threading.Thread(target=bring, args=(members[n::4],)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fired) == 1

    def test_a_thousand_members_come_in_their_order(self, joins: ResultStore) -> None:
        join = new_id()
        members = [arrival(join, index=index, size=1000) for index in range(1000)]
        assert joins.arrive(members) == members[-1:]
        found = joins.joined(join)
        assert found is not None
        assert [bytes(value) for value in found.values] == [member.value for member in members]

    def test_groups_are_kept(self, store: ResultStore) -> None:
        if not store.joins:
            pytest.skip("the store keeps no groups")
        group = new_id()
        assert store.get_group(group) is None
        store.put_group(group, b"one", 0.0)
        store.put_group(group, b"two", 0.0)
        assert store.get_group(group) == b"two"
        store.put_group(group, b"old", 1.0)
        assert store.get_group(group) is None
        store.put_group(group, b"three", 0.0)
        store.forget_group(group)
        assert store.get_group(group) is None


class SettledJoinConformance:
    """The suite of brokers that write into a store. Needs ``broker``, ``store``, ``consume``."""

    @pytest.fixture
    def joins(self, store: ResultStore) -> ResultStore:
        if not store.joins:
            pytest.skip("the store joins nothing")
        return store

    def test_the_trigger_is_published_with_the_settlement(
        self, broker: Broker, joins: ResultStore, queue: str, consume: Consume
    ) -> None:
        join = new_id()
        broker.publish([make_message(queue) for _ in range(3)])
        consumer = consume()
        claimed = claim(consumer, 3)
        settlements = [
            Settlement(d, arrivals=[arrival(join, id_of(d), index, 3, queue=queue)])
            for index, d in enumerate(claimed)
        ]
        assert not consumer.exchange(settlements[:2], 10)
        (trigger,) = consumer.exchange(settlements[2:], 10)
        assert id_of(trigger) == f"trigger-{join}"
        assert join not in joins.unsent(0)
        found = joins.joined(join)
        assert found is not None
        assert (found.complete, len(found.values)) == (True, 3)
        body = make_message(queue)
        closing = Settlement(trigger, publish=[body], closes=[join])
        assert ids_of(consumer.exchange([closing], 10)) == [body.id]
        assert joins.joined(join) is None

    def test_a_batch_may_hold_all_members(
        self, broker: Broker, joins: ResultStore, queue: str, consume: Consume
    ) -> None:
        join = new_id()
        broker.publish([make_message(queue) for _ in range(20)])
        consumer = consume()
        claimed = claim(consumer, 20)
        settlements = [
            Settlement(d, arrivals=[arrival(join, id_of(d), index, 20, queue=queue)])
            for index, d in enumerate(claimed)
        ]
        (trigger,) = consumer.exchange(settlements, 10)
        assert id_of(trigger) == f"trigger-{join}"

    def test_what_another_one_settled_counts_nothing(
        self, broker: Broker, joins: ResultStore, queue: str, consume: Consume
    ) -> None:
        join = new_id()
        broker.publish([make_message(queue)])
        first, second = consume(), consume()
        (held,) = claim(first, 1)
        stolen = Settlement(held, arrivals=[arrival(join, size=1, queue=queue)])
        first.exchange([Settlement(held, Action.REQUEUE)], 0)
        (again,) = claim(second, 1)
        assert not first.exchange([stolen], 10)
        assert joins.joined(join) is None
        settled = Settlement(again, arrivals=[arrival(join, id_of(again), 0, 1, queue=queue)])
        (trigger,) = second.exchange([settled], 10)
        assert id_of(trigger) == f"trigger-{join}"

    def test_a_trigger_survives_the_death_of_its_consumer(
        self, broker: Broker, joins: ResultStore, queue: str, consume: Consume
    ) -> None:
        join = new_id()
        broker.publish([make_message(queue)])
        first = consume()
        (held,) = claim(first, 1)
        settled = Settlement(held, arrivals=[arrival(join, id_of(held), 0, 1, queue=queue)])
        (trigger,) = first.exchange([settled], 10)
        first.close()
        (again,) = claim(consume(), 1)
        assert id_of(again) == id_of(trigger) == f"trigger-{join}"
        found = joins.joined(join)
        assert found is not None
        assert found.complete
