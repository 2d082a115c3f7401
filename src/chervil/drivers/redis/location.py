"""Where a Redis server is and how it is to be used: the URL and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from chervil.exceptions import ImproperlyConfigured

_SCHEMES = ("redis", "rediss", "redis+socket")
_DEFAULT_PORT = 6379


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
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    ssl_check_hostname: bool = True

    @property
    def place(self) -> tuple[str, int, str, int]:
        """What two locations have in common when they are one database."""
        return ("", 0, self.path, self.db) if self.path else (self.host, self.port, "", self.db)

    @property
    def name(self) -> str:
        """For messages; without user name and password."""
        if self.path:
            return f"redis+socket://{self.path}?virtual_host={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}/{self.db}"


def parse(url: str, options: Mapping[str, Any]) -> Location:
    """Read ``redis://user:password@host:port/db?option=value``.

    ``rediss://`` is the same with TLS; ``redis+socket:///path?virtual_host=0`` is a Unix
    domain socket, as kombu spells it.

    :param options: the same as in the URL's query, which wins.
    :raises ImproperlyConfigured: the URL, an option's name or its value is wrong.
    """
    found = _address(url)
    name = Location(**found).name
    query = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
    for key, value in {**options, **query}.items():
        if key in _WITHOUT_MEANING or value is None:
            continue
        if key in ("virtual_host", "db"):
            found["db"] = _database(name, str(value).strip("/"))
        elif key in ("username", "password"):
            found[key] = str(value)
        else:
            found[key] = _option(name, key, value)
    return Location(**found)


def _address(url: str) -> dict[str, Any]:
    scheme = url.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        raise ImproperlyConfigured(f"{scheme}:// is none of {', '.join(_SCHEMES)}")
    if ";" in url or "," in url.partition("?")[0].rpartition("@")[2]:
        raise ImproperlyConfigured(
            f"the {scheme}:// URL names several servers; Sentinel and Cluster are not in this "
            "version of Chervil: give the URL of one server"
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
    found |= {"host": host or "localhost", "port": port or _DEFAULT_PORT, "tls": scheme == "rediss"}
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
    if name in ("master_name", "sentinels", "sentinel_kwargs"):
        raise ImproperlyConfigured(
            f"option {name!r} for {url}: Sentinel is not in this version of Chervil; give the "
            "URL of the primary"
        )
    check = _OPTIONS.get(name)
    if check is None:
        close = get_close_matches(name, _OPTIONS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        known = ", ".join(sorted([*_OPTIONS, "db", "username", "password"]))
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
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_check_hostname": _truth,
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
        "client_name",
        "protocol",
        "connection_class",
        "result_chord_ordered",
    }
)
