"""What is particular about queues inside a process."""

from __future__ import annotations

import gc

import pytest

from chervil import clock
from chervil.drivers.contracts import Depth, Queue, Settlement
from chervil.drivers.memory.broker import MemoryBroker
from chervil.drivers.memory.results import MemoryResults
from chervil.exceptions import ImproperlyConfigured, LeaseLost
from chervil.ids import new_id
from chervil.testing.harness import claim, make_message
from chervil.wire.message import Outcome


def test_the_same_name_is_the_same_broker() -> None:
    name = new_id()
    one, same = MemoryBroker(f"memory://{name}"), MemoryBroker(f"memory://{name}")
    other = MemoryBroker(f"memory://{name}-other")
    one.publish([make_message("q")])
    assert same.depths()["q"].ready == 1
    assert other.depths() == {}
    assert one.shares(MemoryResults(f"memory://{name}"))
    assert not one.shares(MemoryResults(f"memory://{name}-other"))


def test_what_nobody_uses_is_gone() -> None:
    name = new_id()
    broker = MemoryBroker(f"memory://{name}")
    store = MemoryResults(f"memory://{name}")
    broker.publish([make_message("q")])
    broker.close()
    assert broker.depths()["q"].ready == 1
    del broker
    gc.collect()
    again = MemoryBroker(f"memory://{name}")
    assert again.depths()["q"].ready == 1  # the store kept it
    del again, store
    gc.collect()
    assert MemoryBroker(f"memory://{name}").depths() == {}


@pytest.mark.parametrize("url", ["memory://?x=1", "other://"])
def test_wrong_urls(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="memory://name"):
        MemoryBroker(url)


def test_time_can_be_moved() -> None:
    broker = MemoryBroker(f"memory://{new_id()}")
    with clock.using(clock.ManualClock()) as manual:
        assert isinstance(manual, clock.ManualClock)
        lost = broker.consumer([Queue("q")], "lost", 10)
        other = broker.consumer([Queue("q")], "other", 10)
        broker.publish([make_message("q", due=manual.now() + 5)])
        assert not lost.exchange((), 1)
        manual.advance(6)
        assert lost.drain()
        (delivery,) = claim(lost, 1)
        manual.advance(5)
        other.renew()
        assert other.recover() == 1
        with pytest.raises(LeaseLost):
            lost.exchange([Settlement(delivery)], 0)
        assert broker.depths()["q"] == Depth(ready=1)
        lost.close()
        other.close()


def test_results_expire() -> None:
    store = MemoryResults(f"memory://{new_id()}")
    with clock.using(clock.ManualClock()) as manual:
        assert isinstance(manual, clock.ManualClock)
        store.put([Outcome("t", "RETRY", b"", manual.now() + 5)])
        store.put([Outcome("t", "SUCCESS", b"", manual.now() + 10)])
        manual.advance(6)
        assert store.expire() == 0
        assert set(store.get(["t"])) == {"t"}
        manual.advance(5)
        assert store.get(["t"]) == {}
        assert store.expire() == 1
        assert store.expire() == 0
