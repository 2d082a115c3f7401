"""The app: settings, finding tasks, closing, forking."""

from __future__ import annotations

import datetime as dt
import importlib
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chervil import Chervil, Task
from chervil.exceptions import (
    AlwaysEagerIgnored,
    ImproperlyConfigured,
    NotRegistered,
)

Factory = Callable[..., Chervil]


def make(*args: Any, **kwargs: Any) -> Chervil:
    return Chervil(*args, set_as_current=False, **kwargs)


# --- settings


def test_nothing_has_to_be_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHERVIL_BROKER_URL", raising=False)
    with make("hello") as app:

        @app.task
        def add(x: int, y: int) -> int:
            return x + y

        assert add.delay(1, 2).state == "PENDING"
    assert (tmp_path / "chervil.db").exists()


def test_settings_are_read_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make("hello", task_default_queue="mine")
    assert not app.configured
    monkeypatch.setenv("CHERVIL_TASK_SERIALIZER", "pickle")
    assert app.conf.task_serializer == "pickle"
    assert app.conf.task_default_queue == "mine"
    assert app.configured


def test_an_unknown_setting_is_an_error_at_once() -> None:
    with pytest.raises(ImproperlyConfigured, match="did you mean 'broker_url'"):
        make("hello", broker_ur="x")


def test_config_from_object_waits_and_arguments_win() -> None:
    app = make("hello", broker="sqlite:///mine.db")
    app.config_from_object({"broker_url": "sqlite:///other.db", "result_expires": 60})
    assert not app.configured
    assert app.conf.result_expires == 60
    assert app.conf.broker_url == "sqlite:///mine.db"
    app.config_from_object({"result_expires": 70})
    assert app.conf.result_expires == 70


def test_namespace() -> None:
    source = SimpleNamespace(CELERY_TASK_DEFAULT_QUEUE="q", OTHER=1)
    app = make("hello", config_source=source, namespace="CELERY")
    assert app.conf.task_default_queue == "q"


def test_config_from_envvar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_settings_module.py").write_text("task_default_queue = 'from-module'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app = make("hello")
    assert app.config_from_envvar("MY_SETTINGS", silent=True) is False
    with pytest.raises(ImproperlyConfigured, match="MY_SETTINGS is not set"):
        app.config_from_envvar("MY_SETTINGS")
    monkeypatch.setenv("MY_SETTINGS", "my_settings_module")
    assert app.config_from_envvar("MY_SETTINGS", force=True)
    assert app.conf.task_default_queue == "from-module"


def test_signals_around_configuration_and_completion() -> None:
    app = make("hello")
    seen = []
    app.on_configure.connect(lambda **kw: seen.append("configure"), weak=False)
    app.on_after_configure.connect(lambda source, **kw: seen.append(source), weak=False)
    app.on_after_finalize.connect(lambda **kw: seen.append("finalize"), weak=False)
    conf = app.conf
    assert app.conf is conf
    app.finalize()
    app.finalize()
    assert seen == ["configure", conf, "finalize"]


@pytest.mark.parametrize(
    ("settings", "offset"),
    [
        ({}, 0),
        ({"timezone": "Europe/Warsaw"}, 1),
        ({"timezone": dt.timezone(dt.timedelta(hours=3))}, 3),
    ],
)
def test_zone(settings: dict[str, Any], offset: int) -> None:
    zone = make("hello", **settings).zone
    assert dt.datetime(2030, 1, 2, tzinfo=zone).utcoffset() == dt.timedelta(hours=offset)


def test_the_systems_zone_without_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Warsaw")
    time.tzset()
    try:
        app = make("hello", enable_utc=False)
        assert dt.datetime(2030, 1, 2, tzinfo=app.zone).utcoffset() == dt.timedelta(hours=1)
        assert dt.datetime(2030, 7, 2, tzinfo=app.zone).utcoffset() == dt.timedelta(hours=2)
        assert abs((app.now() - dt.datetime.now(dt.UTC)).total_seconds()) < 5
        text = dt.datetime.fromtimestamp(1893456000, app.zone).isoformat()
        assert text == "2030-01-01T01:00:00+01:00"
    finally:
        monkeypatch.undo()
        time.tzset()


# --- tasks


def test_tasks_wait_for_finalize_when_told_to() -> None:
    app = make("hello", autofinalize=False)
    with pytest.raises(RuntimeError, match="finalize"):
        app.tasks  # noqa: B018
    app.finalize()
    assert all(name.startswith("celery.") for name in app.tasks)


def test_task_cls_and_app_Task() -> None:
    class Base(Task[Any, Any]):
        marker = 1

    app = make("hello", task_cls=Base)

    @app.task
    def one() -> None: ...

    assert isinstance(one, Base)
    app.Task = Task

    @app.task
    def two() -> None: ...

    assert not isinstance(two, Base)
    by_name = make("hello", task_cls="chervil.task:Task")
    assert by_name.Task is Task


def test_annotations_apply_when_the_app_is_complete() -> None:
    class Every:
        def annotate(self, task: Task[Any, Any]) -> dict[str, Any] | None:
            return {"priority": 4} if task.name.endswith("one") else None

    failed: list[Any] = []

    def on_failure(self: Any, exc: Any, *args: Any) -> None:
        failed.append((self.name, exc))

    app = make(
        "hello",
        task_annotations=[
            {"*": {"rate_limit": "5/s"}, "a.one": {"time_limit": 9, "on_failure": on_failure}},
            Every(),
        ],
    )

    @app.task(name="a.one")
    def one() -> None:
        raise ValueError("x")

    @app.task(name="a.two")
    def two() -> None: ...

    assert app.tasks["a.one"].rate_limit == "5/s"
    assert (one.time_limit, one.priority, two.time_limit, two.priority) == (9, 4, None, None)
    one.apply()
    assert failed[0][0] == "a.one"

    @app.task(name="late.one")
    def late() -> None: ...

    assert late.priority == 4


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def write(name: str, **modules: str) -> None:
        made.append(name)
        (tmp_path / name).mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in [m for m in sys.modules if m.partition(".")[0] in made]:
        del sys.modules[name]


TASKS = "from chervil import shared_task\n@shared_task(name='{0}')\ndef f(): pass\n"


def test_autodiscover_imports_when_the_worker_starts(package: Callable[..., None]) -> None:
    package("disc_one", tasks=TASKS.format("disc.one"))
    package("disc_two", jobs="")
    app = make("hello")
    app.autodiscover_tasks(lambda: ["disc_one", "disc_two"])
    assert "disc_one.tasks" not in sys.modules
    app.import_default_modules()
    assert "disc.one" in app.tasks


def test_autodiscover_by_force_and_other_names(package: Callable[..., None]) -> None:
    package("disc_three", jobs=TASKS.format("disc.three"))
    package("disc_four", __init__=TASKS.format("disc.four"))
    app = make("hello")
    app.autodiscover_tasks(["disc_three"], related_name="jobs", force=True)
    app.autodiscover_tasks(["disc_four"], related_name=None, force=True)
    assert {"disc.three", "disc.four"} <= app.tasks.keys()


def test_autodiscover_hides_no_errors(package: Callable[..., None]) -> None:
    package("disc_five", tasks="import module_that_is_missing")
    app = make("hello")
    with pytest.raises(ModuleNotFoundError, match="module_that_is_missing"):
        app.autodiscover_tasks(["disc_five"], force=True)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        app.autodiscover_tasks(["no_such_package"], force=True)
    with pytest.raises(ImproperlyConfigured, match="names of packages"):
        app.autodiscover_tasks()


def test_imports_and_include_and_the_signal(package: Callable[..., None]) -> None:
    from chervil.signals import import_modules

    package("disc_six", tasks=TASKS.format("disc.six"), more=TASKS.format("disc.more"))
    app = make("hello", include=["disc_six.tasks"], imports=["disc_six.more"])
    seen = []

    @import_modules.connect(sender=app)
    def handler(sender: Any = None, **kwargs: Any) -> None:
        seen.append(sender)

    app.import_default_modules()
    assert {"disc.six", "disc.more"} <= app.tasks.keys()
    assert seen == [app]


# --- sending by name, connections


def test_send_task_warns_that_it_is_never_eager(app_factory: Factory) -> None:
    app = app_factory(task_always_eager=True)
    with pytest.warns(AlwaysEagerIgnored, match="send_task"):
        app.send_task("elsewhere.task", (1,))
    assert app.broker.depths()["celery"].ready == 1


def test_send_task_needs_a_name(app: Chervil) -> None:
    with pytest.raises(ImproperlyConfigured, match="name of a task"):
        app.send_task("")


def test_changed_urls_open_other_drivers(app: Chervil, tmp_path: Path) -> None:
    app.send_task("t")
    before = app.broker, app.backend
    app.conf.result_expires = 5
    assert (app.broker, app.backend) == before
    app.conf.broker_url = app.conf.result_backend = f"sqlite:///{tmp_path / 'other.db'}"
    assert app.broker is not before[0]
    assert app.backend is not before[1]
    assert app.broker.depths().get("celery") is None
    app.send_task("t")
    assert app.broker.depths()["celery"].ready == 1


def test_an_app_can_be_used_after_close(app: Chervil) -> None:
    app.send_task("t")
    app.close()
    app.send_task("t")
    assert app.broker.depths()["celery"].ready == 2


def test_revoke_is_kept_by_the_broker(app: Chervil) -> None:
    result = app.send_task("t")
    result.revoke()
    consumer = app.broker.consumer(app.router.select(), "node")
    try:
        (delivery,) = consumer.exchange([], 10)
        assert delivery.revoked
    finally:
        consumer.close()


def test_a_child_process_has_its_own_identity_and_can_send(app: Chervil) -> None:
    @app.task(name="t")
    def task() -> None: ...

    task.delay()
    task.delay()
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of threads; the child is to cope with that.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            message = task._plain_plan().message((), {})  # type: ignore[union-attr]
            task.delay()
            os.write(
                write, f"{app.address} {message.headers['origin']} {message.reply_to}".encode()
            )
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        address, origin, reply_to = pipe.read().decode().split()
    os.waitpid(pid, 0)
    assert address != app.address
    assert reply_to == address
    assert origin.startswith(f"gen{pid}@")
    assert app.broker.depths()["celery"].ready == 3


def test_the_app_and_its_tasks_can_be_pickled() -> None:
    app = Chervil("pickled")

    @app.task(name="p.task")
    def task() -> None: ...

    assert pickle.loads(pickle.dumps(app)) is app
    assert pickle.loads(pickle.dumps(task)) is task
    assert "pickled" in repr(app)
    assert repr(task) == "<@task: p.task of pickled>"
    with pytest.raises(NotRegistered):
        app.tasks["p.other"]


# --- what is not here yet


@pytest.mark.parametrize("name", ["abstract", "bootsteps"])
def test_names_of_celerys_say_that_they_are_not_here(name: str) -> None:
    import chervil

    with pytest.raises(AttributeError, match=f"{name}.* is not in this version"):
        getattr(chervil, name)
    with pytest.raises(ImportError, match=f"{name}.* is not in this version"):
        exec(f"from chervil import {name}")
    assert not hasattr(chervil, name)


@pytest.mark.parametrize("name", ["amqp", "events", "worker_main"])
def test_parts_of_celerys_app_say_that_they_are_not_here(name: str) -> None:
    app = make("x", broker="memory://x")
    with pytest.raises(AttributeError, match=f"app.{name} is not in this version"):
        getattr(app, name)
    with pytest.raises(AttributeError, match="has no attribute 'contrl'"):
        _ = app.contrl  # type: ignore[attr-defined]


def test_a_misspelt_setting_is_one_error() -> None:
    with pytest.raises(ImproperlyConfigured, match="'broker_url'") as caught:
        make("x", brokr_url="memory://")
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_warnings_of_settings_point_at_the_users_line() -> None:
    with pytest.warns(UserWarning, match="beat_sync_every has no effect") as caught:
        app = make("x", beat_sync_every={}, broker="memory://x")
    assert [w.filename for w in caught] == [__file__]
    assert app.conf.get("beat_sync_every") == {}  # no second warning
    app = make("y")
    app.config_from_object({"beat_sync_every": {}})
    with pytest.warns(UserWarning, match="beat_sync_every has no effect") as caught:
        _ = app.tasks, app.conf
    assert [w.filename for w in caught] == [__file__]
