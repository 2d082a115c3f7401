"""The result store that stores nothing."""

from __future__ import annotations

import threading

from chervil.drivers.registry import open_results
from chervil.wire.message import Outcome


def test_nothing_is_stored() -> None:
    store = open_results("disabled://")
    store.put([Outcome("t", "SUCCESS", b"")])
    assert store.get(["t"]) == {}
    store.forget(["t"])
    assert store.expire() == 0
    store.close()


def test_its_listener_waits_until_woken() -> None:
    listener = open_results("disabled://").listener("me")
    assert listener.address == "me"
    listener.watch(["t"], sent_here=True)
    listener.unwatch(["t"])
    assert not listener.wait(0.01)
    for end in (listener.wake, listener.close):
        thread = threading.Thread(target=listener.wait, args=(60,))
        thread.start()
        end()
        thread.join(10)
        assert not thread.is_alive()
