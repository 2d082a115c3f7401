"""How a connection begins: the socket, TLS, and the first words of AMQP."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.location import Location, Server
from chervil.exceptions import ImproperlyConfigured, OperationalError

if TYPE_CHECKING:
    import ssl

    from chervil.drivers.amqp.link import Link

_GREETING: Final = b"AMQP\x00\x00\x09\x01"
_CAPABILITIES: Final = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "exchange_exchange_bindings": True,
    "publisher_confirms": True,
}


class Session(msgspec.Struct, frozen=True):
    """What was agreed on with the server."""

    product: str
    version: tuple[int, ...]
    #: Largest frame in bytes, with what is around its payload.
    frame_max: int
    #: Seconds; 0: none.
    heartbeat: int


def connect(location: Location, server: Server, error: type[OperationalError]) -> socket.socket:
    """A socket that leads to a server.

    :raises OperationalError: (of that class) it cannot be reached.
    """
    try:
        sock = socket.create_connection((server.host, server.port), location.socket_connect_timeout)
    except OSError as exc:
        raise error(f"cannot reach RabbitMQ at {server.name}: {exc}") from exc
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if location.socket_keepalive:
            _keep_alive(sock)
        return _secured(sock, location, server, error)
    except BaseException:
        sock.close()
        raise


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _secured(
    sock: socket.socket, location: Location, server: Server, error: type[OperationalError]
) -> socket.socket:
    if not server.tls:
        # The kernel keeps the deadline: settimeout would poll before each call.
        seconds = location.socket_timeout
        limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return sock
    try:
        secured = tls_context(location).wrap_socket(sock, server_hostname=server.host)
    except OSError as exc:  # SSLError is one
        raise error(
            f"no TLS connection to RabbitMQ at {server.name}: {exc}; without TLS, its scheme is "
            "amqp://"
        ) from exc
    secured.settimeout(location.socket_timeout)
    return secured


def tls_context(location: Location) -> ssl.SSLContext:
    """How to speak TLS there.

    :raises ImproperlyConfigured: a certificate or key cannot be read.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=location.ssl_ca_certs or None)
        if location.ssl_certfile:
            context.load_cert_chain(location.ssl_certfile, location.ssl_keyfile or None)
    except OSError as exc:
        raise ImproperlyConfigured(
            f"{location.name}: cannot read a certificate or key (ssl_ca_certs, ssl_certfile, "
            f"ssl_keyfile): {exc}"
        ) from exc
    context.check_hostname = location.ssl_check_hostname and location.ssl_cert_reqs != "none"
    context.verify_mode = ssl.VerifyMode[f"CERT_{location.ssl_cert_reqs.upper()}"]
    return context


def open_session(link: Link, label: str, heartbeat: int) -> Session:
    """Log in, and agree on what there is to agree on.

    :raises Refused: the server does not let us in.
    """
    server = link.server
    link.send(_GREETING)
    _, (_, _, told, _, _) = link.hear(m.CONNECTION_START.id)
    secret = f"\0{server.username}\0{server.password}".encode()
    link.send(m.pack(0, m.CONNECTION_START_OK, _introduction(label), "PLAIN", secret, "en_US"))
    code, tuned = link.hear(m.CONNECTION_TUNE.id, m.CONNECTION_SECURE.id)
    if code != m.CONNECTION_TUNE.id:
        raise link.error(f"RabbitMQ at {server.name} wants more than a password (PLAIN)")
    channels, frame_max, _ = tuned
    frame_max = frame_max or 131072
    # The server takes the client's word for the heartbeat.
    link.send(
        m.pack(0, m.CONNECTION_TUNE_OK, channels, frame_max, heartbeat)
        + m.pack(0, m.CONNECTION_OPEN, server.vhost, False)
    )
    link.hear(m.CONNECTION_OPEN_OK.id)
    return Session(_text(told, "product"), _version(told), frame_max, heartbeat)


def _introduction(label: str) -> dict[str, Any]:
    return {
        "product": "Chervil",
        "platform": "Python",
        "connection_name": label,
        "capabilities": _CAPABILITIES,
    }


def _text(told: dict[str, Any], key: str) -> str:
    found = told.get(key)
    return found if isinstance(found, str) else ""


def _version(told: dict[str, Any]) -> tuple[int, ...]:
    digits = []
    for part in _text(told, "version").split("."):
        if not part.isdigit():
            break
        digits.append(int(part))
    return tuple(digits)
