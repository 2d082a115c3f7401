"""A TCP proxy on loopback that treats its connections badly, when told to.

It runs on an event loop in a thread of its own::

    with Proxy("127.0.0.1", 6379) as proxy:
        app.conf.broker_url = f"redis://127.0.0.1:{proxy.port}/0"
        proxy.cut()                   # reset all connections
        proxy.delay = 0.2             # seconds, each way
        proxy.cut_reply(7)            # the next reply ends after 7 bytes

A *request* is what the client sends after the server has sent something, and a
*reply* what the server sends after the client has: enough for protocols in which
the two take turns.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")

_CHUNK = 65536
#: How long a stopped connection waits before it looks again, in seconds.
_LOOK_SECONDS = 0.01
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Hands connections on to ``host:port``; usable as a context manager.

    The attributes may be changed at any time, from any thread.

    :param host: where the server is.
    :param port: likewise.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        #: Seconds by which everything is held up, each way.
        self.delay = 0.0
        #: Bytes a second, each way; 0: as fast as they come.
        self.rate = 0.0
        #: Nothing passes, and connections stay open.
        self.frozen = False
        #: New connections are reset at once.
        self.refusing = False
        #: How many connections there have been.
        self.accepted = 0
        #: When connections were cut, in monotonic seconds.
        self.breaks: list[float] = []
        self._limits: dict[str, int] = {}
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="faults-proxy", daemon=True)
        self._thread.start()

    def url(self, url: str) -> str:
        """The same URL with the proxy's address instead of the server's."""
        parts = urlsplit(url)
        before, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{before}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._pairs)

    # --- faults

    def cut(self) -> int:
        """Reset all connections; how many there were."""
        return self._do(lambda: self._each(_Pair.reset))

    def half_close(self, *, to_client: bool = True) -> int:
        """Send the end of the stream one way; the other way stays open."""
        return self._do(lambda: self._each(lambda pair: pair.end(to_client)))

    def cut_reply(self, after: int) -> None:
        """Reset the connection of the next reply when ``after`` bytes of it have passed."""
        self._do(lambda: self._limits.__setitem__("reply", after))

    def cut_request(self, after: int) -> None:
        """Reset the connection of the next request when ``after`` bytes of it have passed."""
        self._do(lambda: self._limits.__setitem__("request", after))

    def heal(self) -> None:
        """No more faults; what was cut stays cut."""
        self.delay = self.rate = 0.0
        self.frozen = self.refusing = False
        self._do(self._limits.clear)

    def close(self) -> None:
        """Reset everything and stop listening."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set_result, None)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, work: Callable[[_Pair], None]) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            work(pair)
        return len(pairs)

    def _do(self, work: Callable[[], T]) -> T:
        """Run something on the loop and wait for it."""

        async def do() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(10)

    # --- on the loop

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listening)
        await self._stopped
        server.close()
        for pair in list(self._pairs):
            pair.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _reset(writer)
            return
        try:
            server = await asyncio.open_connection(*self._server)
        except OSError:
            _reset(writer)
            return
        pair = _Pair(self, (reader, writer), server)
        self._pairs.add(pair)
        try:
            await pair.run()
        finally:
            self._pairs.discard(pair)

    def take(self, kind: str) -> int | None:
        """After how many bytes the part of a conversation that begins now is to be cut."""
        return self._limits.pop(kind, None)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: Streams, server: Streams) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        #: Whom was told that nothing more comes.
        self._ended: set[asyncio.StreamWriter] = set()
        #: Who spoke last.
        self._last = ""
        self._left: int | None = None

    async def run(self) -> None:
        """Until both sides have ended."""
        ways = [
            asyncio.ensure_future(self._pump("request", self._client[0], self._server[1])),
            asyncio.ensure_future(self._pump("reply", self._server[0], self._client[1])),
        ]
        try:
            await asyncio.gather(*ways)
        except (OSError, asyncio.IncompleteReadError):
            self.reset()
        finally:
            for way in ways:
                way.cancel()
            for _, writer in (self._client, self._server):
                _reset(writer)

    async def _pump(
        self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        proxy = self._proxy
        while data := await reader.read(_CHUNK):
            if self._last != kind:
                self._last = kind
                self._left = proxy.take(kind)
            if self._left is not None and len(data) >= self._left:
                await self._write(writer, data[: self._left])
                await self._flush(writer)
                self.reset()
                return
            if self._left is not None:
                self._left -= len(data)
            if proxy.delay:
                await asyncio.sleep(proxy.delay)
            while proxy.frozen:
                await asyncio.sleep(_LOOK_SECONDS)
            await self._write(writer, data)
        self._end(writer)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        proxy = self._proxy
        if writer in self._ended:
            return
        while proxy.rate and data and writer not in self._ended:
            size = max(1, int(proxy.rate * _LOOK_SECONDS))
            writer.write(data[:size])
            data = data[size:]
            await asyncio.sleep(size / proxy.rate if proxy.rate else 0)
        if writer not in self._ended:
            writer.write(data)
            await writer.drain()

    async def _flush(self, writer: asyncio.StreamWriter) -> None:
        """A reset drops what the kernel still holds: let the other side have it first."""
        await writer.drain()
        transport: Any = writer.transport
        while transport.get_write_buffer_size():
            await asyncio.sleep(0)
        await asyncio.sleep(_LOOK_SECONDS)

    def reset(self) -> None:
        """End both connections without a farewell."""
        self._proxy.breaks.append(monotonic())
        for _, writer in (self._client, self._server):
            _reset(writer)

    def end(self, to_client: bool) -> None:
        """Say to one side that nothing more comes."""
        self._proxy.breaks.append(monotonic())
        self._end((self._client if to_client else self._server)[1])

    def _end(self, writer: asyncio.StreamWriter) -> None:
        if writer not in self._ended and not writer.is_closing():
            self._ended.add(writer)
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
