"""Sockets to servers, with and without TLS."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from chervil.drivers.redis.location import Location
from chervil.exceptions import ImproperlyConfigured, OperationalError

if TYPE_CHECKING:
    import ssl


def dial(location: Location, error: type[OperationalError]) -> socket.socket:
    """A connected socket whose calls end within ``socket_timeout``.

    :raises OperationalError: (of that class) nobody is there.
    :raises ImproperlyConfigured: a certificate or key cannot be read.
    """
    try:
        sock = _connected(location)
    except OSError as exc:
        raise error(f"cannot reach Redis at {location.name}: {exc}") from exc
    try:
        if not location.path:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if location.socket_keepalive:
                _keep_alive(sock)
        return _secured(sock, location, error) if location.tls else _plain(sock, location)
    except BaseException:
        sock.close()
        raise


def _connected(location: Location) -> socket.socket:
    limit = location.socket_connect_timeout
    if not location.path:
        return socket.create_connection((location.host, location.port), limit)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(limit)
    try:
        sock.connect(location.path)
    except BaseException:
        sock.close()
        raise
    return sock


def _plain(sock: socket.socket, location: Location) -> socket.socket:
    # The kernel keeps the deadline: settimeout would poll before each call.
    seconds = location.socket_timeout
    limit = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return sock


def _secured(
    sock: socket.socket, location: Location, error: type[OperationalError]
) -> socket.socket:
    try:
        secured = tls_context(location).wrap_socket(sock, server_hostname=location.host)
    except OSError as exc:  # SSLError is one
        raise error(
            f"no TLS connection to Redis at {location.name}: {exc}; without TLS, its "
            "scheme is redis://"
        ) from exc
    secured.settimeout(location.socket_timeout)
    return secured


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def tls_context(location: Location) -> ssl.SSLContext:
    """How to speak TLS there.

    :raises ImproperlyConfigured: a certificate or key cannot be read.
    """
    import ssl

    try:
        context = ssl.create_default_context(
            cafile=location.ssl_ca_certs or None, capath=location.ssl_ca_path or None
        )
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
