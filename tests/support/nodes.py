"""Nodes in threads of the test's own process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chervil import Chervil
from chervil.log import set_process_name, set_task_provider
from chervil.worker.node import Node


@contextmanager
def node_in_thread(app: Chervil, hostname: str) -> Iterator[Node]:
    """A solo node; it has ended when the block has."""
    ready = threading.Event()
    node = Node(app, hostname=hostname, pool="solo", on_ready=ready.set)
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        assert ready.wait(20)
        yield node
    finally:
        node.stop()
        thread.join(20)
        set_process_name("")
        set_task_provider(None)
    assert not thread.is_alive()
