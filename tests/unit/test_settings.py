"""The object that holds an app's settings."""

from __future__ import annotations

import datetime as dt
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil.exceptions import ChervilWarning, ImproperlyConfigured
from chervil.settings import SETTINGS, Settings, UnknownSetting, import_object


@pytest.fixture
def conf() -> Settings:
    return Settings(environ={})


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the module search path; what was imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(os.fspath(tmp_path)):
            del sys.modules[name]


# --- attributes and mapping ----------------------------------------------------------


def test_defaults_are_plain_attributes(conf: Settings) -> None:
    assert conf.broker_url == "sqlite:///chervil.db"
    assert conf.result_backend is None
    assert vars(conf)["task_serializer"] == "json"
    assert set(vars(conf)) == set(SETTINGS)


def test_defaults_are_not_shared(conf: Settings) -> None:
    conf.accept_content.append("pickle")
    conf.broker_transport_options["x"] = 1
    conf.task_publish_retry_policy["max_retries"] = 9
    other = Settings(environ={})
    assert other.accept_content == ["json"]
    assert other.broker_transport_options == {}
    assert other.task_publish_retry_policy["max_retries"] == 3


def test_it_is_a_mapping(conf: Settings) -> None:
    conf["task_serializer"] = "yaml"
    assert conf.task_serializer == conf["task_serializer"] == "yaml"
    assert "task_serializer" in conf
    assert "beat_sync_every" not in conf
    assert conf.get("nothing", 3) == 3
    assert dict(conf) == vars(conf)
    assert len(conf) == len(SETTINGS)
    assert list(conf) == list(SETTINGS)


def test_a_timedelta_is_seconds(conf: Settings) -> None:
    conf.result_expires = dt.timedelta(hours=2)  # type: ignore[assignment]
    assert conf.result_expires == 7200


def test_update_is_all_or_nothing(conf: Settings) -> None:
    conf.update({"task_serializer": "yaml"}, result_serializer="yaml")
    assert (conf.task_serializer, conf.result_serializer) == ("yaml", "yaml")
    with pytest.raises(ImproperlyConfigured):
        conf.update(task_serializer="json", worker_concurrency="many")
    assert conf.task_serializer == "yaml"


def test_every_change_has_a_new_version(conf: Settings) -> None:
    seen = [conf.version]
    conf.task_serializer = "yaml"
    seen.append(conf.version)
    conf["task_serializer"] = "json"
    seen.append(conf.version)
    conf.update(task_serializer="yaml")
    seen.append(conf.version)
    del conf.task_serializer
    seen.append(conf.version)
    assert len(set(seen)) == 5


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("task_serialiser", "'task_serializer'"),
        ("worker_concurency", "'worker_concurrency'"),
        ("CELERYD_CONCURRENCY", "'worker_concurrency'"),
        ("TASK_SERIALIZER", "'task_serializer'"),
    ],
)
def test_unknown_names_say_the_right_one(conf: Settings, name: str, hint: str) -> None:
    for attempt in (
        lambda: setattr(conf, name, 1),
        lambda: conf.__setitem__(name, 1),
        lambda: conf.update({name: 1}),
        lambda: getattr(conf, name),
        lambda: conf[name],
    ):
        with pytest.raises(ImproperlyConfigured) as error:
            attempt()
        assert repr(name) in str(error.value)
        assert hint in str(error.value)


def test_reading_an_unknown_name_is_also_what_python_expects(conf: Settings) -> None:
    assert not hasattr(conf, "qqq")
    with pytest.raises(AttributeError, match="no setting 'qqq'"):
        _ = conf.qqq  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="no setting 'qqq'"):
        conf["qqq"]
    with pytest.raises(UnknownSetting):
        del conf["qqq"]


def test_copies_are_independent(conf: Settings) -> None:
    conf.task_serializer = "yaml"
    twin = conf.copy()
    twin.accept_content.append("yaml")
    twin.result_serializer = "yaml"
    assert twin.task_serializer == "yaml"
    assert twin.changes()["task_serializer"].origin == "code"
    assert conf.accept_content == ["json"]
    assert conf.result_serializer == "json"


# --- sources ----------------------------------------------------------------------------


def test_code_wins_over_objects_over_the_environment() -> None:
    conf = Settings(
        environ={
            "CHERVIL_TASK_SERIALIZER": "yaml",
            "CHERVIL_RESULT_SERIALIZER": "yaml",
            "CHERVIL_TASK_DEFAULT_QUEUE": "env",
        }
    )
    conf.task_serializer = "msgpack"
    conf.config_from_object({"task_serializer": "pickle", "result_serializer": "pickle"})
    assert conf.task_serializer == "msgpack"
    assert conf.result_serializer == "pickle"
    assert conf.task_default_queue == "env"
    assert {n: c.origin for n, c in conf.changes().items()} == {
        "task_serializer": "code",
        "result_serializer": "object",
        "task_default_queue": "environment",
    }
    del conf.task_serializer
    assert conf.task_serializer == "yaml"
    assert conf.changes()["task_serializer"].origin == "environment"


def test_the_environment_is_the_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERVIL_BROKER_URL", "memory://")
    assert Settings().broker_url == "memory://"


def test_a_misspelt_variable_warns_and_others_do_not() -> None:
    others = {
        "CHERVIL_APP": "shop",
        "CHERVIL_WORKER_SERVICE_HOST": "10.0.0.1",
        "CHERVIL_WORKER_PORT": "tcp://10.0.0.1:80",
        "CHERVIL_PORT_80_TCP": "tcp://10.0.0.1:80",
        "TASK_SERIALIZER": "yaml",
    }
    assert Settings(environ=others).changes() == {}
    with pytest.warns(ChervilWarning, match="did you mean CHERVIL_TASK_SERIALIZER") as caught:
        Settings(environ={"CHERVIL_TASK_SERIALISER": "yaml"})
    assert caught[0].filename == __file__


class Base:
    task_serializer = "yaml"


class Config(Base):
    """Settings beside everything else that a class or module may hold."""

    result_expires = dt.timedelta(minutes=1)
    worker_concurrency = 3
    BASE_DIR = "/srv"
    REDIS_HOST = "10.0.0.1"
    _helper = 1
    exchange = object()

    @property
    def task_default_queue(self) -> str:
        return "own"

    def method(self) -> None: ...


@pytest.mark.parametrize("source", [Config(), Config, f"{__name__}:Config", f"{__name__}.Config"])
def test_objects_and_classes(conf: Settings, source: Any) -> None:
    if not isinstance(source, Config):
        # The property of a class is no value.
        with pytest.raises(ImproperlyConfigured, match="task_default_queue"):
            conf.config_from_object(source)
        return
    assert conf.config_from_object(source) is True
    assert conf.task_serializer == "yaml"
    assert conf.result_expires == 60
    assert conf.worker_concurrency == 3
    assert conf.task_default_queue == "own"


def test_modules_by_name(conf: Settings, module: Path) -> None:
    (module / "shopconf.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "BASE = 1\n_host = 'x'\n"
        "broker_url = f'sqlite:///{_host}.db'\n"
        "def helper(): pass\n"
        "class Inner:\n    task_serializer = 'yaml'\n"
    )
    conf.config_from_object("shopconf")
    assert conf.broker_url == "sqlite:///x.db"
    conf.config_from_object("shopconf:Inner")
    assert conf.task_serializer == "yaml"


def test_an_error_in_a_module_names_the_module(conf: Settings, module: Path) -> None:
    (module / "badconf.py").write_text("worker_concurrency = 'x'\n")
    with pytest.raises(ImproperlyConfigured, match=r"worker_concurrency.*in 'badconf'"):
        conf.config_from_object("badconf")
    (module / "typoconf.py").write_text("task_serialiser = 'json'\n")
    with pytest.raises(ImproperlyConfigured, match=r"mean 'task_serializer'.*underscore"):
        conf.config_from_object("typoconf")


def test_missing_modules(conf: Settings, module: Path) -> None:
    for name in ("no_such_module", "no_such.module:attr"):
        assert conf.config_from_object(name, silent=True) is False
        with pytest.raises(ImproperlyConfigured, match=name):
            conf.config_from_object(name)
    with pytest.raises(ImproperlyConfigured, match="no attribute 'nothing'"):
        conf.config_from_object("os:nothing")
    # A module that is there and broken is not a missing one.
    (module / "brokenconf.py").write_text("import no_such_module_either\n")
    with pytest.raises(ImproperlyConfigured, match="no_such_module_either"):
        conf.config_from_object("brokenconf", silent=True)
    assert conf.changes() == {}


def test_a_mapping_holds_nothing_but_settings(conf: Settings) -> None:
    with pytest.raises(ImproperlyConfigured, match="no setting 'helper'"):
        conf.config_from_object({"helper": lambda: None})
    with pytest.raises(ImproperlyConfigured, match="no setting 'HELPER'"):
        conf.config_from_object({"HELPER": 1})


def test_old_names_say_the_new_ones(conf: Settings) -> None:
    old = types.SimpleNamespace(CELERYD_CONCURRENCY=3)
    with pytest.raises(ImproperlyConfigured, match=r"CELERYD_CONCURRENCY.*'worker_concurrency'"):
        conf.config_from_object(old)
    # A new name beside the old one is what counts.
    conf.config_from_object(types.SimpleNamespace(CELERYD_CONCURRENCY=3, worker_concurrency=2))
    assert conf.worker_concurrency == 2


def test_a_namespace_as_in_django(conf: Settings) -> None:
    django = types.SimpleNamespace(
        DEBUG=True,
        DATABASES={},
        CELERY_TASK_SERIALIZER="yaml",
        CELERY_BROKER_URL="memory://",
        BROKER_URL="memory://",
        CELERYBEAT=1,
        lower=1,
    )
    conf.config_from_object(django, namespace="CELERY")
    assert (conf.task_serializer, conf.broker_url) == ("yaml", "memory://")
    lower = types.SimpleNamespace(celery_task_serializer="json")
    conf.config_from_object(lower, namespace="celery_")
    assert conf.task_serializer == "json"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CELERY_ACKS_LATE", "CELERY_TASK_ACKS_LATE"),
        ("CELERYD_CONCURRENCY", "CELERY_WORKER_CONCURRENCY"),
        ("BROKER_URL", "CELERY_BROKER_URL"),
        ("CELERY_TASK_SERIALISER", "CELERY_TASK_SERIALIZER"),
        ("CELERY_WHATEVER_ELSE", "no setting"),
    ],
)
def test_wrong_names_in_a_namespace(conf: Settings, name: str, hint: str) -> None:
    with pytest.raises(ImproperlyConfigured) as error:
        conf.config_from_object(types.SimpleNamespace(**{name: "x"}), namespace="CELERY")
    assert name in str(error.value)
    assert hint in str(error.value)


def test_config_from_envvar(conf: Settings, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (module / "envconf.py").write_text("task_serializer = 'yaml'\n")
    monkeypatch.setenv("SHOP_CONFIG", "envconf")
    assert conf.config_from_envvar("SHOP_CONFIG") is True
    assert conf.task_serializer == "yaml"
    monkeypatch.delenv("SHOP_CONFIG")
    assert conf.config_from_envvar("SHOP_CONFIG", silent=True) is False
    with pytest.raises(ImproperlyConfigured, match="SHOP_CONFIG is not set"):
        conf.config_from_envvar("SHOP_CONFIG")


def test_import_object() -> None:
    assert import_object("os.path") is os.path
    assert import_object("os:path.join") is os.path.join
    assert import_object("os.path.join") is os.path.join
    with pytest.raises(ModuleNotFoundError):
        import_object("no_such_module")


# --- what only Celery has ----------------------------------------------------------------


def test_harmless_settings_of_celery_warn_once_for_each_reason(conf: Settings) -> None:
    with pytest.warns(ChervilWarning) as caught:
        conf.update(
            task_serializer="yaml",
            broker_connection_retry_on_startup=True,
            worker_proc_alive_timeout=30,
            worker_pool_restarts=True,
        )
    texts = sorted(str(warning.message) for warning in caught)
    assert len(texts) == 2
    assert texts[0].startswith("broker_connection_retry_on_startup has no effect because")
    assert texts[1].startswith("worker_proc_alive_timeout, worker_pool_restarts have no effect")
    assert {warning.filename for warning in caught} == {__file__}
    assert conf.task_serializer == "yaml"
    assert conf.worker_pool_restarts is True  # type: ignore[attr-defined]
    assert conf.get("worker_proc_alive_timeout") == 30


def test_the_warning_points_at_the_caller(conf: Settings) -> None:
    with pytest.warns(ChervilWarning, match="beat_sync_every has no effect") as by_attribute:
        conf.beat_sync_every = {}  # type: ignore[attr-defined]
    with pytest.warns(ChervilWarning, match="beat_sync_every has no effect") as by_item:
        conf["beat_sync_every"] = {}
    with pytest.warns(ChervilWarning, match="beat_sync_every has no effect") as by_object:
        conf.config_from_object({"beat_sync_every": {}})
    for caught in (by_attribute, by_item, by_object):
        assert [warning.filename for warning in caught] == [__file__]


def test_a_setting_of_celery_that_was_not_set(conf: Settings) -> None:
    assert conf.get("beat_sync_every", {}) == {}
    with pytest.raises(AttributeError, match=r"beat_sync_every.*stored in the step"):
        _ = conf.beat_sync_every  # type: ignore[attr-defined]


def test_settings_that_would_change_what_happens_are_refused(conf: Settings) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"worker_direct.*-Q"):
        conf["worker_direct"] = True
    with pytest.raises(ImproperlyConfigured, match="write it into broker_url"):
        conf.update(broker_host="localhost", task_serializer="yaml")
    assert conf.task_serializer == "json"
    conf.update(worker_direct=False, broker_use_ssl=None)
    assert "worker_direct" not in conf


# --- what follows, and showing ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "backend", "effective"),
    [
        ("sqlite:///x.db", None, "sqlite:///x.db"),
        ("memory://", None, "memory://"),
        ("memory://", "sqlite:///r.db", "sqlite:///r.db"),
        ("sqlite:///x.db", "disabled://", "disabled://"),
        ("carrier-pigeon://", None, "disabled://"),
    ],
)
def test_the_result_backend_in_use(
    conf: Settings, broker: str, backend: str | None, effective: str
) -> None:
    conf.update(broker_url=broker, result_backend=backend)
    assert conf.effective_result_backend == effective


def test_contradictions(conf: Settings) -> None:
    conf.validate()
    conf.update(task_time_limit=10, task_soft_time_limit=10)
    with pytest.raises(ImproperlyConfigured, match="task_soft_time_limit"):
        conf.validate()
    conf.update(task_soft_time_limit=9, task_default_priority=9, task_queue_max_priority=5)
    with pytest.raises(ImproperlyConfigured, match="task_default_priority"):
        conf.validate()


def test_changes_show_what_is_not_the_default(conf: Settings) -> None:
    assert conf.changes() == {}
    assert conf.humanize() == ""
    conf.worker_concurrency = 4
    conf.broker_transport_options["timeout"] = 3  # in place
    changes = conf.changes()
    assert (changes["worker_concurrency"].value, changes["worker_concurrency"].default) == (4, None)
    assert changes["broker_transport_options"].value == {"timeout": 3}
    assert conf.humanize().splitlines()[-1] == "worker_concurrency: 4 (code)"
    assert conf.table() == {"broker_transport_options": {"timeout": 3}, "worker_concurrency": 4}
    assert set(conf.table(with_defaults=True)) == set(SETTINGS)
    assert "worker_concurrency" in repr(conf)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://me:geheim@host//", "amqp://me:********@host//"),
        ("redis://:geheim@host/0", "redis://:********@host/0"),
        ("amqp://me:geh@eim@host//", "amqp://me:********@host//"),
        ("a://u:geheim@h;b://u:geheim@h", "a://u:********@h;b://u:********@h"),
        ("redis://h/0?password=geheim&x=1", "redis://h/0?password=********&x=1"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("amqp://me@host:5672//", "amqp://me@host:5672//"),
    ],
)
def test_passwords_in_urls_are_masked(conf: Settings, url: str, shown: str) -> None:
    conf.broker_url = url
    assert conf.changes()["broker_url"].value == shown
    assert conf.table()["broker_url"] == shown
    assert shown in conf.humanize()
    assert "geheim" not in repr(conf)
    assert conf.changes(censored=False)["broker_url"].value == url


def test_secrets_in_options_are_masked_at_any_depth(conf: Settings) -> None:
    conf.broker_transport_options = {
        "sentinel_kwargs": {"password": "geheim"},
        "hosts": ["redis://:geheim@a", ("redis://:geheim@b",)],
        "api_key": "geheim",
        "port": 1,
    }
    text = conf.humanize()
    assert "geheim" not in text
    assert "'port': 1" in text


def test_errors_do_not_show_passwords(conf: Settings) -> None:
    with pytest.raises(ImproperlyConfigured) as error:
        conf.update(broker_url=["amqp://me:geheim@host"])
    assert "geheim" not in str(error.value)
    with pytest.raises(ImproperlyConfigured) as error:
        Settings(environ={"CHERVIL_BROKER_TRANSPORT_OPTIONS": "redis://:geheim@host"})
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize("name", ["task_serializer", "result_serializer", "result_compression"])
def test_a_serializer_that_nobody_knows_is_found_at_start(
    name: str, app_factory: Callable[..., Any]
) -> None:
    app = app_factory(**{name: "jsn"})
    with pytest.raises(ImproperlyConfigured, match=f"{name}.*'jsn'.*known: "):
        app.broker.depths()
