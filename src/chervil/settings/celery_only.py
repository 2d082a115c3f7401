"""Celery's settings that mean nothing here, or not yet, and its names before 4.0.

A harmless one warns that it has no effect. One that would change what the program
does is refused, unless it is switched off (None, False, empty).
"""

from __future__ import annotations

from chervil.settings.table import SETTINGS


class CeleryOnly:
    """A setting that only Celery has.

    :param why: why it has no effect, or what to write instead.
    :param refused: setting it to something is an error.
    """

    __slots__ = ("refused", "why")

    def __init__(self, why: str, refused: bool = False) -> None:
        self.why = why
        self.refused = refused


def _no_effect(why: str, *names: str) -> dict[str, CeleryOnly]:
    return dict.fromkeys(names, CeleryOnly(why))


def _prefixed(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{name}" for name in names.split())


def _refused(why: str, *names: str) -> dict[str, CeleryOnly]:
    return dict.fromkeys(names, CeleryOnly(why, refused=True))


_NO_DRIVER = "there is no driver yet that reads it"
_NEVER_NEEDED = "Chervil does not need it"

_HARMLESS = {
    **_no_effect(
        "every firing is stored in the step that sends it, in the coordinator, so that beats on "
        "several machines share it",
        *_prefixed("beat", "sync_every schedule_filename"),
    ),
    **_no_effect(
        "ask for entries and their runs with app.schedule or 'chervil schedule'",
        *_prefixed("beat", "enable_remote_control remote_control_max_tick_age"),
    ),
    **_no_effect(
        "mailboxes of remote control end with their owners",
        *_prefixed("control", "queue_ttl queue_expires queue_exclusive queue_durable"),
    ),
    **_no_effect(
        "events are not sent yet",
        "task_send_sent_event",
        "event_exchange",
        "event_serializer",
        *_prefixed("event_queue", "expires ttl prefix exclusive durable"),
    ),
    **_no_effect(
        "messages are not signed yet",
        *_prefixed("security", "certificate cert_store key key_password digest"),
    ),
    **_no_effect(
        "rate limits are not enforced yet",
        "worker_disable_rate_limits",
    ),
    **_no_effect(
        "a lost connection is tried again, with growing delays, until the worker is stopped",
        "broker_connection_retry",
        "broker_connection_retry_on_startup",
        "broker_connection_max_retries",
        "broker_channel_error_retry",
    ),
    **_no_effect(
        "connections are made and watched by the driver",
        "broker_connection_timeout",
        "broker_pool_limit",
        "broker_pool_acquire_timeout",
        "broker_heartbeat",
        "broker_heartbeat_checkrate",
        "result_backend_always_retry",
        "result_backend_max_retries",
        "result_backend_base_sleep_between_retries_ms",
        "result_backend_max_sleep_between_retries_ms",
    ),
    **_no_effect(
        "delayed tasks wait in the broker, not in the worker",
        "worker_eta_task_limit",
        "worker_timer_precision",
    ),
    **_no_effect(
        "what a worker claims ahead is set by worker_prefetch_multiplier alone",
        "worker_disable_prefetch",
        "worker_enable_prefetch_count_reduction",
    ),
    **_no_effect(
        "revoked tasks are remembered by the broker",
        "worker_state_db",
    ),
    **_no_effect(
        "executor processes are replaced within milliseconds, whatever ended them",
        "worker_pool_restarts",
        "worker_proc_alive_timeout",
        "worker_lost_wait",
        "worker_pool_putlocks",
        "worker_pool_start_method",
    ),
    **_no_effect(
        "claims are held by a lease: see worker_lease",
        "worker_cancel_long_running_tasks_on_connection_loss",
    ),
    **_no_effect(
        "a stored SUCCESS is never replaced by another outcome",
        "worker_deduplicate_successful_tasks",
    ),
    **_no_effect(
        "an idle worker holds no tasks that it could wait for: delayed ones are in the broker",
        "worker_enable_soft_shutdown_on_idle",
    ),
    **_no_effect(
        "results are read with result_serializer and no other",
        "result_accept_content",
    ),
    **_no_effect(
        "get() always raises with the text of the worker's traceback as the cause",
        "task_remote_tracebacks",
    ),
    **_no_effect(
        "workers do not scale themselves yet",
        "worker_autoscaler",
    ),
    **_no_effect(
        _NO_DRIVER,
        "broker_login_method",
        "broker_native_delayed_delivery_queue_type",
        "worker_detect_quorum_queues",
        "task_default_queue_type",
        "task_create_missing_queue_type",
        "task_create_missing_queue_exchange_type",
        "result_exchange",
        "result_exchange_type",
        "cache_backend",
        "cache_backend_options",
        "redis_backend_use_ssl",
        "arangodb_backend_settings",
        "couchbase_backend_settings",
        "mongodb_backend_settings",
        *_prefixed(
            "redis",
            "host port db username password max_connections socket_timeout "
            "socket_connect_timeout socket_keepalive retry_on_timeout",
        ),
        *_prefixed(
            "database",
            "engine_options engine_callback short_lived_sessions table_schemas table_names "
            "create_tables_at_setup",
        ),
        *_prefixed(
            "cassandra",
            "servers port keyspace table options bundle_path entry_ttl auth_provider "
            "auth_kwargs read_consistency write_consistency",
        ),
        *_prefixed("s3", "access_key_id secret_access_key bucket base_path endpoint_url region"),
        *_prefixed("gcs", "bucket project base_path ttl"),
        *_prefixed(
            "azureblockblob",
            "container_name base_path connection_timeout read_timeout retry_max_attempts "
            "retry_increment_base retry_initial_backoff_sec",
        ),
        *_prefixed(
            "cosmosdbsql",
            "database_name collection_name consistency_level max_retry_attempts "
            "max_retry_wait_time",
        ),
        *_prefixed("elasticsearch", "timeout max_retries retry_on_timeout save_meta_as_text"),
    ),
    **_no_effect(
        _NEVER_NEEDED,
        "result_cache_max",
        "task_repr_maxlevels",
    ),
    **_no_effect(
        "all results are kept for result_expires",
        "result_failure_expires",
        "result_chord_expires",
    ),
    **_no_effect(
        "chords are joined without looking for results",
        "result_chord_retry_interval",
        "result_chord_join_timeout",
    ),
}

_REFUSED = {
    **_refused(
        "write it into broker_url: scheme://user:password@host:port/vhost",
        *_prefixed("broker", "transport host port user password vhost"),
    ),
    **_refused(
        "there is one broker_url for reading and writing",
        "broker_read_url",
        "broker_write_url",
    ),
    **_refused(
        "several brokers are not supported: broker_url names one", "broker_failover_strategy"
    ),
    **_refused(
        "encryption is chosen by the scheme of broker_url and by broker_transport_options",
        "broker_use_ssl",
    ),
    **_refused("write it as result_backend", "database_url"),
    **_refused(
        "failures and timeouts are set together: task_acks_on_failure_or_timeout",
        "task_acks_on_failure",
        "task_acks_on_timeout",
    ),
    **_refused(
        "use task_reject_on_worker_lost, which is on by default", "task_retry_on_worker_lost"
    ),
    **_refused(
        "queues of single workers are not supported yet; give the worker a queue of its own "
        "with -Q",
        "worker_direct",
    ),
    **_refused(
        "a Chervil worker has no such part to replace",
        "worker_consumer",
        "worker_agent",
        "worker_timer",
    ),
}

#: Celery 5.7's settings that are not in ``SETTINGS``.
CELERY_ONLY: dict[str, CeleryOnly] = _HARMLESS | _REFUSED

# --- names before Celery 4.0 --------------------------------------------------------

#: Those whose new name does not follow from the old one.
_RENAMED = {
    "CELERY_RESULT_DBURI": "result_backend",
    "CELERY_RESULT_ENGINE_OPTIONS": "database_engine_options",
    "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS": "database_short_lived_sessions",
    "CELERY_RESULT_DB_TABLENAMES": "database_table_names",
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERYD_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TIME_LIMIT": "task_time_limit",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERYD_WORKER_LOST_WAIT": "worker_lost_wait",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
}
_OLD_PREFIXES = {
    "CELERYBEAT_": ("beat_",),
    "CELERYD_": ("worker_",),
    "CELERY_": ("", "task_", "worker_"),
    "BROKER_": ("broker_",),
}


def modern_name(name: str) -> str | None:
    """The present name of an upper-case name of Celery's; None when it is not one."""
    if name in _RENAMED:
        return _RENAMED[name]
    for old, prefixes in _OLD_PREFIXES.items():
        if name.startswith(old):
            rest = name.removeprefix(old).lower()
            for prefix in prefixes:
                if prefix + rest in SETTINGS or prefix + rest in CELERY_ONLY:
                    return prefix + rest
    return None
