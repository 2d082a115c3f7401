"""Signals: connecting, sending, and what happens to errors and dead receivers."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from chervil import signals
from chervil.signals import Signal


class Sender:
    """Something to send from."""


@pytest.fixture
def signal() -> Signal:
    return Signal("test_signal", ["x"])


def collect(signal: Signal, **options: Any) -> list[tuple[Any, dict[str, Any]]]:
    got: list[tuple[Any, dict[str, Any]]] = []

    def receiver(sender: Any = None, **kwargs: Any) -> int:
        got.append((sender, kwargs))
        return len(got)

    signal.connect(receiver, weak=False, **options)
    return got


def test_send_calls_receivers_and_returns_what_they_returned(signal: Signal) -> None:
    got = collect(signal)
    responses = signal.send(sender="a", x=1)
    assert got == [("a", {"signal": signal, "x": 1})]
    assert [value for _, value in responses] == [1]


def test_nobody_connected_is_cheap_to_see(signal: Signal) -> None:
    assert not signal.receivers
    assert signal.send(sender=None) == []
    collect(signal)
    assert signal.receivers


def test_decorator_with_and_without_arguments(signal: Signal) -> None:
    seen = []

    @signal.connect
    def every(sender: Any = None, **kwargs: Any) -> None:
        seen.append(("every", sender))

    @signal.connect(sender="one")
    def only(sender: Any = None, **kwargs: Any) -> None:
        seen.append(("only", sender))

    signal.send(sender="one")
    signal.send(sender="two")
    assert seen == [("every", "one"), ("only", "one"), ("every", "two")]


def test_senders_compare_by_identity_and_texts_by_value(signal: Signal) -> None:
    sender, other = Sender(), Sender()
    got = collect(signal, sender=sender)
    named = collect(signal, sender="".join(["na", "me"]))
    signal.send(sender=sender)
    signal.send(sender=other)
    signal.send(sender="name")
    assert [who for who, _ in got] == [sender]
    assert [who for who, _ in named] == ["name"]


def test_weak_receivers_are_forgotten_when_they_are_gone(signal: Signal) -> None:
    def make() -> Any:
        def receiver(**kwargs: Any) -> None: ...

        signal.connect(receiver)
        return receiver

    receiver = make()
    assert len(signal.send(sender=None)) == 1
    del receiver
    gc.collect()
    assert signal.receivers == ()


def test_weak_methods_live_as_long_as_their_object(signal: Signal) -> None:
    class Owner:
        def __init__(self) -> None:
            self.calls = 0

        def receive(self, **kwargs: Any) -> None:
            self.calls += 1

    owner = Owner()
    signal.connect(owner.receive)
    signal.send(sender=None)
    assert owner.calls == 1
    assert signal.disconnect(owner.receive)
    signal.connect(owner.receive)
    del owner
    gc.collect()
    assert not signal.receivers


def test_connecting_twice_counts_once(signal: Signal) -> None:
    def receiver(**kwargs: Any) -> None: ...

    signal.connect(receiver)
    signal.connect(receiver)
    assert len(signal.send(sender=None)) == 1
    signal.connect(lambda **kwargs: None, weak=False, dispatch_uid="a")
    signal.connect(lambda **kwargs: None, weak=False, dispatch_uid="a")
    assert len(signal.send(sender=None)) == 2
    assert signal.disconnect(dispatch_uid="a")
    assert not signal.disconnect(dispatch_uid="a")


def test_an_error_is_logged_and_returned(signal: Signal, caplog: pytest.LogCaptureFixture) -> None:
    def broken(**kwargs: Any) -> None:
        raise ValueError("no")

    signal.connect(broken)
    got = collect(signal)
    responses = signal.send(sender=None)
    assert isinstance(responses[0][1], ValueError)
    assert len(got) == 1
    assert "broken" in caplog.text


def test_a_receiver_may_disconnect_itself_while_it_is_called(signal: Signal) -> None:
    def once(**kwargs: Any) -> None:
        signal.disconnect(once)

    signal.connect(once)
    got = collect(signal)
    signal.send(sender=None)
    signal.send(sender=None)
    assert len(got) == 2


def test_has_listeners(signal: Signal) -> None:
    collect(signal, sender="a")
    assert signal.has_listeners("a")
    assert not signal.has_listeners("b")


def test_what_cannot_be_called_is_refused(signal: Signal) -> None:
    with pytest.raises(TypeError, match="callable"):
        signal.connect("nothing")  # type: ignore[type-var]


def test_celerys_signals_are_there() -> None:
    names = [
        "before_task_publish",
        "after_task_publish",
        "task_prerun",
        "task_postrun",
        "task_success",
        "task_retry",
        "task_failure",
        "task_internal_error",
        "task_revoked",
        "task_received",
        "task_rejected",
        "task_unknown",
        "worker_init",
        "worker_ready",
        "worker_process_init",
        "worker_process_shutdown",
        "worker_shutting_down",
        "worker_shutdown",
        "celeryd_init",
        "celeryd_after_setup",
        "setup_logging",
        "after_setup_logger",
        "after_setup_task_logger",
        "beat_init",
        "beat_embedded_init",
        "eventlet_pool_started",
        "eventlet_pool_preshutdown",
        "eventlet_pool_postshutdown",
        "eventlet_pool_apply",
        "heartbeat_sent",
        "user_preload_options",
        "import_modules",
        "worker_before_create_process",
    ]
    for name in names:
        found = getattr(signals, name)
        assert isinstance(found, Signal)
        assert found.name == name
