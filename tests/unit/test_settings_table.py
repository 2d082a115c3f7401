"""The table of settings and the lists beside it say the same."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from chervil.drivers.registry import schemes, settings_of_results
from chervil.exceptions import ImproperlyConfigured
from chervil.settings import CELERY_ONLY, OURS, SAME, SETTINGS, Settings, modern_name
from chervil.settings.fields import Fields
from chervil.taskoptions import FROM_CONFIG

ROOT = Path(__file__).resolve().parents[2]


def test_the_types_for_checkers_are_those_of_the_table() -> None:
    assert Fields.__annotations__ == {s.name: s.kind.annotation for s in SETTINGS.values()}


def test_every_default_is_right_and_stays_what_it_is() -> None:
    for setting in SETTINGS.values():
        kept = setting.kind.check(setting.default)
        assert kept == setting.default, setting.name
        assert type(kept) is type(setting.default), setting.name


def test_every_setting_is_documented() -> None:
    for setting in SETTINGS.values():
        assert setting.group, setting.name
        assert setting.doc.endswith("."), setting.name
        assert len(setting.doc) > 15, setting.name
        assert setting.env == f"CHERVIL_{setting.name.upper()}"
        assert setting.celery in (OURS, SAME) or setting.celery != repr(setting.default)


def test_celery_only_settings_are_not_settings() -> None:
    assert not set(CELERY_ONLY) & set(SETTINGS)
    for name, entry in CELERY_ONLY.items():
        assert entry.why, name


def test_no_setting_is_called_like_a_method() -> None:
    """A method would hide the value, or the value the method."""
    assert not set(dir(Settings)) & (set(SETTINGS) | set(CELERY_ONLY))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CELERY_RESULT_BACKEND", "result_backend"),
        ("CELERY_RESULT_DBURI", "result_backend"),
        ("CELERYD_CONCURRENCY", "worker_concurrency"),
        ("CELERYD_TASK_TIME_LIMIT", "task_time_limit"),
        ("CELERYD_PREFETCH_MULTIPLIER", "worker_prefetch_multiplier"),
        ("CELERYD_WORKER_LOST_WAIT", "worker_lost_wait"),
        ("CELERYBEAT_SCHEDULE", "beat_schedule"),
        ("CELERY_ACKS_LATE", "task_acks_late"),
        ("CELERY_ALWAYS_EAGER", "task_always_eager"),
        ("CELERY_EAGER_PROPAGATES_EXCEPTIONS", "task_eager_propagates"),
        ("CELERY_TASK_RESULT_EXPIRES", "result_expires"),
        ("CELERY_SEND_EVENTS", "worker_send_task_events"),
        ("CELERY_TIMEZONE", "timezone"),
        ("CELERY_TASK_SERIALIZER", "task_serializer"),
        ("CELERY_REDIRECT_STDOUTS", "worker_redirect_stdouts"),
        ("CELERY_DISABLE_RATE_LIMITS", "worker_disable_rate_limits"),
        ("BROKER_URL", "broker_url"),
        ("BROKER_POOL_LIMIT", "broker_pool_limit"),
        ("CELERY_ONCE", None),
        ("DATABASE_URL", None),
        ("DEBUG", None),
    ],
)
def test_names_before_celery_4(old: str, new: str | None) -> None:
    assert modern_name(old) == new


def test_every_renamed_setting_leads_somewhere() -> None:
    from chervil.settings.celery_only import _RENAMED

    assert all(new in SETTINGS or new in CELERY_ONLY for new in _RENAMED.values())


#: Settings that no code looks up, with the reason.
NOT_READ = {"task_protocol": "there is one value that it can have"}


def test_every_setting_is_read_somewhere() -> None:
    package = ROOT / "src" / "chervil"
    code = "\n".join(
        path.read_text()
        for path in package.rglob("*.py")
        if package / "settings" not in path.parents
    )
    conf = (package / "settings" / "conf.py").read_text()
    told = {name for scheme in schemes() for name in settings_of_results(scheme)}
    read = {
        name
        for name in SETTINGS
        if re.search(rf"(?:conf|settings)\.{name}\b", code)
        or re.search(rf"\bself\.{name}\b", conf)
        or name in FROM_CONFIG.values()
        or name in told
    }
    assert set(SETTINGS) - read == set(NOT_READ)


# --- kinds -----------------------------------------------------------------------------

RIGHT: list[tuple[str, Any, Any]] = [
    ("task_acks_late", False, False),
    ("task_acks_late", 1, True),
    ("worker_concurrency", 4, 4),
    ("worker_concurrency", 0, None),
    ("worker_concurrency", "auto", None),
    ("worker_pool", "processes", "prefork"),
    ("worker_prefetch_multiplier", 0, 0),
    ("result_expires", None, None),
    ("result_expires", 0, 0),
    ("accept_content", ("json", "pickle"), ["json", "pickle"]),
    ("accept_content", {"pickle", "json"}, ["json", "pickle"]),
    ("accept_content", "json", ["json"]),
    ("imports", "shop.tasks", ("shop.tasks",)),
    ("imports", ["a", "b"], ("a", "b")),
    ("task_default_delivery_mode", "transient", 1),
    ("task_default_rate_limit", "10/m", "10/m"),
    ("task_default_rate_limit", 2.5, 2.5),
    ("timezone", "Europe/Berlin", "Europe/Berlin"),
    ("timezone", "UTC", "UTC"),
    ("worker_redirect_stdouts_level", "warn".upper(), "WARNING"),
    ("task_time_limit", 0, None),
    ("task_protocol", 2, 2),
    ("task_queues", ("a", "b"), ["a", "b"]),
    ("task_queues", {"a": {"routing_key": "x"}}, {"a": {"routing_key": "x"}}),
    ("task_annotations", {"*": {"rate_limit": "1/s"}}, {"*": {"rate_limit": "1/s"}}),
]


@pytest.mark.parametrize(("name", "given", "kept"), RIGHT)
def test_right_values(name: str, given: Any, kept: Any) -> None:
    conf = Settings(environ={})
    conf[name] = given
    assert conf[name] == kept
    assert type(conf[name]) is type(kept)


WRONG: list[tuple[str, Any, str]] = [
    ("task_acks_late", "False", "True or False"),
    ("task_acks_late", 2, "True or False"),
    ("worker_concurrency", "4", "whole number of at least 1"),
    ("worker_concurrency", -1, "whole number"),
    ("worker_concurrency", True, "whole number"),
    ("worker_concurrency", 1.0, "whole number"),
    ("publish_timeout", 0, "more than 0"),
    ("worker_pool", "shop.pools:Pool", "one of 'prefork'"),
    ("accept_content", ["jsn"], "did you mean 'json'"),
    ("accept_content", ["json", "ymal"], "did you mean 'yaml'"),
    ("task_default_rate_limit", "10/q", "tasks per second"),
    ("publish_timeout", None, "seconds"),
    ("publish_timeout", float("inf"), "seconds"),
    ("publish_timeout", float("nan"), "seconds"),
    ("publish_timeout", True, "seconds"),
    ("result_expires", -1, "seconds"),
    ("worker_pool", "threds", "one of 'prefork'"),
    ("worker_pool", "gevent", "one of 'prefork'"),
    ("task_default_exchange_type", "headers", "one of 'direct'"),
    ("task_protocol", 1, "one of 2"),
    ("accept_content", [1], "names"),
    ("accept_content", None, "names"),
    ("task_serializer", "", "text"),
    ("task_serializer", 1, "text"),
    ("timezone", "Mars/Olympus", "time zone"),
    ("timezone", "../../etc/passwd", "time zone"),
    ("task_default_rate_limit", "10/x", "tasks per second"),
    ("task_publish_retry_policy", {"max_retry": 1}, "'max_retry'"),
    ("task_publish_retry_policy", {"interval_max": "1"}, "'interval_max'"),
    ("task_queues", "a,b", "a list of Queue"),
    ("task_queues", [1], "not 1"),
    ("task_queues", {"a": 1}, "not 'a'"),
    ("task_routes", 1, "a dict from task name"),
    ("task_annotations", {"a": 1}, "a dict from task name"),
    ("broker_transport_options", {1: 2}, "dict"),
    ("worker_log_color", "yes", "True or False, or None"),
]


@pytest.mark.parametrize(("name", "given", "expected"), WRONG)
def test_wrong_values_name_setting_value_and_what_is_right(
    name: str, given: Any, expected: str
) -> None:
    conf = Settings(environ={})
    before = conf[name]
    with pytest.raises(ImproperlyConfigured) as error:
        conf[name] = given
    text = str(error.value)
    assert repr(name) in text
    assert repr(given) in text
    assert expected in text
    assert conf[name] == before


def test_a_retry_policy_keeps_the_defaults_of_what_it_leaves_out() -> None:
    conf = Settings(environ={})
    conf.task_publish_retry_policy = {"max_retries": None}
    assert conf.task_publish_retry_policy == {
        "max_retries": None,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 1,
    }


# --- from the environment -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("task_acks_late", "no", False),
        ("task_acks_late", " TRUE ", True),
        ("worker_concurrency", "8", 8),
        ("worker_concurrency", "", None),
        ("worker_concurrency", "0", None),
        ("worker_max_memory_per_child", "200_000", 200_000),
        ("result_expires", "none", None),
        ("result_expires", "1.5", 1.5),
        ("result_expires", "90", 90),
        ("result_expires", "500ms", 0.5),
        ("result_expires", "30s", 30),
        ("result_expires", "2h", 7200),
        ("result_expires", "1.5 d", 129600),
        ("accept_content", "json, pickle,", ["json", "pickle"]),
        ("imports", "a,b.c", ("a", "b.c")),
        ("broker_transport_options", '{"synchronous": "full"}', {"synchronous": "full"}),
        ("task_queues", "a, b", ["a", "b"]),
        ("task_queues", '{"a": {}}', {"a": {}}),
        ("task_routes", '{"a.*": "x"}', {"a.*": "x"}),
        ("task_routes", "shop.routers:route", "shop.routers:route"),
        ("task_default_delivery_mode", "1", 1),
        ("task_protocol", "2", 2),
        ("worker_log_color", "off", False),
        ("task_default_rate_limit", "10/s", "10/s"),
    ],
)
def test_texts_of_the_environment(name: str, text: str, value: Any) -> None:
    conf = Settings(environ={f"CHERVIL_{name.upper()}": text})
    assert conf[name] == value
    assert type(conf[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("task_acks_late", "maybe"),
        ("worker_concurrency", "four"),
        ("worker_concurrency", "-1"),
        ("result_expires", "1 fortnight"),
        ("result_expires", "-3"),
        ("broker_transport_options", "synchronous=full"),
        ("broker_transport_options", "[1]"),
        ("worker_pool", "threds"),
        ("task_serializer", " "),
        ("task_protocol", "one"),
    ],
)
def test_wrong_texts_name_the_variable(name: str, text: str) -> None:
    variable = f"CHERVIL_{name.upper()}"
    with pytest.raises(ImproperlyConfigured) as error:
        Settings(environ={variable: text})
    assert variable in str(error.value)
    assert repr(text) in str(error.value)


# --- the page ---------------------------------------------------------------------------


def test_the_page_has_everything() -> None:
    page = runpy.run_path(os.fspath(ROOT / "docs" / "gen_settings.py"))["render"]()
    for setting in SETTINGS.values():
        assert f"### `{setting.name}`\n\n{setting.doc}" in page
        assert f"`{setting.env}`" in page
    for name, entry in CELERY_ONLY.items():
        assert f"`{name}`" in page
        assert entry.why in page
    assert page.count("\n## ") == len({s.group for s in SETTINGS.values()}) + 1
