"""What every result store must do, as tests: inherit them, and say where the store is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import pytest

from chervil.drivers.contracts import Listener, PrivateStore, ResultStore
from chervil.drivers.registry import open_results
from chervil.ids import new_id, new_ids
from chervil.states import FAILURE, RETRY, STARTED, SUCCESS
from chervil.testing.harness import PATIENCE, in_fork, other_process, wait_for
from chervil.testing.joining import JoinConformance
from chervil.wire.message import Outcome


def outcome(task_id: str, status: str = SUCCESS, payload: bytes = b"{}", **fields: Any) -> Outcome:
    """An outcome that never expires unless told."""
    return Outcome(task_id, status, payload, **fields)


def stored(outcome: Outcome) -> tuple[str, str, bytes, float]:
    """What a store keeps of an outcome: all but whom to tell."""
    return outcome.task_id, outcome.status, outcome.payload, outcome.expires


class StoreConformance(JoinConformance):
    """The suite. Subclasses define the fixture ``store_url``."""

    #: Whether other processes see what is stored.
    shared = True
    #: Whether outcomes go to who sent the task and to nobody else: it is then a
    #: :class:`~chervil.drivers.contracts.PrivateStore`.
    private = False

    @pytest.fixture
    def store_url(self) -> str:
        raise NotImplementedError("define the fixture store_url")

    @pytest.fixture
    def store_options(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def open_more(
        self, store_url: str, store_options: Mapping[str, Any]
    ) -> Iterator[Callable[[], ResultStore]]:
        """Open the same store again."""
        stores: list[ResultStore] = []

        def make() -> ResultStore:
            stores.append(open_results(store_url, store_options))
            return stores[-1]

        yield make
        for store in stores:
            store.close()

    @pytest.fixture
    def store(self, open_more: Callable[[], ResultStore]) -> ResultStore:
        return open_more()

    def home(self, store: ResultStore) -> str:
        """An address at which this process gets outcomes."""
        address = new_id()
        if self.private:
            cast(PrivateStore, store).expect(address, ())
        return address

    @pytest.fixture
    def outcome(self, store: ResultStore) -> Callable[..., Outcome]:
        """Outcomes of tasks that were sent from here."""
        return partial(outcome, reply_to=self.home(store))

    @pytest.fixture
    def listen(self, store: ResultStore) -> Iterator[Callable[[], Listener]]:
        """Start listeners that are closed at the end."""
        listeners: list[Listener] = []

        def start() -> Listener:
            listeners.append(store.listener(new_id()))
            return listeners[-1]

        yield start
        for listener in listeners:
            listener.close()

    def hear(
        self, listener: Listener, count: int, patience: float = PATIENCE
    ) -> dict[str, Outcome]:
        """Wait until that many tasks were reported; the last report of each."""
        found: dict[str, Outcome] = {}
        deadline = time.monotonic() + patience
        while len(found) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                pytest.fail(f"heard of {len(found)} of {count} tasks in {patience:g} s")
            found.update((news.task_id, news) for news in listener.wait(left))
        return found

    # --- storing

    def test_outcomes_come_back(self, store: ResultStore, outcome: Callable[..., Outcome]) -> None:
        expires = time.time() + 3600
        one = outcome(new_id(), SUCCESS, bytes(range(256)), expires=expires)
        two = outcome(new_id(), FAILURE, b"x" * 300_000)
        store.put([one, two])
        found = store.get([one.task_id, two.task_id, new_id()])
        assert {k: stored(v)[:3] for k, v in found.items()} == {
            one.task_id: stored(one)[:3],
            two.task_id: stored(two)[:3],
        }
        assert store.get([one.task_id])[one.task_id].payload == one.payload
        assert store.get([]) == {}
        assert store.get([new_id()]) == {}

    def test_many_at_once(self, store: ResultStore, outcome: Callable[..., Outcome]) -> None:
        ids = new_ids(1503)
        store.put([outcome(task_id, payload=task_id.encode()) for task_id in ids])
        found = store.get(ids)
        assert {k: v.payload for k, v in found.items()} == {i: i.encode() for i in ids}
        store.forget(ids[:-1])
        assert list(store.get(ids)) == ids[-1:]

    def test_putting_and_forgetting_nothing(self, store: ResultStore) -> None:
        store.put([])
        store.forget([])
        store.forget([new_id()])

    def test_the_last_outcome_counts(
        self, store: ResultStore, outcome: Callable[..., Outcome]
    ) -> None:
        task_id = new_id()
        for status in (STARTED, RETRY, "CUSTOM", FAILURE, RETRY, SUCCESS):
            store.put([outcome(task_id, status, status.encode())])
            assert store.get([task_id])[task_id].status == status
        twice = new_id()
        store.put([outcome(twice, status, status.encode()) for status in (STARTED, RETRY)])
        assert store.get([twice])[twice].status == RETRY

    @pytest.mark.parametrize("status", [FAILURE, RETRY, STARTED, SUCCESS])
    def test_success_is_never_replaced(
        self, store: ResultStore, outcome: Callable[..., Outcome], status: str
    ) -> None:
        task_id, other = new_id(), new_id()
        store.put([outcome(task_id, SUCCESS, b"first")])
        store.put([outcome(other, SUCCESS, b"other"), outcome(task_id, status, b"second")])
        found = store.get([task_id, other])
        assert found[task_id].status == SUCCESS
        assert found[task_id].payload == b"first"
        assert found[other].payload == b"other"

    def test_forgotten_outcomes_are_gone(
        self, store: ResultStore, outcome: Callable[..., Outcome]
    ) -> None:
        task_id = new_id()
        store.put([outcome(task_id, SUCCESS, b"first")])
        store.forget([task_id])
        assert store.get([task_id]) == {}
        store.put([outcome(task_id, FAILURE, b"second")])
        assert store.get([task_id])[task_id].payload == b"second"

    def test_expired_outcomes_are_gone(
        self, store: ResultStore, outcome: Callable[..., Outcome]
    ) -> None:
        short, long, never = new_ids(3)
        store.put(
            [
                outcome(short, expires=time.time() + 1.0),
                outcome(long, expires=time.time() + 3600),
                outcome(never),
            ]
        )
        assert set(store.get([short, long, never])) == {short, long, never}
        wait_for(lambda: short not in store.get([short]), "the outcome expires")
        wait_for(lambda: store.expire() == 0, "nothing is left to expire")
        assert set(store.get([short, long, never])) == {long, never}
        store.put([outcome(short, FAILURE)])
        assert store.get([short])[short].status == FAILURE

    # --- listening

    def test_a_listener_hears_of_what_was_sent_here(
        self, store: ResultStore, listen: Callable[[], Listener]
    ) -> None:
        listener = listen()
        ids = new_ids(3)
        listener.watch(ids[:2], sent_here=True)
        news = [outcome(i, SUCCESS, i.encode(), reply_to=listener.address) for i in ids]
        threading.Thread(target=store.put, args=(news,)).start()
        found = self.hear(listener, 2)
        while not found.keys() >= set(ids[:2]):
            found |= self.hear(listener, 1)
        heard = {k: (v.status, v.payload) for k, v in found.items()}
        # The end of the third may be told too, since it carries the listener's address.
        assert heard.items() <= {i: (SUCCESS, i.encode()) for i in ids}.items()

    def test_a_listener_hears_of_what_others_sent(
        self, store: ResultStore, listen: Callable[[], Listener]
    ) -> None:
        listener, task_id = listen(), new_id()
        listener.watch([task_id], sent_here=False)
        store.put([outcome(new_id()), outcome(task_id, FAILURE, b"p", reply_to="another")])
        if self.private:  # not heard; nor does it hinder others
            mine = outcome(new_id(), reply_to=listener.address)
            listener.watch([mine.task_id], sent_here=True)
            store.put([mine])
            assert list(self.hear(listener, 1)) == [mine.task_id]
            assert task_id not in store.get([task_id])
            return
        found = self.hear(listener, 1)
        assert (found[task_id].status, found[task_id].payload) == (FAILURE, b"p")

    def test_each_listener_hears_its_own(
        self, store: ResultStore, listen: Callable[[], Listener]
    ) -> None:
        listeners, ids = [listen(), listen()], new_ids(2)
        for listener, task_id in zip(listeners, ids, strict=True):
            listener.watch([task_id], sent_here=True)
        store.put(
            [
                outcome(i, payload=i.encode(), reply_to=listener.address)
                for listener, i in zip(listeners, ids, strict=True)
            ]
        )
        for listener, task_id in zip(listeners, ids, strict=True):
            assert list(self.hear(listener, 1)) == [task_id]

    def test_a_listener_hears_from_other_processes(
        self, store_url: str, listen: Callable[[], Listener]
    ) -> None:
        if not self.shared:
            pytest.skip("the store is in this process only")
        listener, ids = listen(), new_ids(2)
        listener.watch(ids[:1], sent_here=True)
        listener.watch(ids[1:], sent_here=False)
        code = (
            "store = open_results(url)\nstore.put([Outcome(ids[0], 'SUCCESS', b'0', 0.0, address),"
            " Outcome(ids[1], 'SUCCESS', b'1', 0.0, other)])\nstore.close()\n"
            "print('stored', flush=True)"
        )
        other = listener.address if self.private else ""
        values = {"url": store_url, "ids": ids, "address": listener.address, "other": other}
        with other_process(code, **values) as process:
            found = self.hear(listener, 2)
            assert process.stdout is not None
            assert process.stdout.readline() == "stored\n"
        assert [found[i].payload for i in ids] == [b"0", b"1"]

    def test_large_and_many_outcomes_are_heard(
        self, store: ResultStore, listen: Callable[[], Listener]
    ) -> None:
        listener, ids = listen(), new_ids(2000)
        listener.watch(ids, sent_here=True)
        sizes = [300_000, 20_000, 9_000, 700]
        news = [
            outcome(i, payload=b"z" * sizes[min(n, 3)], reply_to=listener.address)
            for n, i in enumerate(ids)
        ]
        for start in range(0, len(news), 100):
            store.put(news[start : start + 100])
        found = self.hear(listener, len(ids))
        assert {k: len(v.payload) for k, v in found.items()} == {
            o.task_id: len(o.payload) for o in news
        }

    def test_states_on_the_way_are_heard(
        self, store: ResultStore, listen: Callable[[], Listener]
    ) -> None:
        listener, task_id = listen(), new_id()
        listener.watch([task_id], sent_here=True)
        for status in (STARTED, "PROGRESS", SUCCESS):
            store.put([outcome(task_id, status, reply_to=listener.address)])
            assert self.hear(listener, 1)[task_id].status == status

    def test_what_gave_way_to_a_success_is_not_heard(
        self, store: ResultStore, listen: Callable[[], Listener]
    ) -> None:
        listener, ids = listen(), new_ids(2)
        store.put([outcome(ids[0], SUCCESS, b"first", reply_to=listener.address)])
        listener.watch(ids, sent_here=True)
        late = [outcome(i, FAILURE, b"late", reply_to=listener.address) for i in ids]
        store.put(late)
        deadline = time.monotonic() + PATIENCE
        heard: list[Outcome] = []
        while ids[1] not in [news.task_id for news in heard]:
            assert time.monotonic() < deadline
            heard.extend(listener.wait(deadline - time.monotonic()))
        assert [news.payload for news in heard if news.task_id == ids[0]] in ([], [b"first"])

    def test_what_is_not_watched_is_not_heard(
        self, store: ResultStore, listen: Callable[[], Listener]
    ) -> None:
        listener, ids = listen(), new_ids(2)
        listener.watch(ids, sent_here=True)
        listener.unwatch(ids[:1])
        store.put([outcome(ids[0], STARTED, reply_to=listener.address)])
        store.put([outcome(new_id(), SUCCESS, reply_to="another")])
        store.put([outcome(ids[1], reply_to=listener.address)])
        assert list(self.hear(listener, 1)) == ids[1:]

    def test_waiting_ends_in_time_and_when_woken(self, listen: Callable[[], Listener]) -> None:
        listener = listen()
        start = time.monotonic()
        assert not listener.wait(0.05)
        assert 0.04 <= time.monotonic() - start < PATIENCE
        results: list[Sequence[Outcome]] = []
        thread = threading.Thread(target=lambda: results.append(listener.wait(60)))
        thread.start()
        listener.watch([new_id()], sent_here=True)
        listener.wake()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert [list(found) for found in results] == [[]]

    def test_closing_a_listener_ends_its_wait(self, store: ResultStore) -> None:
        listener = store.listener(new_id())
        thread = threading.Thread(target=listener.wait, args=(60,))
        thread.start()
        listener.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        listener.close()

    # --- processes and threads

    def test_a_forked_child_can_use_the_store(
        self, store: ResultStore, outcome: Callable[..., Outcome]
    ) -> None:
        before, after = outcome(new_id(), payload=b"b"), outcome(new_id(), payload=b"a")
        store.put([before])

        def child() -> None:
            if not self.private:
                assert store.get([before.task_id])[before.task_id].payload == b"b"
            store.put([after])
            own = Outcome(after.task_id, SUCCESS, b"a", reply_to=self.home(store))
            store.put([own])
            assert store.get([after.task_id])[after.task_id].payload == b"a"

        assert in_fork(child) == 0
        assert bool(store.get([after.task_id])) is self.shared
        assert store.get([before.task_id])[before.task_id].payload == b"b"

    def test_many_threads(self, open_more: Callable[[], ResultStore]) -> None:
        stores = [open_more(), open_more()]
        homes = [self.home(store) for store in stores]
        ids = [new_ids(100) for _ in range(4)]
        failed: list[BaseException] = []

        def work(number: int) -> None:
            store, home = stores[number % 2], homes[number % 2]
            try:
                for task_id in ids[number]:
                    store.put([outcome(task_id, STARTED, reply_to=home)])
                    store.put([outcome(task_id, SUCCESS, task_id.encode(), reply_to=home)])
                    assert store.get([task_id])[task_id].payload == task_id.encode()
            except BaseException as exc:
                failed.append(exc)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        everything = [i for part in ids for i in part]
        counts = [len(store.get(everything)) for store in stores]
        assert counts == ([200, 200] if self.private else [400, 400])
