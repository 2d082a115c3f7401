"""An app with periodic tasks, for beats that are killed."""

from __future__ import annotations

import os

from chervil import Chervil

app = Chervil("periodic")
#: Seconds between two due times of each entry.
EVERY = 0.1
ENTRIES = 5


@app.task
def mark(number: int) -> int:
    """Leaves a line in a file, where one is named."""
    path = os.environ.get("PERIODIC_LEDGER")
    if path:
        with open(path, "a") as file:
            request = mark.request
            file.write(f"{request.id} {request.periodic_task_name} {request.periodic_due}\n")
    return number


@app.on_after_configure.connect
def add_entries(sender: Chervil, **_: object) -> None:
    for number in range(ENTRIES):
        sender.add_periodic_task(EVERY, mark.s(number), name=f"entry-{number}", missed="all")
