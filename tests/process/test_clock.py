"""The time of day jumps under a running node and its clients."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chervil import Chervil, clock
from tests.support.nodes import node_in_thread
from tests.support.waiting import wait_until

WAIT = 25.0
HOUR = 3600.0


class Shifted(clock.Clock):
    """The system's clock, with another time of day."""

    shift = 0.0

    def now(self) -> float:
        return time.time() + self.shift


@pytest.fixture(
    params=["sqlite", "memory", pytest.param("redis", marks=pytest.mark.requires_server("redis"))]
)
def app(
    request: Any, app_factory: Callable[..., Chervil], server_url: Callable[[str], str]
) -> Chervil:
    if request.param == "redis":
        options = {"global_keyprefix": f"test-{uuid.uuid4().hex[:12]}:"}
        return app_factory(
            url=server_url("redis"),
            broker_transport_options=options,
            result_backend_transport_options=options,
        )
    return app_factory(url=f"memory://{uuid.uuid4().hex}" if request.param == "memory" else None)


@pytest.fixture
def shifted() -> Iterator[Shifted]:
    with clock.using(Shifted()) as found:
        assert isinstance(found, Shifted)
        yield found


@pytest.mark.parametrize("jump", [10 * HOUR, -10 * HOUR], ids=["forward", "back"])
def test_a_jump_ends_no_lease_and_runs_nothing_twice(
    jump: float, app: Chervil, shifted: Shifted
) -> None:
    """Nor does it lose what is sent, delayed and retried after it."""
    runs: list[str] = []

    @app.task(name="note", bind=True, max_retries=1)
    def note(self: Any, text: str, again: bool = False) -> str:
        runs.append(text)
        if again and not self.request.retries:
            raise self.retry(countdown=0.1)
        return text

    with node_in_thread(app, "one@here"):
        assert note.delay("before").get(timeout=WAIT) == "before"
        later = note.apply_async(("later",), countdown=HOUR)
        shifted.shift = jump
        assert note.delay("after").get(timeout=WAIT) == "after"
        assert note.apply_async(("soon",), countdown=0.2).get(timeout=WAIT) == "soon"
        assert note.delay("twice", again=True).get(timeout=WAIT) == "twice"
        if jump > 0:  # its time has come with the jump
            assert later.get(timeout=WAIT) == "later"
        wait_until(lambda: app.broker.depths()["celery"].claimed == 0, WAIT)
    expected = ["before", "after", "soon", "twice", "twice", *(["later"] if jump > 0 else [])]
    assert sorted(runs) == sorted(expected)
    assert app.broker.depths()["celery"].delayed == (0 if jump > 0 else 1)
    app.broker.purge("celery")
