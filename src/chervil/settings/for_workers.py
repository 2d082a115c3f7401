"""Settings of worker nodes."""

from __future__ import annotations

from chervil.settings.kinds import BOOL, TEXT, choice, integer, optional, seconds
from chervil.settings.setting import OURS, Setting, group

LOG_FORMAT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
TASK_LOG_FORMAT = (
    "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

WORKER = group(
    "Workers",
    Setting(
        "worker_pool",
        choice(
            "prefork",
            "threads",
            "asyncio",
            "solo",
            aliases={"processes": "prefork"},
        ),
        "prefork",
        "How tasks run: `prefork` (a process for each), `threads`, `asyncio` (many coroutines "
        "on one loop) or `solo` (in the node itself, one at a time, for debugging).",
    ),
    Setting(
        "worker_concurrency",
        optional(integer(1), empty=(None, 0, "auto")),
        None,
        "How many tasks run at the same time. None: as many as there are CPUs with `prefork`, "
        "10 with `threads`, 100 with `asyncio`; `solo` always runs one.",
    ),
    Setting(
        "worker_processes",
        optional(integer(1), empty=(None, 0)),
        None,
        "Over how many executor processes the slots of a pool other than `prefork` and `solo` "
        "are spread. None: one.",
        celery=OURS,
    ),
    Setting(
        "worker_prefetch_multiplier",
        integer(0),
        0,
        "How many tasks a worker claims ahead, for each slot. 0: automatic, by the run times "
        "it measures, so that only some milliseconds of work wait in the worker; long tasks "
        "are never held back from an idle worker and short ones never wait for the broker. A "
        "number fixes it: 1 claims as many as there are slots.",
        celery="4",
    ),
    Setting(
        "worker_lease",
        seconds(exclusive=True),
        10.0,
        "Seconds without a sign of life after which a worker counts as dead and others take "
        "its tasks. One lease covers all its tasks, whatever they take. Shorter: sooner back; "
        "too short: a busy machine loses its claims and tasks run twice.",
        celery=OURS,
    ),
    Setting(
        "worker_soft_shutdown_timeout",
        seconds(),
        0.0,
        "Seconds that running tasks get to end when the worker is told to stop; then they are "
        "given back, and run again elsewhere. 0: as long as they take after SIGTERM or the first "
        "Ctrl-C, and no time at all after SIGQUIT or the second.",
    ),
    Setting(
        "worker_health_address",
        optional(TEXT),
        None,
        "`host:port` on which the worker answers `GET /live` and `GET /ready` with status 200 or "
        "503, for probes. None: only `chervil health` on the same machine can ask.",
        celery=OURS,
    ),
    Setting(
        "worker_max_tasks_per_child",
        optional(integer(1), empty=(None, 0)),
        None,
        "Replace an executor process after so many tasks; helps against leaks. None: never.",
    ),
    Setting(
        "worker_max_memory_per_child",
        optional(integer(1), empty=(None, 0)),
        None,
        "Replace an executor process, after its current task, when it holds more than so "
        "many KiB of memory. None: never.",
    ),
    Setting(
        "worker_enable_remote_control",
        BOOL,
        True,
        "Listen to remote control (`chervil inspect` and `control`, `celery inspect` and "
        "`control`, Flower) where the broker can carry it.",
    ),
    Setting(
        "control_exchange",
        TEXT,
        "celery",
        "Name of the exchange of remote control; nodes and clients must agree on it.",
    ),
    Setting(
        "worker_send_task_events",
        BOOL,
        False,
        "Send events about tasks for monitoring (`-E`). Accepted; events are not sent yet.",
    ),
)

LOGGING = group(
    "Logging of workers",
    Setting(
        "worker_hijack_root_logger",
        BOOL,
        True,
        "Take the root logger over: remove its handlers and log everything as the worker "
        "says. Off: only the loggers `chervil` and those of `get_task_logger` are set up, and "
        "handlers that the application installed stay.",
    ),
    Setting(
        "worker_log_color",
        optional(BOOL),
        None,
        "Colour log lines. None: when they go to a terminal and `NO_COLOR` is not set.",
    ),
    Setting(
        "worker_log_format",
        TEXT,
        LOG_FORMAT,
        "Format of log lines, as in Python's `logging`, with `%` style.",
    ),
    Setting(
        "worker_task_log_format",
        TEXT,
        TASK_LOG_FORMAT,
        "Format of log lines that are written while a task runs; knows `%(task_name)s` and "
        "`%(task_id)s`, too.",
    ),
    Setting(
        "worker_log_datefmt",
        optional(TEXT),
        None,
        "Format of `%(asctime)s` as for `time.strftime`. None: `2030-12-31 23:59:59,999`.",
    ),
    Setting(
        "worker_task_log_datefmt",
        optional(TEXT),
        None,
        "The same for lines that are written while a task runs. None: as `worker_log_datefmt`.",
    ),
    Setting(
        "worker_redirect_stdouts",
        BOOL,
        True,
        "Log what tasks write to standard output and standard error (`print`).",
    ),
    Setting(
        "worker_redirect_stdouts_level",
        choice(*LEVELS, aliases={level.lower(): level for level in LEVELS} | {"WARN": "WARNING"}),
        "WARNING",
        "Level at which it is logged.",
    ),
)
