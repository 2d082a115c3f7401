"""The proxy that spoils connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from chervil.testing.faults.proxy import Proxy


class Echo:
    """Answers each line with itself, in capitals; until the client closes."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.got: list[bytes] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve, args=(client,)))
            self.threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    self.got.append(data)
                    client.sendall(data.upper())
            except OSError:
                pass

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for thread in self.threads:
            thread.join(10)


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo.port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    answer = b""
    while len(answer) < len(text) and (data := client.recv(65536)):
        answer += data
    return answer


def until_reset(client: socket.socket) -> bytes:
    """What comes before the connection is reset."""
    got = b""
    try:
        while data := client.recv(10):
            got += data
    except ConnectionResetError:
        return got
    pytest.fail("it was closed and not reset")


def test_hands_on_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"hello") == b"HELLO"
        assert ask(client, b"x" * 1_000_000) == b"X" * 1_000_000
        assert proxy.connections == 1
    assert proxy.url("redis://user:pw@server:1/0?a=b") == (
        f"redis://user:pw@127.0.0.1:{proxy.port}/0?a=b"
    )


def test_cut_resets(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"one") == b"ONE"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert ask(client, b"two") == b"TWO"


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_reply_is_cut_after_so_many_bytes(proxy: Proxy, after: int) -> None:
    with connect(proxy) as client:
        assert ask(client, b"whole") == b"WHOLE"
        proxy.cut_reply(after)
        client.sendall(b"parts")
        assert until_reset(client) == b"PARTS"[:after]
    assert len(proxy.breaks) == 1
    with connect(proxy) as client:
        assert ask(client, b"whole") == b"WHOLE"


def test_a_request_is_cut_after_so_many_bytes(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        proxy.cut_request(2)
        client.sendall(b"parts")
        assert until_reset(client) in (b"", b"PA"), "the answer to the part may come first"
    assert echo.got in ([], [b"pa"]), "a reset may overtake what was sent before it"


def test_half_close(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        assert ask(client, b"one") == b"ONE"
        assert proxy.half_close() == 1
        assert client.recv(1) == b""
        client.sendall(b"still heard")
        deadline = time.monotonic() + 10
        while b"still heard" not in echo.got:
            assert time.monotonic() < deadline
            time.sleep(0.002)


def test_frozen_refusing_and_healed(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b"one") == b"ONE"
        proxy.frozen = True
        client.sendall(b"two")
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.refusing = True
        with connect(proxy) as other, pytest.raises(ConnectionResetError):
            other.recv(1)
        proxy.heal()
        client.settimeout(10)
        assert client.recv(3) == b"TWO"


def test_slow(proxy: Proxy) -> None:
    proxy.delay, proxy.rate = 0.01, 10_000
    with connect(proxy) as client:
        assert ask(client, b"x" * 1000) == b"X" * 1000
