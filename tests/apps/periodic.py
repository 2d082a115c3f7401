"""An app with periodic tasks, for beats that are killed."""

from __future__ import annotations

import os
import time
from typing import Any

from chervil import Chervil

app = Chervil("periodic")
#: Seconds between two due times of each entry.
EVERY = 0.1
ENTRIES = 5


def note(request: Any) -> None:
    """Leave a line in a file, where one is named."""
    path = os.environ.get("PERIODIC_LEDGER")
    if path:
        with open(path, "a") as file:
            file.write(f"{request.id} {request.periodic_task_name} {request.periodic_due}\n")


@app.task(bind=True)
def mark(self: Any, number: int) -> int:
    """Ends at once."""
    note(self.request)
    return number


@app.task(bind=True)
def hold(self: Any) -> None:
    """Runs until it is ended."""
    note(self.request)
    time.sleep(3600)


@app.on_after_configure.connect
def add_entries(sender: Chervil, **_: object) -> None:
    for number in range(ENTRIES):
        sender.add_periodic_task(EVERY, mark.s(number), name=f"entry-{number}", missed="all")
