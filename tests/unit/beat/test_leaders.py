"""Any sequence of leaders, clocks and late turns: each due time is decided once."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chervil import Chervil, clock
from chervil.beat import Scheduler
from chervil.clock import ManualClock
from chervil.drivers.contracts import Queue, Settlement
from chervil.exceptions import LeaseLost
from chervil.ids import new_id
from chervil.schedules import cron

#: 2026-03-29 00:30 UTC: clocks in Berlin are moved half an hour later.
BEGIN = 1774744200.0
ENTRIES: dict[str, dict[str, Any]] = {
    "every": {"schedule": 7},
    "quarter": {"schedule": cron("*/15 * * * *", tz="Europe/Berlin")},
    "night": {"schedule": cron("30 2 * * *", tz="Europe/Berlin")},
    "jitter": {"schedule": 20, "jitter": 15},
    "window": {"schedule": 60, "start": BEGIN + 100, "end": BEGIN + 4000},
}
for _fields in ENTRIES.values():
    _fields.update(task="work", missed="all", missed_window=10 * 86400)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.floats(0, 900)),
        st.tuples(st.just("jump"), st.floats(-300, 300)),
        st.tuples(st.just("tick"), st.integers(0, 2)),
        st.tuples(st.just("lead"), st.integers(0, 2)),
    ),
    max_size=40,
)


class World:
    """An app, three schedulers that may believe to be the leader, and what they sent."""

    def __init__(self) -> None:
        url = f"memory://{new_id()}"
        self.app = Chervil("x", broker_url=url, result_backend=url, set_as_current=False)
        self.app.conf.beat_schedule = ENTRIES

        @self.app.task(name="work")
        def work() -> None: ...

        self.schedulers = [Scheduler(self.app) for _ in range(3)]
        self.sent: list[tuple[str, str, str]] = []

    def lead(self, number: int) -> None:
        """Make one the leader; the one before does not hear of it."""
        coordinator, book = self.app.coordinator, self.schedulers[0].book
        holder = coordinator.holder(book)
        if holder is not None:
            coordinator.release(book, holder.token)
        token = coordinator.acquire(book, f"{number}", 1e12).token
        self.schedulers[number].lead(token)

    def tick(self, number: int) -> None:
        """Let one have its turn, until nothing is due; one that is not the leader fails."""
        scheduler = self.schedulers[number]
        try:
            while scheduler.tick() == 0:
                pass
        except LeaseLost:
            pass
        consumer = self.app.broker.consumer([Queue("celery")], "reader")
        while deliveries := consumer.exchange((), 1000):
            for delivery in deliveries:
                head = json.loads(delivery.head)["headers"]
                self.sent.append((head["periodic_task_name"], head["periodic_due"], head["id"]))
            consumer.exchange([Settlement(delivery) for delivery in deliveries], 0)
        consumer.close()


@settings(max_examples=30, deadline=None)
@given(steps)
def test_each_due_time_is_sent_once(what: list[tuple[str, Any]]) -> None:
    hands = ManualClock(BEGIN)
    with clock.using(hands):
        world = World()
        world.lead(0)
        first = {e.name: e.rule.first(BEGIN) for e in world.schedulers[0].schedule.values()}
        for step, value in what:
            if step == "advance":
                hands.advance(value)
            elif step == "jump":
                hands.jump(max(BEGIN, hands.now() + value))
            elif step == "lead":
                world.lead(value)
            elif step == "tick":
                world.tick(value)
        hands.advance(600)
        world.lead(1)
        world.tick(1)
        assert len(world.sent) == len({task_id for _, _, task_id in world.sent})
        for entry in world.app.schedule:
            dues = sorted(due for name, due, _ in world.sent if name == entry.name)
            expected, at = 0, first[entry.name]
            while at is not None and at != entry.state.due:
                expected, at = expected + 1, entry.rule.after(at)
            assert len(dues) == len(set(dues)) == expected, entry.name
            assert entry.state.due is None or entry.fire_at(entry.state.due) > hands.now()
        world.app.close()
