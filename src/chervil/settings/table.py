"""The table of all settings; the documentation is made from it."""

from __future__ import annotations

from chervil.settings import for_beat, for_messages, for_tasks, for_workers
from chervil.settings.setting import Setting

#: Every setting by name, in the order of the documentation.
SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for section in (
        for_messages.GENERAL,
        for_messages.BROKER,
        for_messages.CONTENT,
        for_messages.RESULTS,
        for_tasks.EXECUTION,
        for_tasks.WORKFLOWS,
        for_tasks.EAGER,
        for_tasks.SENDING,
        for_tasks.ROUTING,
        for_workers.WORKER,
        for_workers.LOGGING,
        for_beat.BEAT,
        for_beat.COORDINATION,
    )
    for setting in section
}
