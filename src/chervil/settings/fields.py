"""The settings as attributes, for type checkers.

A test compares this list with the table, whose kinds say the same types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import tzinfo


class Fields:
    """One attribute for each setting; see the table for what they mean."""

    # General
    imports: tuple[str, ...]
    include: tuple[str, ...]
    timezone: str | tzinfo | None
    enable_utc: bool

    # Broker
    broker_url: str
    broker_transport_options: dict[str, Any]
    publish_timeout: float

    # Content of messages and results
    accept_content: list[str]
    task_serializer: str
    result_serializer: str
    task_compression: str | None
    result_compression: str | None
    task_max_size: int
    result_max_size: int
    task_protocol: int

    # Results
    result_backend: str | None
    result_backend_transport_options: dict[str, Any]
    result_expires: float | None
    result_persistent: bool
    result_extended: bool
    task_ignore_result: bool
    task_store_errors_even_if_ignored: bool
    task_track_started: bool

    # Execution of tasks
    task_acks_late: bool
    task_reject_on_worker_lost: bool
    task_acks_on_failure_or_timeout: bool
    task_max_deliveries: int
    task_time_limit: float | None
    task_soft_time_limit: float | None
    task_annotations: Any | None
    task_default_rate_limit: str | float | None

    # Running tasks in the caller
    task_allow_error_cb_on_chord_header: bool
    task_always_eager: bool
    task_eager_propagates: bool
    task_store_eager_result: bool

    # Sending
    task_publish_retry: bool
    task_publish_retry_policy: dict[str, Any]
    task_inherit_parent_priority: bool

    # Queues and routing
    task_default_queue: str
    task_queues: list[Any] | dict[str, Any] | None
    task_routes: Any | None
    task_create_missing_queues: bool
    task_default_exchange: str | None
    task_default_exchange_type: str
    task_default_routing_key: str | None
    task_default_delivery_mode: int
    task_default_priority: int | None
    task_queue_max_priority: int | None

    # Workers
    worker_pool: str
    worker_concurrency: int | None
    worker_processes: int | None
    worker_prefetch_multiplier: int
    worker_lease: float
    worker_soft_shutdown_timeout: float
    worker_health_address: str | None
    worker_max_tasks_per_child: int | None
    worker_max_memory_per_child: int | None
    worker_enable_remote_control: bool
    control_exchange: str
    worker_send_task_events: bool

    # Logging of workers
    worker_hijack_root_logger: bool
    worker_log_color: bool | None
    worker_log_format: str
    worker_task_log_format: str
    worker_log_datefmt: str | None
    worker_task_log_datefmt: str | None
    worker_redirect_stdouts: bool
    worker_redirect_stdouts_level: str

    # Periodic tasks
    beat_schedule: dict[str, Any]
    beat_scheduler: str
    beat_lease: float
    beat_max_loop_interval: float
    beat_cron_starting_deadline: float | None
    beat_history: int

    # State that nodes share
    coordinator_url: str | None
