"""Sending for coroutines, and what happens to it when it is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from chervil.groupcommit import GroupCommit
from chervil.testing.harness import make_message


def test_what_is_sent_while_it_is_closed_is_sent_or_refused() -> None:
    """`close` in one thread, again and again, and sending in another: every future ends."""
    stored: list[str] = []

    def send(messages: Sequence[Any]) -> None:
        stored.extend(message.id for message in messages)

    commit = GroupCommit(send)
    done = threading.Event()

    def closer() -> None:
        while not done.is_set():
            commit.close()

    async def sender() -> list[str]:
        loop = asyncio.get_running_loop()
        sent = []
        for _ in range(2000):
            message = make_message("q")
            await asyncio.wait_for(commit.submit([message], loop), 20)
            sent.append(message.id)
        return sent

    thread = threading.Thread(target=closer)
    thread.start()
    try:
        sent = asyncio.run(sender())
    finally:
        done.set()
        thread.join()
        commit.close()
    assert stored == sent
