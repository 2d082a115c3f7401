"""What runs right now: the request of the running task, and the current app.

A task's *request* is the map of its message's headers plus what the node knows
about this run, under Celery's names. It is found through a context variable, so
that threads and coroutines each see their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.result import AsyncResult
    from chervil.task import Task


class Context:
    """The request of one run of a task (``self.request``).

    ``vars(request)`` holds what came with the message; everything that is
    missing there reads as the default below.
    """

    # Slots, so that they are not part of vars(request), which users dump and log.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_children",
        "_source",
        "aftermath",
        "deliveries",
        "outer",
        "reporter",
    )

    if TYPE_CHECKING:
        #: What makes this request, while nobody has looked at it; see :class:`Unread`.
        _source: Callable[[], Context] | None
        #: Called as (task id, state, meta) by ``update_state``; set by the worker.
        reporter: Callable[[str, str, Any], None] | None
        #: How often this message was claimed, this time included.
        deliveries: int
        #: The request during which this one began, for direct and eager calls.
        outer: Context | None
        #: What the task itself wants stored with its end (see ``canvas.continuation``).
        aftermath: Any

    lang: str | None = None
    task: str | None = None
    id: str | None = None
    shadow: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int = 0
    timelimit: Any = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    ignore_result: bool | None = False
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    hostname: str | None = None
    delivery_info: Any = None
    args: Any = None
    kwargs: Any = None
    is_eager: bool = False
    callbacks: Any = None
    errbacks: Any = None
    chain: Any = None
    chord: Any = None
    #: Called as a function, not through a message or ``apply``.
    called_directly: bool = True
    #: What ``apply_async(headers=...)`` added to the message, or None.
    headers: dict[str, Any] | None = None
    #: Celery's old name of ``group``.
    taskset: str | None = None
    utc: bool | None = None
    logfile: str | None = None
    loglevel: int | None = None
    _protected: int = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.reporter = None
        self.deliveries = 1
        self.outer = None
        self.aftermath = None
        self._children: list[AsyncResult[Any]] | None = None
        fields = self.__dict__
        fields.update(*args, **kwargs)
        if fields and "headers" not in fields:
            fields["headers"] = custom_headers(fields)

    @classmethod
    def for_message(
        cls,
        headers: Mapping[str, Any],
        properties: dict[str, Any],
        args: Any,
        kwargs: Any,
        embed: Mapping[str, Any],
        hostname: str,
        delivery_info: dict[str, Any],
    ) -> Context:
        """The request of a message that a worker is about to run."""
        self = cls.__new__(cls)
        self.reporter = None
        self.deliveries = 1
        self.outer = None
        self.aftermath = None
        self._children = None
        fields = self.__dict__
        fields.update(headers)
        fields["properties"] = properties
        fields["reply_to"] = properties.get("reply_to")
        fields["correlation_id"] = properties.get("correlation_id")
        fields["hostname"] = hostname
        fields["delivery_info"] = delivery_info
        fields["args"] = args
        fields["kwargs"] = kwargs
        fields["is_eager"] = False
        fields["callbacks"] = embed.get("callbacks")
        fields["errbacks"] = embed.get("errbacks")
        fields["chain"] = embed.get("chain")
        fields["chord"] = embed.get("chord")
        fields["called_directly"] = False
        limits = headers.get("timelimit")
        fields["time_limit"], fields["soft_time_limit"] = limits or (None, None)
        fields["headers"] = custom_headers(headers)
        fields["_protected"] = 1
        return self

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """What this run has sent."""
        if self._children is None:
            self._children = []
        return self._children

    @property
    def follows(self) -> bool:
        """Whether something may have to be sent when this run has ended."""
        fields = self.__dict__
        return bool(
            fields.get("callbacks")
            or fields.get("errbacks")
            or fields.get("chain")
            or fields.get("chord")
        )

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set fields, as ``dict.update``."""
        self.__dict__.update(*args, **kwargs)

    def clear(self) -> None:
        """Forget all fields."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """A field, or a default."""
        return getattr(self, key, default)

    def as_execution_options(self) -> dict[str, Any]:
        """The options of ``apply_async`` that would send this request again."""
        hard, soft = self.timelimit or (None, None)
        options = {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            "chain": self.chain,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": soft,
            "time_limit": hard,
            "headers": self.headers,
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
        }
        if self.stamped_headers is not None and self.stamps is not None:
            options["stamped_headers"] = self.stamped_headers
            options.update(self.stamps)
        return options

    def __repr__(self) -> str:
        return f"<Context: {vars(self)!r}>"


class Unread(Context):
    """The request of a task that has not looked at it.

    Most tasks never do, and to read all the headers of a message takes longer than
    the rest of what an executor does for it. The first look at anything of it reads
    them and makes it a :class:`Context` like others.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        _read(self)
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _read(self)
        setattr(self, name, value)

    def __delattr__(self, name: str) -> None:
        _read(self)
        delattr(self, name)


_set = object.__setattr__
_new = object.__new__
_reading = threading.Lock()
# The slot's own descriptor, which asks no __getattribute__.
_source_of: Callable[[Context], Callable[[], Context]] = vars(Context)["_source"].__get__
_set_source: Callable[[Context, Callable[[], Context] | None], None]
_set_source = vars(Context)["_source"].__set__


def unread(source: Callable[[], Context]) -> Context:
    """A request that is made when somebody looks at it.

    :param source: makes it; whatever it raises, the look raises.
    """
    request = _new(Unread)
    _set_source(request, source)
    return request


def _read(request: Unread) -> None:
    with _reading:  # threads of one task may look at the same time
        if type(request) is not Unread:
            return
        whole = _source_of(request)()
        for name in ("__dict__", "_children", "aftermath", "deliveries", "outer", "reporter"):
            _set(request, name, getattr(whole, name))
        _set_source(request, None)
        _set(request, "__class__", Context)


_KNOWN = frozenset(name for name in vars(Context) if not name.startswith("__")) | {"compression"}


def custom_headers(headers: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is in a message's headers besides the protocol's own; None when nothing is."""
    if _KNOWN.issuperset(headers):
        return None
    return {key: value for key, value in headers.items() if key not in _KNOWN}


#: The request of the task that runs in this thread or coroutine.
current_request: ContextVar[Context | None] = ContextVar("chervil_request", default=None)

# --- the current app -------------------------------------------------------------------

_local = threading.local()
_lock = threading.Lock()
_default_app: Chervil | None = None
_make_app: Callable[[], Chervil] | None = None


def set_app_factory(factory: Callable[[], Chervil]) -> None:
    """Say how the app is made that is current when nobody made one."""
    global _make_app
    _make_app = factory


def set_current_app(app: Chervil | None) -> None:
    """Make an app the current one of this thread.

    In the main thread it becomes the current one of all threads that have not
    set their own, so that a web server's threads find the app that was imported.
    """
    _local.app = app
    global _default_app
    if _default_app is None or threading.current_thread() is threading.main_thread():
        _default_app = app


def set_default_app(app: Chervil | None) -> None:
    """Make an app the one that is current in threads that have not set their own."""
    global _default_app
    _default_app = app


def current_app() -> Chervil:
    """The app of this thread; otherwise the default app, made when there is none.

    :raises RuntimeError: there is none and ``chervil.app`` was never imported.
    """
    app: Chervil | None = getattr(_local, "app", None) or _default_app
    if app is not None:
        return app
    if _make_app is None:
        raise RuntimeError("no app was made yet: app = chervil.Chervil('name')")
    with _lock:
        if _default_app is None:
            set_default_app(_make_app())
        assert _default_app is not None
        return _default_app


def running_task() -> tuple[str, str] | None:
    """Name and id of the task that runs in this thread or coroutine, for log lines."""
    request = current_request.get()
    if request is None or request.task is None:
        return None
    return request.task, request.id or ""


def current_task() -> Task[Any, Any] | None:
    """The task that runs in this thread or coroutine."""
    request = current_request.get()
    if request is None or request.task is None:
        return None
    return current_app().tasks.get(request.task)


def push_request(*args: Any, **kwargs: Any) -> Context:
    """Make a new request the current one, until :func:`pop_request`."""
    request = Context(*args, **kwargs)
    request.outer = current_request.get()
    current_request.set(request)
    return request


def pop_request() -> Context | None:
    """End the request of the last :func:`push_request`; what it was."""
    request = current_request.get()
    current_request.set(request.outer if request is not None else None)
    return request
