"""The periodic tasks that an app's code has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chervil.beat.entries import ScheduleEntry
from chervil.beat.state import CODE

if TYPE_CHECKING:
    from chervil.app import Chervil


def in_code(app: Chervil) -> dict[str, ScheduleEntry]:
    """The entries of ``beat_schedule``, ``add_periodic_task`` and ``@app.task(schedule=...)``.

    :raises ImproperlyConfigured: one is wrong; the message names it.
    """
    found: dict[str, ScheduleEntry] = {}
    for name, fields in _fields(app).items():
        entry = ScheduleEntry.from_fields(name, fields, app)
        entry.state.origin = CODE
        found[name] = entry
    return found


def _fields(app: Chervil) -> dict[str, Mapping[str, Any]]:
    conf, tasks = app.conf, app.tasks  # reads the settings, and completes the tasks
    app.tell_configured()
    found: dict[str, Mapping[str, Any]] = {}
    for name, task in tasks.items():
        own = getattr(task, "schedule", None)
        if own is not None:
            fields = own if isinstance(own, Mapping) and "schedule" in own else {"schedule": own}
            found[name] = {"task": name, **fields}
    return {**found, **app.periodic_tasks, **conf.beat_schedule}
