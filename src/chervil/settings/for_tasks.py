"""Settings of tasks: how they run, end and are routed."""

from __future__ import annotations

from chervil.settings.kinds import (
    BOOL,
    RATE,
    TEXT,
    choice,
    integer,
    optional,
    seconds,
)
from chervil.settings.setting import OURS, Setting, group
from chervil.settings.shapes import ANNOTATIONS, POLICY, QUEUES, RETRY_POLICY, ROUTES

EXECUTION = group(
    "Execution of tasks",
    Setting(
        "task_acks_late",
        BOOL,
        True,
        "Take a message off its queue when the task has ended, so that a task whose worker "
        "dies is run again by another one; then it may have run twice, in part. Off: before "
        "it begins, so that it runs at most once and is lost with its worker. On by default "
        "because a lost task cannot be repaired, while a repeated one can be made harmless.",
        celery="False",
    ),
    Setting(
        "task_reject_on_worker_lost",
        BOOL,
        True,
        "Run a task again whose process was killed (out of memory, `kill -9`). Off: it fails "
        "with `WorkerLostError`. `task_max_deliveries` ends the circle of a task that kills "
        "its process every time.",
        celery="None (False)",
    ),
    Setting(
        "task_acks_on_failure_or_timeout",
        BOOL,
        True,
        "Take the message of a failed task off its queue as well. Off: it goes to the "
        "dead-letter queue, with the traceback.",
    ),
    Setting(
        "task_max_deliveries",
        integer(1),
        5,
        "How often a message is given to workers without coming to an end. After that it "
        "goes to the dead-letter queue with the reason. Retries that a task asks for do not "
        "count.",
        celery=OURS,
    ),
    Setting(
        "task_time_limit",
        optional(seconds(), empty=(None, 0)),
        None,
        "Seconds after which a running task is ended from outside and fails with "
        "`TimeLimitExceeded`. None: no limit.",
    ),
    Setting(
        "task_soft_time_limit",
        optional(seconds(), empty=(None, 0)),
        None,
        "Seconds after which `SoftTimeLimitExceeded` is raised inside the task, which can "
        "clean up. Must be less than `task_time_limit`. None: no limit.",
    ),
    Setting(
        "task_annotations",
        optional(ANNOTATIONS),
        None,
        "Attributes to set on tasks: `{'tasks.add': {'time_limit': 5}}`; `'*'` is every task. "
        "Or a list of such dicts and of objects whose `annotate(task)` returns one.",
    ),
    Setting(
        "task_default_rate_limit",
        optional(RATE),
        None,
        "Rate limit of tasks that have none: `'10/s'`, `'100/m'`, `'5/h'`. Accepted, not "
        "enforced yet.",
    ),
)

WORKFLOWS = group(
    "Workflows",
    Setting(
        "task_allow_error_cb_on_chord_header",
        BOOL,
        False,
        "`link_error()` of a chord links to the tasks of its header, too, and not only to its "
        "body.",
    ),
)

EAGER = group(
    "Running tasks in the caller",
    Setting(
        "task_always_eager",
        BOOL,
        False,
        "`delay()` and `apply_async()` run the task at once in the calling process instead of "
        "sending it. For tests; `send_task()` is not affected.",
    ),
    Setting(
        "task_eager_propagates",
        BOOL,
        False,
        "Eager tasks raise their exceptions in the caller at once.",
    ),
    Setting(
        "task_store_eager_result",
        BOOL,
        False,
        "Store the results of eager tasks, too.",
    ),
)

SENDING = group(
    "Sending",
    Setting(
        "task_publish_retry",
        BOOL,
        True,
        "Try again when a task could not be sent because the broker was out of reach.",
    ),
    Setting(
        "task_publish_retry_policy",
        POLICY,
        RETRY_POLICY,
        "How: `max_retries` (None: until `publish_timeout`), and in seconds `interval_start` "
        "before the first retry, `interval_step` more for each, at most `interval_max`. Keys "
        "that are left out keep their defaults.",
    ),
    Setting(
        "task_inherit_parent_priority",
        BOOL,
        False,
        "Tasks that a task sends get its priority unless they have one.",
    ),
)

ROUTING = group(
    "Queues and routing",
    Setting(
        "task_default_queue",
        TEXT,
        "celery",
        "Queue of tasks that no route, task or call sends elsewhere, and the one that a "
        "worker serves when `task_queues` is empty and no `-Q` was given.",
    ),
    Setting(
        "task_queues",
        optional(QUEUES),
        None,
        "The queues there are: a list of `Queue` objects or names, or a dict from name to "
        "options. A worker without `-Q` serves all of them, and only them: list "
        "`task_default_queue` here as well when tasks go there.",
    ),
    Setting(
        "task_routes",
        optional(ROUTES),
        None,
        "Where tasks go: a dict from name, glob (`'feeds.*'`) or compiled regular expression "
        "to a queue name or a dict of options; a list of (pattern, route) pairs; a function "
        "`(name, args, kwargs, options, task=None, **kw)` or its dotted name; or a list of "
        "these, asked in order.",
    ),
    Setting(
        "task_create_missing_queues",
        BOOL,
        True,
        "Use queue names that `task_queues` does not list. Off: they raise `QueueNotFound`, "
        "which finds misspelt names.",
    ),
    Setting(
        "task_default_exchange",
        optional(TEXT),
        None,
        "Exchange of queues that name none. None: called as `task_default_queue`.",
    ),
    Setting(
        "task_default_exchange_type",
        choice("direct", "topic", "fanout"),
        "direct",
        "Type of that exchange.",
    ),
    Setting(
        "task_default_routing_key",
        optional(TEXT),
        None,
        "Routing key of queues and messages that have none. None: `task_default_queue`.",
    ),
    Setting(
        "task_default_delivery_mode",
        choice(1, 2, aliases={"transient": 1, "persistent": 2, "1": 1, "2": 2}),
        2,
        "2 (`'persistent'`) or 1 (`'transient'`): whether the broker has to keep messages "
        "over its own restart, where that is a choice (RabbitMQ). SQLite keeps all.",
    ),
    Setting(
        "task_default_priority",
        optional(integer(0)),
        None,
        "Priority of messages that have none; larger is sooner. None: 0.",
    ),
    Setting(
        "task_queue_max_priority",
        optional(integer(1)),
        None,
        "Highest priority of queues that do not say one themselves, for brokers that must be "
        "told (RabbitMQ).",
    ),
)
