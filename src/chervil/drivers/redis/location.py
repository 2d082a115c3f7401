"""Where a Redis server is and how it is to be used: the URL and its options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from chervil.exceptions import ImproperlyConfigured

_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
_DEFAULT_PORT = 6379
_SENTINEL_PORT = 26379
#: What a client name must not have.
_UNSEEN = re.compile("[^!-~]")


class Location(msgspec.Struct, frozen=True):
    """A database of a server, and the options of the connections to it."""

    host: str = "localhost"
    port: int = _DEFAULT_PORT
    #: Path of a Unix domain socket; then host and port mean nothing.
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    tls: bool = False
    #: Put before every key and channel, as it is.
    global_keyprefix: str = ""
    #: The steps of kombu's priority lists, the one served first in front.
    priority_steps: tuple[int, ...] = (0, 3, 6, 9)
    #: Between the name of a queue and its priority step, and in binding keys.
    sep: str = "\x06\x16"
    #: Before the exchange in the names of channels; ``{db}`` is the database's number.
    fanout_prefix: str = "/{db}."
    #: Put the routing key behind the exchange there.
    fanout_patterns: bool = True
    #: Seconds that an answer may take.
    socket_timeout: float = 5.0
    #: Seconds that connecting may take.
    socket_connect_timeout: float = 5.0
    #: Have the kernel find out about peers that are gone.
    socket_keepalive: bool = True
    #: ``required``, ``optional`` or ``none``.
    ssl_cert_reqs: str = "required"
    ssl_ca_certs: str = ""
    ssl_ca_path: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    ssl_check_hostname: bool = True
    #: What ``CLIENT LIST`` shows.
    client_name: str = "chervil"
    #: The name of the primary that these Sentinels know; then host and port mean nothing.
    master_name: str = ""
    sentinels: tuple[Location, ...] = ()
    #: It is a Sentinel itself.
    is_sentinel: bool = False

    @property
    def place(self) -> tuple[object, ...]:
        """What two locations have in common when they are one database."""
        if self.sentinels:
            return frozenset((s.host, s.port) for s in self.sentinels), self.master_name, self.db
        return (self.path, self.db) if self.path else (self.host, self.port, self.db)

    @property
    def name(self) -> str:
        """For messages; without user name and password."""
        if self.path:
            return f"redis+socket://{self.path}?virtual_host={self.db}"
        if self.sentinels:
            return f"{';'.join(s.name for s in self.sentinels)}/{self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.is_sentinel:
            return f"sentinel://{host}:{self.port}"
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.db}"

    def named(self, client: str) -> Location:
        """The same, for connections with that behind the client name."""
        name = f"{self.client_name}:{client}"
        return msgspec.structs.replace(self, client_name=_UNSEEN.sub("-", name))


def parse(url: str, options: Mapping[str, Any]) -> Location:
    """Read ``redis://user:password@host:port/db?option=value``.

    ``rediss://`` is the same with TLS; ``redis+socket:///path?virtual_host=0`` is a Unix
    domain socket; ``sentinel://user:password@host:26379/0;sentinel://host2:26379`` are
    Sentinels, where user, password and database are those of the server. All as kombu
    spells it.

    :param options: the same as in the URL's query, which wins.
    :raises ImproperlyConfigured: the URL, an option's name or its value is wrong.
    """
    first, *more = url.split(";")
    found = _address(first)
    sentinel = first.partition(":")[0].lower() == "sentinel"
    if more and not sentinel:
        raise ImproperlyConfigured(
            f"{Location(**found).name}: several servers in one URL are several Sentinels: "
            "sentinel://host:26379/0;sentinel://host2:26379"
        )
    name = f"sentinel://{found['host']}" if sentinel else Location(**found).name
    query = dict(parse_qsl(first.partition("?")[2], keep_blank_values=True))
    given = {**options, **query}
    sentinel_kwargs = given.pop("sentinel_kwargs", None)
    found |= _read(name, given)
    if not sentinel and (sentinel_kwargs or found.get("master_name")):
        raise ImproperlyConfigured(
            f"options master_name and sentinel_kwargs for {name}: they are for "
            "sentinel://host:26379/0"
        )
    if sentinel:
        found["sentinels"] = _sentinels(name, [first, *more], sentinel_kwargs, found)
        if not found.get("master_name"):
            raise ImproperlyConfigured(
                f"{name} needs the name under which its Sentinels know the primary: "
                "broker_transport_options (and result_backend_transport_options) = "
                "{'master_name': 'mymaster'}"
            )
    return Location(**found)


def _read(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a location from options."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key in _WITHOUT_MEANING or value is None:
            continue
        if key in ("virtual_host", "db"):
            found["db"] = _database(url, str(value).strip("/"))
        elif key in ("username", "password"):
            found[key] = str(value)
        elif key == "ssl":
            found["tls"] = _option(url, key, value)
        else:
            found[key] = _option(url, key, value)
    return found


def _sentinels(
    name: str, urls: Sequence[str], options: Any, server: Mapping[str, Any]
) -> tuple[Location, ...]:
    """The Sentinels of a URL; how to connect to them is in options of their own.

    They answer at once or are left out: all of them together get about the time that
    connecting to a server may take.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ImproperlyConfigured(
            f"option 'sentinel_kwargs' for {name}: must be a dict, such as "
            "{'password': 'the password of the Sentinels'}"
        )
    limit = server.get("socket_connect_timeout", Location().socket_connect_timeout)
    limit = max(0.2, limit / max(2, len(urls)))
    defaults = {"socket_timeout": limit, "socket_connect_timeout": limit}
    common = {**defaults, **_read(name, options or {}), "db": 0, "is_sentinel": True}
    found: list[Location] = []
    for url in urls:
        if not url.startswith("sentinel://"):
            raise ImproperlyConfigured(f"{name}: between ; there must be sentinel:// URLs only")
        address = _address(url)
        found.append(Location(host=address["host"], port=address["port"], **common))
    return tuple(dict.fromkeys(found))


def _address(url: str) -> dict[str, Any]:
    scheme = url.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        raise ImproperlyConfigured(f"{scheme}:// is none of {', '.join(_SCHEMES)}")
    if "," in url.partition("?")[0].rpartition("@")[2]:
        raise ImproperlyConfigured(
            f"the {scheme}:// URL names several servers with commas; Sentinels are written "
            "sentinel://host:26379/0;sentinel://host2:26379, and a Cluster cannot be used"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ImproperlyConfigured(f"the {scheme}:// URL cannot be read: {exc}") from None
    found: dict[str, Any] = {
        "username": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
    }
    if scheme == "redis+socket":
        found["path"] = unquote(parts.path)
        if host or len(found["path"]) < 2:
            raise ImproperlyConfigured(
                "redis+socket:// needs three slashes and the path of a socket, such as "
                "redis+socket:///run/redis/redis.sock?virtual_host=0"
            )
        return found
    usual = _SENTINEL_PORT if scheme == "sentinel" else _DEFAULT_PORT
    found |= {"host": host or "localhost", "port": port or usual, "tls": scheme == "rediss"}
    found["db"] = _database(Location(**found).name, unquote(parts.path).strip("/"))
    return found


def _database(name: str, text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise ImproperlyConfigured(
            f"{name}: {text!r} is no number of a database; Redis numbers them from 0: "
            "redis://host:6379/0"
        )
    return int(text)


# --- options ---------------------------------------------------------------------------


def _option(url: str, name: str, value: Any) -> Any:
    check = _OPTIONS.get(name)
    if check is None:
        names = sorted([*_OPTIONS, "db", "username", "password", "sentinel_kwargs"])
        close = get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        known = ", ".join(names)
        raise ImproperlyConfigured(f"unknown option {name!r} for {url}{hint} (known: {known})")
    try:
        return check(value)
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"option {name!r} for {url}: {exc}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    value.encode()  # lone surrogates: UnicodeEncodeError is a ValueError
    return value


def _client_name(value: Any) -> str:
    if not _text(value) or _UNSEEN.search(value):
        raise ValueError(f"{value!r} must be of visible ASCII letters without spaces")
    return str(value)


def _separator(value: Any) -> str:
    if not _text(value):
        raise ValueError("it must not be empty: queues and priorities would run together")
    return str(value)


def _steps(value: Any) -> tuple[int, ...]:
    items = value.strip("[]() ").split(",") if isinstance(value, str) else value
    try:
        steps = tuple(int(item) for item in items)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no list of whole numbers, such as [0, 3, 6, 9]") from None
    if not steps or list(steps) != sorted(set(steps)) or steps[0] != 0 or len(steps) > 10:
        raise ValueError(f"{value!r} must be up to ten rising numbers from 0, such as [0, 3, 6, 9]")
    return steps


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no number of seconds") from None
    if not 0.01 <= seconds <= 3600:
        raise ValueError(f"{value!r} is not between 0.01 and 3600 seconds")
    return seconds


def _truth(value: Any) -> bool:
    text = str(value).lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _fanout_prefix(value: Any) -> str:
    """As kombu: true for its own, false for none, or the text itself."""
    text = str(value)
    if text.lower() in ("true", "false", "1", "0"):
        return "/{db}." if _truth(text) else ""
    return _text(value)


def _requirement(value: Any) -> str:
    """Celery's spellings: CERT_REQUIRED, required, or the constant of :mod:`ssl`."""
    text = str(getattr(value, "name", value)).lower().removeprefix("cert_")
    if text not in ("required", "optional", "none"):
        raise ValueError(f"{value!r} is none of required, optional, none")
    return text


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "global_keyprefix": _text,
    "priority_steps": _steps,
    "sep": _separator,
    "fanout_prefix": _fanout_prefix,
    "fanout_patterns": _truth,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _truth,
    "ssl_cert_reqs": _requirement,
    "ssl_ca_certs": _text,
    "ssl_ca_path": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_check_hostname": _truth,
    "ssl": _truth,
    "client_name": _client_name,
    "master_name": _text,
}

#: Options of kombu's transport and Celery's backend that say nothing here: there is no
#: visibility timeout and no polling, connections are made as they are needed, and who
#: retries is the caller (https://docs.celeryq.dev/en/stable/userguide/configuration.html).
_WITHOUT_MEANING = frozenset(
    {
        "visibility_timeout",
        "unacked_key",
        "unacked_index_key",
        "unacked_mutex_key",
        "unacked_mutex_expire",
        "unacked_restore_limit",
        "unacked_restore_interval",
        "unacked_restore_throttle",
        "body_encoding",
        "socket_keepalive_options",
        "reauth_check_interval",
        "queue_order_strategy",
        "polling_interval",
        "max_connections",
        "health_check_interval",
        "retry_on_timeout",
        "retry_policy",
        "max_retries",
        "interval_start",
        "interval_step",
        "interval_max",
        "errback",
        "min_other_sentinels",
        "protocol",
        "connection_class",
        "result_chord_ordered",
    }
)
