"""Runs the Python blocks of one page of the documentation, in their order.

    python examples/run_blocks.py docs/guide/tasks.md

All blocks of a page share one namespace. For each app that a block makes, a node
runs in a thread of this process from the end of that block on, so that later
blocks can wait for results. A block after the comment ``<!-- not run: why -->``
is only compiled.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

EXAMPLES = Path(__file__).resolve().parent
_BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^>]+ -->\n+)?"
    r"^(?P<indent> *)```(?:python| \{\.python\})\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_SNIPPET = re.compile(r'^--8<-- "([^":]+)(?::[^"]*)?"$', re.MULTILINE)


def blocks(text: str) -> Iterator[tuple[int, str, bool]]:
    """Line number, code and whether it is to be run, of each block."""
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        width = len(match["indent"])
        code = "\n".join(row[width:] for row in match["code"].split("\n"))
        code = _SNIPPET.sub(lambda found: (EXAMPLES / found[1]).read_text(), code)
        yield line, code, match["skip"] is None


class Nodes:
    """One node at a time, for the app that was made last."""

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self._node: Any = None
        self._thread: threading.Thread | None = None

    def serve(self, namespace: dict[str, Any]) -> None:
        from chervil import Chervil

        for value in list(namespace.values()):
            if isinstance(value, Chervil) and not any(value is known for known in self._seen):
                self._seen.append(value)
                self._start(value)

    def _start(self, app: Any) -> None:
        from chervil.worker.node import Node

        self.stop()
        ready = threading.Event()
        self._node = Node(app, pool="solo", on_ready=ready.set)
        self._thread = threading.Thread(target=self._node.run)
        self._thread.start()
        if not ready.wait(10):
            raise TimeoutError("the node is not ready")

    def stop(self) -> None:
        if self._thread is not None:
            self._node.stop()
            self._thread.join(10)
            self._thread = None

    def close(self) -> None:
        self.stop()
        for app in self._seen:
            app.close()


def run(page: Path) -> None:
    # A module of its own, so that "if __name__ ==" is false and "docs:Name" can be imported.
    module = sys.modules["docs"] = ModuleType("docs")
    namespace = vars(module)
    nodes = Nodes()
    try:
        for line, code, wanted in blocks(page.read_text()):
            compiled = compile("\n" * line + code, str(page), "exec")
            if wanted:
                exec(compiled, namespace)
                nodes.serve(namespace)
    finally:
        nodes.close()


if __name__ == "__main__":
    os.environ.setdefault("CHERVIL_BROKER_URL", "memory://docs")
    warnings.simplefilter("error")
    run(Path(sys.argv[1]).resolve())
