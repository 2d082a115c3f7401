"""Chords where the result store counts no members."""

from __future__ import annotations

import logging

import pytest

from chervil import Chervil, chord
from chervil.canvas.continuation import Following
from chervil.canvas.shape import chord_of, group_of, leaf
from chervil.context import Context
from chervil.drivers.chords import NoJoins
from chervil.exceptions import BackendError

STORES = [("memory://", "disabled://"), ("amqp://127.0.0.1:1//", "rpc://")]


@pytest.mark.parametrize(("broker", "results"), STORES)
def test_they_are_refused_when_they_are_sent(broker: str, results: str) -> None:
    app = Chervil("none", broker_url=broker, result_backend=results)
    assert isinstance(app.backend, NoJoins)
    flow = chord([app.signature("a"), app.signature("b")], app.signature("c"), app=app)
    with pytest.raises(BackendError, match="set result_backend"):
        flow.apply_async()
    app.close()


@pytest.mark.parametrize(("broker", "results"), STORES)
def test_a_member_of_another_clients_chord_ends(
    broker: str, results: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its node would try for ever to store what cannot be stored."""
    app = Chervil("none", broker_url=broker, result_backend=results)
    body = {**chord_of(group_of([leaf("a")]), leaf("c"))["kwargs"]["body"], "chord_size": 1}
    following = Following(app, Context(id="member", task="a", chord=body, group="g"))
    with caplog.at_level(logging.ERROR):
        aftermath = following.success(1)
    assert not aftermath.arrivals
    assert "[member] is a member of a chord" in caplog.text
    app.close()
