"""Settings of periodic tasks, and of the state that nodes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chervil.settings.kinds import TEXT, checked, integer, optional, seconds
from chervil.settings.setting import OURS, Setting, group


def _check_schedule(value: Any) -> dict[str, Any]:
    expected = "a dict of entries, name -> {'task': ..., 'schedule': ...}"
    if not isinstance(value, Mapping):
        raise ValueError(expected)
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, Mapping):
            raise ValueError(f"{expected}; {name!r} is {entry!r:.60}")
    return dict(value)


SCHEDULE = checked("dict of entries", "dict[str, Any]", _check_schedule)

BEAT = group(
    "Periodic tasks",
    Setting(
        "beat_schedule",
        SCHEDULE,
        {},
        "The periodic tasks of the app: name -> entry, see the guide. Those "
        "of `app.add_periodic_task` and of `@app.task(schedule=...)` come on top.",
    ),
    Setting(
        "beat_scheduler",
        TEXT,
        "chervil.beat:Scheduler",
        "Class of the scheduler, `module:name`. Celery's `PersistentScheduler` is taken for "
        "this one, which keeps its state in the coordinator.",
        celery="'celery.beat:PersistentScheduler'",
    ),
    Setting(
        "beat_lease",
        seconds(exclusive=True),
        10.0,
        "Seconds without a sign of life after which another `chervil beat` takes over. Of any "
        "number that run, one sends.",
        celery=OURS,
    ),
    Setting(
        "beat_max_loop_interval",
        seconds(),
        0,
        "Most seconds that the scheduler sleeps. 0: it decides. Changes wake it up in any case, "
        "so there is hardly a reason to set it.",
    ),
    Setting(
        "beat_cron_starting_deadline",
        optional(seconds()),
        None,
        "Seconds for which a crontab entry is made up for when its time was missed. None: "
        "without a limit. An entry's own `missed_window` wins.",
    ),
    Setting(
        "beat_history",
        integer(1),
        20,
        "How many of its last runs each entry remembers.",
        celery=OURS,
    ),
)

COORDINATION = group(
    "State that nodes share",
    Setting(
        "coordinator_url",
        optional(TEXT, empty=(None, "")),
        None,
        "Where that state is kept: `redis://...` or `sqlite:///...`. None: in the broker's own "
        "store, or else in that of the results. In the broker's own store a firing and its "
        "message are one step; elsewhere the message follows, and is sent again, with the same "
        "task id, when a beat dies between the two.",
        celery=OURS,
    ),
)
