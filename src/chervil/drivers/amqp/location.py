"""Where RabbitMQ is and how it is to be used: URLs and their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from chervil.exceptions import ImproperlyConfigured

_SCHEMES = {"amqp": False, "pyamqp": False, "amqps": True}
_PORTS = {False: 5672, True: 5671}


class Server(msgspec.Struct, frozen=True):
    """One server of a cluster, and how it lets us in."""

    host: str = "localhost"
    port: int = 5672
    vhost: str = "/"
    username: str = "guest"
    password: str = "guest"
    tls: bool = False

    @property
    def name(self) -> str:
        """For messages; without user name and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"amqp{'s' if self.tls else ''}://{host}:{self.port}/{self.vhost}"


class Location(msgspec.Struct, frozen=True):
    """The servers that have the same queues, and the options of the connections to them."""

    #: In the order in which they are tried.
    servers: tuple[Server, ...] = (Server(),)
    #: Seconds that an answer or a confirmation may take.
    socket_timeout: float = 5.0
    #: Seconds that connecting to one server may take.
    socket_connect_timeout: float = 5.0
    #: Have the kernel find out about peers that are gone.
    socket_keepalive: bool = True
    #: ``classic`` or ``quorum``: the type of queues that say none, of ours too.
    queue_type: str = "classic"
    #: The same for the queues of native delayed delivery; Celery's setting
    #: ``broker_native_delayed_delivery_queue_type`` must say the same.
    delayed_queue_type: str = "quorum"
    #: Seconds for which revocations are kept at least.
    revocations_kept: int = 30 * 86400
    #: ``required``, ``optional`` or ``none``.
    ssl_cert_reqs: str = "required"
    ssl_ca_certs: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    ssl_check_hostname: bool = True

    @property
    def name(self) -> str:
        """For messages; without user names and passwords."""
        return ";".join(server.name for server in self.servers)


def parse(url: str, options: Mapping[str, Any]) -> Location:
    """Read ``amqp://user:password@host:port/vhost?option=value``.

    ``amqps://`` is the same with TLS, ``pyamqp://`` the same as ``amqp://``. Several URLs
    are separated by semicolons; those after the first may leave the scheme out.

    :param options: the same as in the query of the last URL, which wins.
    :raises ImproperlyConfigured: a URL, an option's name or its value is wrong.
    """
    texts = [text.strip() for text in url.split(";") if text.strip()]
    servers: list[Server] = []
    query: dict[str, Any] = {}
    for text in texts:
        scheme = texts[0].partition("://")[0]
        whole = text if "://" in text else f"{scheme}://{text}"
        servers.append(_server(whole))
        query |= parse_qsl(whole.partition("?")[2], keep_blank_values=True)
    found: dict[str, Any] = {}
    name = servers[0].name
    for key, value in {**options, **query}.items():
        if key in _WITHOUT_MEANING or value is None:
            continue
        if key in _OF_SERVERS:
            servers = [msgspec.structs.replace(one, **{_OF_SERVERS[key]: value}) for one in servers]
        else:
            found[key] = _option(name, key, value)
    return Location(servers=tuple(servers), **found)


def _server(url: str) -> Server:
    scheme = url.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        raise ImproperlyConfigured(f"{scheme}:// is none of {', '.join(_SCHEMES)}")
    tls = _SCHEMES[scheme]
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ImproperlyConfigured(f"the {scheme}:// URL cannot be read: {exc}") from None
    return Server(
        host or "localhost",
        port or _PORTS[tls],
        _vhost(parts.path),
        unquote(parts.username) if parts.username is not None else "guest",
        unquote(parts.password) if parts.password is not None else "guest",
        tls,
    )


def _vhost(path: str) -> str:
    """As kombu reads it: nothing and ``/`` are the default vhost, as is ``//``."""
    return unquote(path[1:]) or "/"


# --- options ---------------------------------------------------------------------------


def _option(url: str, name: str, value: Any) -> Any:
    check = _OPTIONS.get(name)
    if check is None:
        close = get_close_matches(name, _OPTIONS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        known = ", ".join(sorted([*_OPTIONS, *_OF_SERVERS]))
        raise ImproperlyConfigured(f"unknown option {name!r} for {url}{hint} (known: {known})")
    try:
        return check(value)
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"option {name!r} for {url}: {exc}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no number of seconds") from None
    if not 0.01 <= seconds <= 3600:
        raise ValueError(f"{value!r} is not between 0.01 and 3600 seconds")
    return seconds


def _age(value: Any) -> int:
    try:
        seconds = int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no whole number of seconds") from None
    if not 60 <= seconds <= 366 * 86400:
        raise ValueError(f"{value!r} is not between 60 seconds and a year")
    return seconds


def _truth(value: Any) -> bool:
    text = str(value).lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _queue_type(value: Any) -> str:
    if value not in ("classic", "quorum"):
        raise ValueError(f"{value!r} is neither classic nor quorum")
    return str(value)


def _requirement(value: Any) -> str:
    """Celery's spellings: CERT_REQUIRED, required, or the constant of :mod:`ssl`."""
    text = str(getattr(value, "name", value)).lower().removeprefix("cert_")
    if text not in ("required", "optional", "none"):
        raise ValueError(f"{value!r} is none of required, optional, none")
    return text


_OF_SERVERS = {"username": "username", "password": "password", "virtual_host": "vhost"}
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "socket_keepalive": _truth,
    "queue_type": _queue_type,
    "delayed_queue_type": _queue_type,
    "revocations_kept": _age,
    "ssl_cert_reqs": _requirement,
    "ssl_ca_certs": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_check_hostname": _truth,
}

#: Options of kombu's transport that say nothing here: messages are always confirmed,
#: heartbeats follow the lease, and who retries is the caller
#: (https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html).
_WITHOUT_MEANING = frozenset(
    {
        "confirm_publish",
        "confirm_timeout",
        "client_properties",
        "connect_timeout",
        "errback",
        "frame_max",
        "heartbeat",
        "interval_max",
        "interval_start",
        "interval_step",
        "login_method",
        "max_retries",
        "read_timeout",
        "write_timeout",
    }
)
