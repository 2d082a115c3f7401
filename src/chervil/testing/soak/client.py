"""A client of a soak test, as a process: sends until it gets SIGTERM, or worse.

``python -m chervil.testing.soak.client <seed> <calls a second> <mix> <sync|async> <name>``
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Any

from chervil.exceptions import OperationalError
from chervil.ids import new_id
from chervil.testing.soak import tasks
from chervil.testing.soak.mix import Call, Mix

#: Calls whose results may be open; more wait for the oldest.
_WINDOW = 150
#: No result takes longer than this, in seconds, unless it is stuck or lost.
_PATIENCE = 60.0
#: How long it waits before it looks whether it is to end.
_LOOK_SECONDS = 1.0


class Client:
    """Sends calls of a mix at a steady rate and looks at the results of some."""

    def __init__(self, seed: int, rate: float, mix: str, name: str) -> None:
        self.random = Random(seed)
        self._name = name
        self._pause = 1 / rate
        self._mix = Mix(mix, self.random)
        self._open: deque[Any] = deque()
        self.stopping = False
        self._next = time.monotonic()
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def prepare(self) -> tuple[Call, tuple[str, ...]]:
        """The next call, written down, and the ids of what follows it."""
        task, args, options = self._mix.next()
        task_id = new_id()
        others: tuple[str, ...] = ()
        if options.pop("link", False):
            follower = new_id()
            others = (follower,)
            options = {**options, "link": tasks.quick.s().set(task_id=follower)}
        tasks.ledger.write("want", task_id, task.name, node=self._name, others=others)
        return (task, args, {**options, "task_id": task_id}), others

    def sent(self, result: Any, others: tuple[str, ...]) -> None:
        """It was sent: from here on it must not be lost."""
        tasks.ledger.write("sent", result.id, others=others)
        self._open.append(result)

    def failed(self, task_id: str, exc: Exception) -> None:
        """It could not be sent, and the caller knows."""
        tasks.ledger.write("failed", task_id, type(exc).__name__)

    def pause(self) -> float:
        """Seconds to wait until the next call is due."""
        self._next = max(self._next + self._pause, time.monotonic() - 1)
        return max(0.0, self._next - time.monotonic())

    def waits(self, result: Any) -> Iterator[float]:
        """How long to wait for a result, again and again, until it is late."""
        end = time.monotonic() + _PATIENCE
        while not self.stopping:
            if time.monotonic() > end:
                tasks.ledger.write("late", result.id)
                return
            yield _LOOK_SECONDS

    def oldest(self) -> Any | None:
        """A result to wait for, when too many are open."""
        return self._open.popleft() if len(self._open) > _WINDOW else None

    # --- the two ways to send

    def run(self) -> None:
        """With ``apply_async`` and ``get``."""
        while not self.stopping:
            (task, args, options), others = self.prepare()
            try:
                self.sent(task.apply_async(args, **options), others)
            except OperationalError as exc:
                self.failed(options["task_id"], exc)
            if (result := self.oldest()) is not None:
                for seconds in self.waits(result):
                    try:
                        result.get(timeout=seconds, propagate=False)
                        break
                    except (TimeoutError, OperationalError):
                        continue
            time.sleep(self.pause())

    async def arun(self) -> None:
        """With their awaitable forms, several at a time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(self._send())

    async def _send(self) -> None:
        while not self.stopping:
            (task, args, options), others = self.prepare()
            try:
                self.sent(await task.aapply_async(args, **options), others)
            except OperationalError as exc:
                self.failed(options["task_id"], exc)
            if (result := self.oldest()) is not None:
                for seconds in self.waits(result):
                    try:
                        await result.aget(timeout=seconds, propagate=False)
                        break
                    except (TimeoutError, OperationalError):
                        continue
            await asyncio.sleep(self.pause() * 8 * self.random.random())


def main(seed: str, rate: str, mix: str, how: str, name: str) -> None:
    client = Client(int(seed), float(rate), mix, name)
    if how == "async":
        asyncio.run(client.arun())
    else:
        client.run()
    tasks.app.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
