"""Settings of the broker, the result store and what is written into them."""

from __future__ import annotations

from chervil.settings.kinds import (
    BOOL,
    MODULES,
    OPTIONS,
    TEXT,
    TIMEZONE,
    choice,
    integer,
    optional,
    seconds,
)
from chervil.settings.setting import OURS, Setting, group
from chervil.settings.shapes import CONTENT_TYPES

GENERAL = group(
    "General",
    Setting(
        "imports",
        MODULES,
        (),
        "Modules that a worker imports when it starts, so that their tasks are registered.",
    ),
    Setting(
        "include",
        MODULES,
        (),
        "As `imports`, imported after them. Meant for `Chervil(include=[...])`, so that the "
        "two lists do not overwrite each other.",
    ),
    Setting(
        "timezone",
        optional(TIMEZONE),
        None,
        "Time zone of naive `eta` and `expires` times and of times that are shown. None: UTC, "
        "or the system's zone when `enable_utc` is off.",
    ),
    Setting(
        "enable_utc",
        BOOL,
        True,
        "Write times into messages in UTC. Off: in `timezone`, with its offset.",
    ),
)

BROKER = group(
    "Broker",
    Setting(
        "broker_url",
        TEXT,
        "sqlite:///chervil.db",
        "Where messages are kept until they are done: `sqlite:///relative.db`, "
        "`sqlite:////absolute.db` or `memory://` (one process, for tests). The default is a "
        "file in the working directory, so start worker and clients in the same one.",
        celery="amqp://guest@localhost//",
    ),
    Setting(
        "broker_transport_options",
        OPTIONS,
        {},
        "Options of the broker's driver; see its page. An option in the URL's query wins.",
    ),
    Setting(
        "publish_timeout",
        seconds(exclusive=True),
        5.0,
        "Seconds after which sending a task gives up with `BrokerUnavailable`, all attempts "
        "together. A task whose sending raised was not stored, or its error says which were. "
        "No attempt begins after that, but the last one is not cut short: with SQLite, "
        "`busy_timeout` says how long it may wait.",
        celery=OURS,
    ),
)

CONTENT = group(
    "Content of messages and results",
    Setting(
        "accept_content",
        CONTENT_TYPES,
        ["json"],
        "Serializers, or content types, that a worker reads. A message in another one is "
        "kept in the dead-letter queue and reported. Add `pickle` only when everybody who can "
        "write to the broker may run code here.",
    ),
    Setting(
        "task_serializer",
        TEXT,
        "json",
        "Serializer of arguments when the task or call names none: `json`, `pickle`, `yaml`, "
        "`msgpack` or a registered one. The workers must accept it.",
    ),
    Setting(
        "result_serializer",
        TEXT,
        "json",
        "Serializer of results. The clients must accept it.",
    ),
    Setting(
        "task_compression",
        optional(TEXT),
        None,
        "Compression of message bodies: `gzip` or `zlib`, `bzip2`, `lzma`, `brotli`, `zstd`. "
        "Saves room and costs time; small bodies grow.",
    ),
    Setting(
        "result_compression",
        optional(TEXT),
        None,
        "Compression of stored results; names as for `task_compression`.",
    ),
    Setting(
        "task_max_size",
        integer(0),
        0,
        "Largest message in bytes that may be sent; a larger one raises `MessageTooLarge` in "
        "the client. 0: only the broker's own limit.",
        celery=OURS,
    ),
    Setting(
        "result_max_size",
        integer(0),
        0,
        "Largest result in bytes that is stored; the task of a larger one fails with "
        "`MessageTooLarge`. 0: no limit.",
        celery=OURS,
    ),
    Setting(
        "task_protocol",
        choice(2),
        2,
        "Version of the message format that is sent. Only 2; messages of version 1 are read.",
    ),
)

RESULTS = group(
    "Results",
    Setting(
        "result_backend",
        optional(TEXT),
        None,
        "URL of the result store; `disabled://` stores none. None: the broker's own store, "
        "when its technology can keep results; results and acknowledgements are then written "
        "in one step.",
        celery="None (no results)",
    ),
    Setting(
        "result_backend_transport_options",
        OPTIONS,
        {},
        "Options of the result store's driver; see its page.",
    ),
    Setting(
        "result_expires",
        optional(seconds()),
        86400,
        "Seconds (or a `timedelta`) that a result is kept. None or 0: for ever, and then the "
        "store grows for ever.",
    ),
    Setting(
        "result_persistent",
        BOOL,
        False,
        "`rpc://`: have RabbitMQ write results to its disk, so that those that wait for their "
        "client outlive a restart of the server. Other stores always keep them.",
    ),
    Setting(
        "result_extended",
        BOOL,
        False,
        "Store the task's name, arguments, worker, retries and queue beside the result. Makes "
        "results larger by that.",
    ),
    Setting(
        "task_ignore_result",
        BOOL,
        False,
        "Store no results unless the task or call says otherwise. `get()` of such a result "
        "returns None at once, without waiting for the task.",
    ),
    Setting(
        "task_store_errors_even_if_ignored",
        BOOL,
        False,
        "Store failures even where results are ignored.",
    ),
    Setting(
        "task_track_started",
        BOOL,
        False,
        "Store the state `STARTED` when a task begins. Costs one more write for each task.",
    ),
)
