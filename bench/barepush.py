"""What sending costs at least: LPUSH of one message after the other, nothing else.

``python -m bench.barepush COUNT`` with ``BENCH_BROKER`` set prints messages per second:
hiredis on a socket, each answer awaited, the message made before.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from urllib.parse import urlsplit

import hiredis

from bench.bareloop import message
from chervil.drivers.redis.sending import envelope
from chervil.wire import celery_v2


def main() -> None:
    """Send, and print the rate."""
    count = int(sys.argv[1])
    url = urlsplit(os.environ["BENCH_BROKER"])
    sock = socket.create_connection((url.hostname or "127.0.0.1", url.port or 6379))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader, pack = hiredis.Reader(), hiredis.pack_command
    data = envelope(message(celery_v2.encode_body((), {}, None)), time.time())

    def send() -> None:
        sock.sendall(pack(("LPUSH", "celery", data)))
        while reader.gets() is False:
            reader.feed(sock.recv(65536))

    for _ in range(max(count // 20, 1)):
        send()
    begin = time.perf_counter()
    for _ in range(count):
        send()
    print(count / (time.perf_counter() - begin))
    sock.close()


if __name__ == "__main__":
    main()
