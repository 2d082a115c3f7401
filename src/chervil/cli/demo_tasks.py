"""The app of ``chervil demo``.

An app like any other: its broker and its results come from
``CHERVIL_BROKER_URL`` and ``CHERVIL_RESULT_BACKEND``.
"""

from __future__ import annotations

import re
from collections import Counter

from chervil import Chervil

app = Chervil("demo")

_WORD = re.compile(r"[A-Za-z]{3,}")


@app.task
def count_words(path: str) -> dict[str, int]:
    """How often each word of at least three letters is in a text file.

    :param path: the file; bytes that are not UTF-8 are replaced.
    :raises OSError: it cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        return dict(Counter(word.lower() for word in _WORD.findall(file.read())))


@app.task
def nothing() -> None:
    """Does nothing, so that only the queue's own work is measured."""
