"""The scheduler turn by turn, with a clock that is moved by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chervil import Chervil, clock
from chervil.beat import ScheduleEntry, Scheduler, Service
from chervil.clock import ManualClock
from chervil.drivers.contracts import Queue, Settlement
from chervil.exceptions import AlreadyRegistered, ImproperlyConfigured, LeaseLost, NotRegistered
from chervil.ids import new_id
from chervil.schedules import Calendar, crontab
from chervil.wire.message import Outcome

BEGIN = 1_800_000_000.0


@pytest.fixture
def hands() -> Iterator[ManualClock]:
    with clock.using(ManualClock(BEGIN)) as found:
        assert isinstance(found, ManualClock)
        yield found


@pytest.fixture
def app(hands: ManualClock) -> Iterator[Chervil]:
    url = f"memory://{new_id()}"
    with Chervil("test", broker_url=url, result_backend=url, set_as_current=False) as app:

        @app.task(name="work")
        def work(*args: int, **kwargs: int) -> None: ...

        yield app


def leading(app: Chervil, owner: str = "me", lease: float = 1e9) -> Scheduler:
    """A scheduler that is the leader."""
    scheduler = Scheduler(app)
    scheduler.lead(app.coordinator.acquire(scheduler.book, owner, lease).token)
    return scheduler


def sent(app: Chervil) -> list[dict[str, Any]]:
    """The headers of what was sent, which is taken out."""
    consumer = app.broker.consumer([Queue("celery")], "reader")
    found = [json.loads(d.head)["headers"] for d in consumer.exchange((), 1000)]
    consumer.close()
    app.broker.purge("celery")
    return found


def names(app: Chervil) -> list[str]:
    return [headers["periodic_task_name"] for headers in sent(app)]


def test_what_is_due_is_sent_and_nothing_else(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"].s(1), name="ten", expires=5)
    app.add_periodic_task(25, app.tasks["work"], (2,), name="other")
    scheduler = leading(app)
    assert scheduler.tick() == 5  # max_interval
    hands.advance(9)
    assert scheduler.tick() == pytest.approx(1)
    assert names(app) == []
    hands.advance(1)
    scheduler.tick()
    (headers,) = sent(app)
    assert headers["task"] == "work"
    assert headers["periodic_task_name"] == "ten"
    assert headers["periodic_due"] == "2027-01-15T08:00:10+00:00"
    assert headers["expires"]
    scheduler.tick()
    assert names(app) == []
    hands.advance(15)
    scheduler.tick()
    assert sorted(names(app)) == ["other", "ten"]


def test_due_times_do_not_drift(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="ten")
    scheduler = leading(app)
    for _ in range(5):
        hands.advance(10.25)
        scheduler.tick()
    runs = app.schedule.history("ten")
    assert [run.due - BEGIN for run in runs] == [10, 20, 30, 40, 50]


def test_a_new_leader_goes_on_where_the_old_one_was(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="ten", missed="all")
    first = leading(app, "first", 1.0)
    hands.advance(12)
    first.tick()
    second = leading(app, "second", 1.0)
    hands.advance(20)
    second.tick()
    with pytest.raises(LeaseLost):
        first.tick()
    ids = [headers["id"] for headers in sent(app)]
    assert len(ids) == len(set(ids)) == 3
    assert app.schedule.get("ten").total_run_count == 3


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"missed": "skip"}, []),
        ({"missed": "once"}, [3600]),
        ({"missed": "once", "missed_window": 60}, []),
        ({"missed": "all"}, [600, 1200, 1800, 2400, 3000, 3600]),
        ({"missed": "all", "missed_window": 1500}, [2400, 3000, 3600]),
    ],
)
def test_times_that_nobody_was_there_for(
    app: Chervil, hands: ManualClock, policy: dict[str, Any], expected: list[int]
) -> None:
    app.add_periodic_task(600, app.tasks["work"], name="one", **policy)
    leading(app)
    hands.advance(3700)
    scheduler = leading(app)
    scheduler.tick()
    dues = [run.due - BEGIN for run in app.schedule.history("one")]
    assert dues == expected
    assert len(sent(app)) == len(expected)
    hands.advance(500)
    scheduler.tick()
    assert app.schedule.history("one")[-1].due - BEGIN == 4200


def test_the_cron_deadline_of_celery(app: Chervil, hands: ManualClock) -> None:
    app.conf.beat_cron_starting_deadline = 120
    app.add_periodic_task(crontab(minute="0"), app.tasks["work"], name="hourly")
    leading(app)
    hands.advance(3600 + 1800)
    leading(app).tick()
    assert names(app) == []


def end(app: Chervil, task_id: str, status: str = "SUCCESS") -> None:
    app.backend.put([Outcome(task_id, status, b"{}")])


def turn(scheduler: Scheduler, hands: ManualClock, seconds: float) -> None:
    hands.advance(seconds)
    scheduler.tick()


def test_overlap_skip(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="one", overlap="skip")
    scheduler = leading(app)
    turn(scheduler, hands, 10)
    (first,) = sent(app)
    turn(scheduler, hands, 10)
    end(app, first["id"], "STARTED")
    turn(scheduler, hands, 10)
    assert sent(app) == []
    end(app, first["id"])
    turn(scheduler, hands, 10)
    assert len(sent(app)) == 1
    what = [run.what for run in app.schedule.history("one")]
    assert what == ["sent", "skipped", "skipped", "sent"]


def test_overlap_queue_sends_every_one_in_turn(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="one", overlap="queue")
    scheduler = leading(app)
    turn(scheduler, hands, 10)
    (running,) = sent(app)
    for _ in range(3):
        turn(scheduler, hands, 10)
    assert sent(app) == []
    assert app.schedule.get("one").state.waiting
    scheduler = leading(app)  # who comes after knows that they wait
    dues = []
    for _ in range(3):
        end(app, running["id"])
        turn(scheduler, hands, 1)
        (running,) = sent(app)
        turn(scheduler, hands, 1)
        assert sent(app) == []
        dues.append(app.schedule.history("one")[-1].due - BEGIN)
    assert dues == [20, 30, 40]
    end(app, running["id"])
    turn(scheduler, hands, 5)
    assert not app.schedule.get("one").state.waiting


def test_overlap_cancel_previous(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="one", overlap="cancel_previous")
    scheduler = leading(app)
    turn(scheduler, hands, 10)
    turn(scheduler, hands, 10)
    consumer = app.broker.consumer([Queue("celery")], "reader")
    deliveries = consumer.exchange((), 10)
    assert [delivery.revoked for delivery in deliveries] == [True, False]
    consumer.exchange([Settlement(delivery) for delivery in deliveries], 0)
    consumer.close()


def test_jitter_puts_off_and_keeps_the_due_time(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(100, app.tasks["work"], name="one", jitter=50)
    scheduler = leading(app)
    at = app.schedule.get("one").fire_at(BEGIN + 100)
    assert BEGIN + 100 < at < BEGIN + 150
    hands.advance(at - BEGIN - 0.5)
    scheduler.tick()
    assert names(app) == []
    turn(scheduler, hands, 0.6)
    (headers,) = sent(app)
    assert headers["periodic_due"] == "2027-01-15T08:01:40+00:00"
    assert app.schedule.get("one").state.due == BEGIN + 200


def test_what_cannot_be_sent_does_not_stop_others(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="bad", args=(object(),))
    app.add_periodic_task(10, app.tasks["work"], name="good")
    scheduler = leading(app)
    turn(scheduler, hands, 10)
    assert names(app) == ["good"]
    (run,) = app.schedule.history("bad")
    assert run.what.startswith("failed: ")
    assert run.task_id == ""
    turn(scheduler, hands, 10)
    assert names(app) == ["good"]


def test_a_calendar_that_fails_does_not_stop_others(app: Chervil, hands: ManualClock) -> None:
    def check(due: Any) -> bool:
        if hands.now() > BEGIN:
            raise ValueError("oh")
        return False

    app.add_periodic_task(10, app.tasks["work"], name="bad", exclude=check)
    app.add_periodic_task(10, app.tasks["work"], name="good")
    scheduler = leading(app)
    for _ in range(2):
        turn(scheduler, hands, 10)
    assert names(app) == ["good", "good"]


def test_many_in_one_turn(app: Chervil, hands: ManualClock) -> None:
    for number in range(700):
        app.add_periodic_task(10, app.tasks["work"], name=f"{number}", missed="all")
    scheduler = leading(app)
    hands.advance(30)
    while scheduler.tick() == 0:
        pass
    assert app.broker.depths(["celery"])["celery"].ready == 2100


def test_history_is_bounded(app: Chervil, hands: ManualClock) -> None:
    app.conf.beat_history = 3
    app.add_periodic_task(1, app.tasks["work"], name="one")
    scheduler = leading(app)
    for _ in range(8):
        turn(scheduler, hands, 1)
    assert [run.due - BEGIN for run in app.schedule.history("one")] == [6, 7, 8]
    assert app.schedule.get("one").total_run_count == 8


# --- entries at run time


def test_entries_come_and_go_at_run_time(app: Chervil, hands: ManualClock) -> None:
    scheduler = leading(app)
    app.schedule.add("one", 10, "work", args=[1], kwargs={"x": 2}, overlap="allow")
    with pytest.raises(AlreadyRegistered):
        app.schedule.add("one", 10, "work")
    scheduler.refresh()
    turn(scheduler, hands, 10)
    assert names(app) == ["one"]
    app.schedule.update("one", schedule=3)
    scheduler.refresh()
    turn(scheduler, hands, 3)
    assert names(app) == ["one"]
    app.schedule.remove("one")
    scheduler.refresh()
    turn(scheduler, hands, 100)
    assert names(app) == []
    with pytest.raises(NotRegistered):
        app.schedule.get("one")


def test_a_change_counts_although_the_leader_has_not_heard_of_it(
    app: Chervil, hands: ManualClock
) -> None:
    app.schedule.add("one", 10, "work")
    scheduler = leading(app)
    app.schedule.pause("one")
    turn(scheduler, hands, 10)
    assert names(app) == []
    app.schedule.resume("one")
    scheduler.refresh()
    turn(scheduler, hands, 5)
    assert names(app) == []
    turn(scheduler, hands, 5)
    assert names(app) == ["one"]
    assert app.schedule.history("one")[-1].due == BEGIN + 20


def test_nothing_is_made_up_for_after_a_pause(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="one", missed="all")
    scheduler = leading(app)
    app.schedule.pause("one")
    scheduler.refresh()
    turn(scheduler, hands, 95)
    app.schedule.resume("one")
    scheduler.refresh()
    scheduler.tick()
    assert names(app) == []
    assert app.schedule.next("one", 2) == [BEGIN + 100, BEGIN + 110]


def test_entries_of_the_code_are_changed_in_the_code(app: Chervil) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="one")
    for _ in range(2):
        with pytest.raises(ImproperlyConfigured, match="defined in the code"):
            app.schedule.update("one", schedule=3)
        with pytest.raises(ImproperlyConfigured, match="defined in the code"):
            app.schedule.remove("one")
        with pytest.raises(AlreadyRegistered, match="in the code"):
            app.schedule.add("one", 10, "work")
        leading(app)


def test_what_left_the_code_leaves_the_store(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"], name="one")
    app.schedule.add("two", 10, "work")
    leading(app)
    assert [entry.name for entry in app.schedule] == ["one", "two"]
    app.periodic_tasks.clear()
    leading(app)
    assert [entry.name for entry in app.schedule] == ["two"]


def test_a_changed_rule_counts_from_now_on(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(crontab(minute="50", hour="7"), app.tasks["work"], name="one")
    leading(app)  # it is 08:00
    app.add_periodic_task(crontab(minute="30", hour="7"), app.tasks["work"], name="one")
    hands.advance(60)
    scheduler = leading(app)
    scheduler.tick()
    assert names(app) == []
    assert app.schedule.next("one", 1) == [BEGIN + 86400 - 1800]


def test_fire_now(app: Chervil, hands: ManualClock) -> None:
    app.add_periodic_task(10, app.tasks["work"].s(1), name="one")
    leading(app)
    task_id = app.schedule.fire("one")
    (headers,) = sent(app)
    assert headers["id"] == task_id
    (run,) = app.schedule.history("one")
    assert (run.task_id, run.what) == (task_id, "by hand")
    assert app.schedule.get("one").state.due == BEGIN + 10


# --- where entries come from


def test_all_sources(app: Chervil) -> None:
    @app.task(name="own", schedule=60)
    def own() -> None: ...

    @app.on_after_finalize.connect
    def later(sender: Chervil, **_: Any) -> None:
        sender.add_periodic_task(5, sender.tasks["work"], name="finalized")

    @app.on_after_configure.connect
    def configured(sender: Chervil, **_: Any) -> None:
        sender.add_periodic_task(5, sender.tasks["work"].s(1, x=2), queue="q")

    app.conf.beat_schedule = {"conf": {"task": "work", "schedule": crontab(), "args": (1,)}}
    app.finalized = False
    app.finalize()
    found = {entry.name: entry for entry in app.schedule}
    assert set(found) == {"own", "finalized", "work(1, x=2)", "conf"}
    assert found["work(1, x=2)"].options["queue"] == "q"
    assert found["conf"].words() == "every minute"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"schedule": 1}, "the name of a task"),
        ({"task": "work", "schedule": "* *"}, "needs 5"),
        ({"task": "work", "schedule": None}, "no schedule"),
        ({"task": "work", "schedule": 1, "shedule": 2}, "did you mean 'schedule'"),
        ({"task": "work", "schedule": 1, "args": "abc"}, "list or tuple"),
        ({"task": "work", "schedule": 1, "missed": "never"}, "skip, once, all"),
        ({"task": "work", "schedule": 1, "overlap": True}, "cancel_previous"),
        ({"task": "work", "schedule": 1, "jitter": -1}, "not negative"),
        ({"task": "work", "schedule": 1, "tz": "Mars/Base"}, "Mars/Base"),
        ({"task": "work", "schedule": 1, "start": 5, "end": 4}, "after start"),
        ({"task": "work", "schedule": 1, "start": "noon"}, "ISO 8601"),
        ({"task": "work", "schedule": 1, "exclude": {"days": []}}, "Calendar"),
        ({"task": "work", "schedule": 1, "options": {"priority": "x"}}, "priority"),
    ],
)
def test_wrong_entries_are_named(app: Chervil, fields: dict[str, Any], says: str) -> None:
    app.conf.beat_schedule = {"one": fields}
    with pytest.raises(ImproperlyConfigured, match="one") as caught:
        Service(app).run()
    assert says in str(caught.value)


def test_what_has_no_json_form_stays_in_the_code(app: Chervil, hands: ManualClock) -> None:
    calendar = Calendar(check=lambda due: False)
    with pytest.raises(ImproperlyConfigured, match="cannot be stored"):
        app.schedule.add("one", 10, "work", exclude=calendar)
    with pytest.raises(ImproperlyConfigured, match="cannot be stored"):
        app.schedule.add("one", 10, "work", args=[object()])
    app.add_periodic_task(10, app.tasks["work"], name="one", exclude=calendar)
    turn(leading(app), hands, 10)
    assert names(app) == ["one"]


def test_definitions_come_back(app: Chervil) -> None:
    given = {
        "args": [1, [2]],
        "kwargs": {"x": 1},
        "options": {"queue": "q", "priority": 3},
        "start": "2027-01-15T09:00",
        "end": BEGIN + 1e6,
        "jitter": 3,
        "exclude": Calendar(weekdays=["sat"], dates=["12-25"]),
        "tz": "Europe/Berlin",
        "missed": "all",
        "missed_window": 60,
        "overlap": "queue",
    }
    entry = app.schedule.add("one", "30 9 * * *", "work", **given)
    again = app.schedule.get("one")
    assert again.definition() == entry.definition()
    assert again.start == 1_800_000_000.0 + 0  # 09:00 in Berlin is 08:00 UTC
    assert again.fingerprint() == entry.fingerprint()
    assert "Europe/Berlin" in again.words()


def test_schedulers_of_ones_own(app: Chervil, hands: ManualClock) -> None:
    class Own(Scheduler):
        def setup_schedule(self) -> None:
            self.add(name="own", task="work", schedule=10)
            self.update_from_dict({"two": {"task": "work", "schedule": 10}})

    service = Service(app, scheduler_cls=Own)
    scheduler = service.scheduler
    scheduler.lead(app.coordinator.acquire(service.book, "me", 60).token)
    turn(scheduler, hands, 10)
    assert sorted(names(app)) == ["own", "two"]
    assert Service(app, scheduler_cls="celery.beat:PersistentScheduler").scheduler_cls is Scheduler
    with pytest.raises(ImproperlyConfigured, match="must be a subclass"):
        Service(app, scheduler_cls="json:JSONDecoder")
    with pytest.raises(ImproperlyConfigured, match="cannot be imported"):
        Service(app, scheduler_cls="no.such:Thing")


def test_a_feature_without_a_store_says_so() -> None:
    with Chervil("x", broker_url="memory://x", set_as_current=False) as app:
        app._broker_wanted = lambda: ("amqp://", {})  # type: ignore[method-assign]
        app._backend_wanted = lambda: ("disabled://", {})  # type: ignore[method-assign]
        with pytest.raises(ImproperlyConfigured, match="set coordinator_url"):
            app.schedule.list()


def test_celerys_entry(app: Chervil, hands: ManualClock) -> None:
    entry = ScheduleEntry("one", "work", schedule=10, app=app)
    entry.state.due = BEGIN + 10
    assert entry.is_due() == (False, 10)
    hands.advance(11)
    assert entry.is_due() == (True, 9)
    assert entry.last_run_at is None
    assert entry.total_run_count == 0
