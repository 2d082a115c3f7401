"""From a URL's scheme to the driver that serves it.

The only place that names driver modules; each is imported when its first URL
is opened, so that an unused driver costs nothing and needs nothing installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from chervil.drivers.contracts import Broker, ResultStore
from chervil.drivers.coordination import Coordinator
from chervil.exceptions import ImproperlyConfigured, MissingDependency


class Driver(msgspec.Struct, frozen=True):
    """Where the parts of a technology are defined."""

    #: "module:callable"; called with (url, options); None: it has no such part.
    broker: str | None = None
    results: str | None = None
    #: The extra of this package that installs what it imports.
    extra: str = ""
    coordinator: str | None = None
    #: Settings of the app that its result store is told, as options of these names.
    settings: tuple[str, ...] = ()
    #: Its results go to who sent the task and to nobody else: the store is a
    #: :class:`~chervil.drivers.contracts.PrivateStore`.
    private: bool = False


_DRIVERS: dict[str, Driver] = {
    "sqlite": Driver(
        "chervil.drivers.sqlite.broker:SqliteBroker",
        "chervil.drivers.sqlite.results:SqliteResults",
        coordinator="chervil.drivers.sqlite.coordinator:SqliteCoordinator",
    ),
    "memory": Driver(
        "chervil.drivers.memory.broker:MemoryBroker",
        "chervil.drivers.memory.results:MemoryResults",
        coordinator="chervil.drivers.memory.coordinator:MemoryCoordinator",
    ),
    "disabled": Driver(None, "chervil.drivers.disabled:DisabledResults"),
    **dict.fromkeys(
        ("redis", "rediss", "redis+socket", "sentinel"),
        Driver(
            "chervil.drivers.redis.broker:RedisBroker",
            "chervil.drivers.redis.results:RedisResults",
            "redis",
            "chervil.drivers.redis.coordinator:RedisCoordinator",
        ),
    ),
    **dict.fromkeys(
        ("amqp", "amqps", "pyamqp"),
        Driver("chervil.drivers.amqp.broker:AmqpBroker", None, "amqp"),
    ),
    "rpc": Driver(
        None,
        "chervil.drivers.amqp.results:RpcResults",
        "amqp",
        settings=(
            "broker_url",
            "broker_transport_options",
            "result_serializer",
            "result_persistent",
            "result_expires",
        ),
        private=True,
    ),
}


#: The parts of a driver, for messages.
_WORDS = {"broker": "broker", "results": "result store", "coordinator": "coordinator"}

#: Schemes that Celery's users know and that this version has no driver for; of
#: schemes such as ``db+postgresql`` the part before the plus sign
#: (https://docs.celeryq.dev/en/stable/userguide/configuration.html).
# fmt: off
_NOT_YET = frozenset({
    "arangodb", "azureblockblob", "azureservicebus", "azurestoragequeues",
    "cache", "cassandra", "confluentkafka", "consul", "cosmosdbsql", "couchbase",
    "couchbases", "couchdb", "db", "django", "django-cache", "django-db", "dynamodb",
    "elasticsearch", "etcd", "file", "filesystem", "gcpubsub", "gs", "kafka", "librabbitmq",
    "mongodb", "mysql", "postgresql", "pyro", "qpid",
    "s3", "slmq", "sqla", "sqlalchemy", "sqs", "valkey", "zookeeper",
})
# fmt: on


def register_driver(scheme: str, driver: Driver) -> None:
    """Make a technology of one's own available under a URL scheme."""
    _DRIVERS[scheme] = driver


def schemes(half: str | None = None) -> list[str]:
    """The URL schemes that are known.

    :param half: ``"broker"``, ``"results"`` or ``"coordinator"``: only those that can be one.
    """
    return sorted(
        name for name, driver in _DRIVERS.items() if half is None or getattr(driver, half)
    )


def scheme_of(url: str) -> str:
    """The scheme of a URL; ``memory`` and ``disabled`` may stand alone."""
    return url.partition(":")[0].lower()


def has_results(url: str) -> bool:
    """Whether the technology of that URL can store results."""
    driver = _DRIVERS.get(scheme_of(url))
    return driver is not None and driver.results is not None


def has_coordinator(url: str) -> bool:
    """Whether the technology of that URL can keep what nodes share."""
    driver = _DRIVERS.get(scheme_of(url))
    return driver is not None and driver.coordinator is not None


def settings_of_results(url: str) -> tuple[str, ...]:
    """The settings that the result store of that URL is told as options."""
    driver = _DRIVERS.get(scheme_of(url))
    return driver.settings if driver is not None else ()


def has_private_results(url: str) -> bool:
    """Whether results go to who sent the task and to nobody else."""
    driver = _DRIVERS.get(scheme_of(url))
    return driver is not None and driver.private


def open_broker(url: str, options: Mapping[str, Any] | None = None) -> Broker:
    """Open the broker of a URL.

    :raises ImproperlyConfigured: unknown scheme, or the URL or an option is wrong.
    :raises MissingDependency: its library is not installed.
    """
    broker: Broker = _load(url, "broker")(url, dict(options or {}))
    return broker


def open_results(url: str, options: Mapping[str, Any] | None = None) -> ResultStore:
    """Open the result store of a URL; errors as for :func:`open_broker`."""
    store: ResultStore = _load(url, "results")(url, dict(options or {}))
    return store


def open_coordinator(url: str, options: Mapping[str, Any] | None = None) -> Coordinator:
    """Open the coordinator of a URL; errors as for :func:`open_broker`."""
    coordinator: Coordinator = _load(url, "coordinator")(url, dict(options or {}))
    return coordinator


def _load(url: str, half: str) -> Callable[..., Any]:
    scheme = scheme_of(url)
    driver = _DRIVERS.get(scheme)
    if driver is None:
        raise ImproperlyConfigured(_no_driver(scheme, half))
    path = getattr(driver, half)
    if path is None:
        what = f"a {_WORDS[half]}"
        able = ", ".join(schemes(half))
        raise ImproperlyConfigured(f"{scheme}:// cannot be {what} (these can: {able})")
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except ModuleNotFoundError as exc:
        if exc.name and exc.name.startswith("chervil"):
            raise
        raise MissingDependency(
            f"{url!r} needs the library {exc.name!r}, which is not installed: "
            f"pip install 'chervil[{driver.extra or scheme}]'"
        ) from exc


def _no_driver(scheme: str, half: str) -> str:
    """Why a URL cannot be opened. The URL itself is left out: it may hold a password."""
    what = _WORDS[half]
    have = ", ".join(schemes(half))
    if scheme.partition("+")[0] in _NOT_YET:
        return (
            f"{scheme}:// as a {what} is not in this version of Chervil (it has: {have}); "
            "a file does without a server: sqlite:///chervil.db"
        )
    close = get_close_matches(scheme, schemes(half), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown scheme {scheme!r} in the URL of the {what}{hint} (known: {have})"
