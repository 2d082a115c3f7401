"""Signals: functions that are called when something happens to a task or a node.

The names, arguments and meaning are Celery's. A handler should take
``**kwargs``, for arguments may be added::

    from chervil.signals import task_failure

    @task_failure.connect(sender="hello.add")
    def tell(sender=None, task_id=None, exception=None, **kwargs):
        ...

An exception in a handler is logged and never reaches the sender. Where speed
matters, senders look at ``signal.receivers`` first, which is empty while nobody
listens.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])

_NO_SENDER: Hashable = None


def _identity(target: Any) -> Hashable:
    """What makes two senders or receivers the same one.

    Strings compare by value. Tasks compare by name, so that a handler can be
    connected with the task or with its name, for every task signal alike.
    """
    if target is None:
        return _NO_SENDER
    if isinstance(target, str):
        return target
    known = getattr(target, "__signal_id__", None)
    if known is not None:
        return known  # type: ignore[no-any-return]
    if hasattr(target, "__func__"):
        return (id(target.__self__), id(target.__func__))
    return id(target)


class Signal:
    """Calls what is connected to it.

    :param name: for logs and ``repr``.
    :param providing_args: names of the arguments, for documentation.
    """

    __slots__ = ("_lock", "name", "providing_args", "receivers")

    def __init__(
        self, name: str | None = None, providing_args: tuple[str, ...] | list[str] = ()
    ) -> None:
        self.name = name
        self.providing_args = frozenset(providing_args)
        #: What is connected: ((receiver id, sender id), a call that gives the receiver
        #: or None). Replaced, never changed, so that a send can walk over it.
        self.receivers: tuple[tuple[tuple[Hashable, Hashable], Callable[[], Any]], ...] = ()
        self._lock = threading.Lock()

    @overload
    def connect(
        self,
        fun: None = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Hashable | None = None,
    ) -> Callable[[F], F]: ...

    @overload
    def connect(
        self,
        fun: F,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Hashable | None = None,
    ) -> F: ...

    def connect(
        self,
        fun: F | None = None,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Hashable | None = None,
    ) -> F | Callable[[F], F]:
        """Have a function called; also usable as a decorator, with or without arguments.

        :param fun: called with ``signal=``, ``sender=`` and the signal's arguments.
        :param sender: only for this sender: a task, a task name, an app.
        :param weak: do not keep the function alive (the default, as in Celery).
        :param dispatch_uid: connecting again under this id changes nothing.
        """
        if fun is None:

            def connect(fun: F) -> F:
                self._connect(fun, sender, weak, dispatch_uid)
                return fun

            return connect
        self._connect(fun, sender, weak, dispatch_uid)
        return fun

    def _connect(
        self, fun: Callable[..., Any], sender: Any, weak: bool, uid: Hashable | None
    ) -> None:
        if not callable(fun):
            raise TypeError(f"{self!r}: a receiver must be callable, not {fun!r}")
        key = (_identity(fun) if uid is None else uid, _identity(sender))
        ref: Callable[[], Any]
        if not weak:

            def ref() -> Any:
                return fun

        elif hasattr(fun, "__func__") and hasattr(fun, "__self__"):
            ref = weakref.WeakMethod(fun, self._forget)
        else:
            ref = weakref.ref(fun, self._forget)
        with self._lock:
            if all(key != known for known, _ in self.receivers):
                self.receivers = (*self.receivers, (key, ref))

    def _forget(self, dead: Any) -> None:
        # Runs when a receiver is collected, perhaps inside this very class, so it
        # must not wait for the lock. A lost race leaves a dead entry: harmless.
        self.receivers = tuple(entry for entry in self.receivers if entry[1] is not dead)

    def disconnect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: Any = None,
        weak: bool | None = None,
        dispatch_uid: Hashable | None = None,
    ) -> bool:
        """Undo a ``connect`` with the same function (or id) and sender.

        :returns: whether it was connected.
        """
        key = (
            _identity(receiver) if dispatch_uid is None else dispatch_uid,
            _identity(sender),
        )
        with self._lock:
            left = tuple(entry for entry in self.receivers if entry[0] != key)
            found = len(left) != len(self.receivers)
            self.receivers = left
        return found

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether a ``send`` by this sender would call anything."""
        return bool(self._live(sender))

    def _live(self, sender: Any) -> list[Callable[..., Any]]:
        wanted = _identity(sender)
        found = []
        for (_, for_sender), ref in self.receivers:
            if for_sender is _NO_SENDER or for_sender == wanted:
                receiver = ref()
                if receiver is not None:
                    found.append(receiver)
        return found

    def send(self, sender: Any, **named: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call everything that is connected for this sender.

        :returns: pairs of the receiver and what it returned or the exception it raised.
        """
        if not self.receivers:
            return []
        responses: list[tuple[Callable[..., Any], Any]] = []
        for receiver in self._live(sender):
            try:
                response = receiver(signal=self, sender=sender, **named)
            except Exception as exc:
                import logging

                logging.getLogger("chervil.signals").exception(
                    "Signal handler %r of %s raised: %r", receiver, self.name, exc
                )
                response = exc
            responses.append((receiver, response))
        return responses

    #: ``send`` never raises what a handler raised, so both are the same.
    send_robust = send

    def __repr__(self) -> str:
        return f"<Signal: {self.name}>"


def _signal(name: str, *args: str) -> Signal:
    return Signal(name, args)


# --- sending, by the client; sender: the task's name
before_task_publish = _signal(
    "before_task_publish",
    "body",
    "exchange",
    "routing_key",
    "headers",
    "properties",
    "declare",
    "retry_policy",
)
after_task_publish = _signal("after_task_publish", "body", "exchange", "routing_key", "headers")
#: Celery's old name; never sent, kept so that imports work.
task_sent = _signal("task_sent", "task_id", "task", "args", "kwargs", "eta", "taskset")

# --- a task on a node; sender: the task, or what received it
task_received = _signal("task_received", "request")
task_prerun = _signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = _signal("task_postrun", "task_id", "task", "args", "kwargs", "retval", "state")
task_success = _signal("task_success", "result")
task_retry = _signal("task_retry", "request", "reason", "einfo")
task_failure = _signal(
    "task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo"
)
task_internal_error = _signal(
    "task_internal_error", "task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"
)
task_revoked = _signal("task_revoked", "request", "terminated", "signum", "expired")
task_rejected = _signal("task_rejected", "message", "exc")
task_unknown = _signal("task_unknown", "message", "exc", "name", "id")
#: Not in Celery: a message is in the dead-letter queue now.
task_dead_lettered = _signal(
    "task_dead_lettered", "task_id", "name", "queue", "reason", "detail", "deliveries"
)

# --- a node
celeryd_init = _signal("celeryd_init", "instance", "conf", "options")
celeryd_after_setup = _signal("celeryd_after_setup", "instance", "conf")
import_modules = _signal("import_modules")
worker_init = _signal("worker_init")
worker_before_create_process = _signal("worker_before_create_process")
worker_process_init = _signal("worker_process_init")
worker_process_shutdown = _signal("worker_process_shutdown", "pid", "exitcode")
worker_ready = _signal("worker_ready")
worker_shutdown = _signal("worker_shutdown")
worker_shutting_down = _signal("worker_shutting_down", "sig", "how", "exitcode")
heartbeat_sent = _signal("heartbeat_sent")

# --- logging; a receiver of setup_logging takes it over
setup_logging = _signal("setup_logging", "loglevel", "logfile", "format", "colorize")
after_setup_logger = _signal(
    "after_setup_logger", "logger", "loglevel", "logfile", "format", "colorize"
)
after_setup_task_logger = _signal(
    "after_setup_task_logger", "logger", "loglevel", "logfile", "format", "colorize"
)

# --- the scheduler, green threads, the command line
beat_init = _signal("beat_init")
beat_embedded_init = _signal("beat_embedded_init")
eventlet_pool_started = _signal("eventlet_pool_started")
eventlet_pool_preshutdown = _signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = _signal("eventlet_pool_postshutdown")
eventlet_pool_apply = _signal("eventlet_pool_apply", "target", "args", "kwargs")
user_preload_options = _signal("user_preload_options", "app", "options")
