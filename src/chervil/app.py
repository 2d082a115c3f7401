"""The application: its settings, its tasks, and its connections."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from chervil import signals
from chervil.builtins import add_builtins
from chervil.calls import note_child
from chervil.canvas.signature import Signature, signature
from chervil.context import (
    current_app,
    current_request,
    set_app_factory,
    set_current_app,
    set_default_app,
)
from chervil.control import Control
from chervil.decorators import TaskDecorator, from_function
from chervil.exceptions import AlwaysEagerIgnored, ImproperlyConfigured
from chervil.messages import embed_of
from chervil.options import check_limits
from chervil.periodic import Periodic
from chervil.registry import TaskRegistry, gen_task_name
from chervil.result import AsyncResult as Result
from chervil.settings import import_object
from chervil.shared import note_finalized, shared_tasks
from chervil.signals import Signal
from chervil.task import Task as BaseTask
from chervil.taskoptions import CHECKS, check_names, checked
from chervil.workflows import Workflows

#: Parts of Celery's app that are not here, and what there is instead.
_NOT_YET = {
    **dict.fromkeys(("Worker", "WorkController", "worker_main", "start"), "; run 'chervil worker'"),
    **dict.fromkeys(
        (
            "amqp",
            "bugreport",
            "connection",
            "connection_for_read",
            "connection_for_write",
            "events",
            "loader",
            "log",
            "pool",
            "producer_pool",
            "steps",
            "user_options",
        ),
        "",
    ),
}

_apps: weakref.WeakSet[Chervil] = weakref.WeakSet()


class Chervil(Periodic, Workflows):
    """An application.

    Nothing has to be configured: messages and results are kept in the SQLite file
    ``chervil.db`` in the working directory, unless arguments, a configuration or the
    environment (``CHERVIL_BROKER_URL``, ``CHERVIL_RESULT_BACKEND``...) say otherwise.

    :param main: name of the module that it is in; begins the names of tasks that are
        defined in a script.
    :param broker: setting ``broker_url``.
    :param backend: setting ``result_backend``.
    :param include: setting ``include``: modules with tasks.
    :param set_as_current: make it the current app.
    :param namespace: prefix of the names in ``config_source``.
    :param config_source: see :meth:`config_from_object`.
    :param task_cls: base class of its tasks, or its dotted name.
    :param strict_typing: check the arguments of calls before they are sent.
    :param autofinalize: False: using the tasks before :meth:`finalize` is an error.
    :param settings: any other settings.
    :raises ImproperlyConfigured: there is no such setting.
    """

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Iterable[str] = (),
        set_as_current: bool = True,
        namespace: str | None = None,
        config_source: Any = None,
        task_cls: type[BaseTask[Any, Any]] | str | None = None,
        strict_typing: bool = True,
        autofinalize: bool = True,
        **settings: Any,
    ) -> None:
        given = {"broker_url": broker, "result_backend": backend, "include": tuple(include) or None}
        settings.update({key: value for key, value in given.items() if value is not None})
        super().__init__(settings, config_source, namespace)
        self.main = main
        self.strict_typing = strict_typing
        self.autofinalize = autofinalize
        self.finalized = False
        #: Sent when the tasks are complete.
        self.on_after_finalize = Signal("app.on_after_finalize")
        self._task_cls = task_cls
        self._tasks = TaskRegistry()
        #: Asks and tells nodes; cancels tasks.
        self.control = Control(self)
        self._discoveries: list[tuple[Any, str | None]] = []
        _apps.add(self)
        if set_as_current:
            self.set_current()
        self.on_init()

    def on_init(self) -> None:
        """Called when the app was made; for subclasses."""

    def set_current(self) -> None:
        """Make it the current app."""
        set_current_app(self)

    def set_default(self) -> None:
        """Make it the app that is current where no other one is."""
        set_default_app(self)

    # --- tasks

    if TYPE_CHECKING:

        @property
        def task(self) -> TaskDecorator:
            """Make a task of a function; a decorator, with or without options."""

    else:

        def task(self, fun=None, **options):
            """Make a task of a function; a decorator, with or without options.

            :param options: ``name`` of the task (made from module and function when not
                given), ``bind=True`` (the function takes the task as its first argument),
                ``base`` (class of the task instead of the app's), ``pydantic=True`` (validate
                arguments and result from annotations), and attributes of
                :class:`~chervil.task.Task`; others are set on the task, too.
            :raises ImproperlyConfigured: an option has a wrong value.
            :raises AlreadyRegistered: another function has this name.
            """
            if fun is None:
                return lambda fun: from_function(self, fun, options)
            return from_function(self, fun, options)

    @property
    def Task(self) -> type[BaseTask[Any, Any]]:
        """Base class of the app's tasks; may be set."""
        if self._task_cls is None:
            return BaseTask
        if isinstance(self._task_cls, str):
            self._task_cls = cast("type[BaseTask[Any, Any]]", import_object(self._task_cls))
        return self._task_cls

    @Task.setter
    def Task(self, cls: type[BaseTask[Any, Any]]) -> None:
        self._task_cls = cls

    def register_task(self, task: Any, **options: Any) -> BaseTask[Any, Any]:
        """Add a class-based task: an instance of a subclass of :class:`Task`, or the class.

        :param options: attributes to set.
        :raises AlreadyRegistered: another one has this name.
        """
        if isinstance(task, type):
            task = task()
        if not isinstance(task, BaseTask):
            raise ImproperlyConfigured(
                f"register_task takes a subclass of Task or an instance of one, not {task!r}; "
                "for functions use @app.task"
            )
        cls = type(task)
        if not task.name:
            task.name = self.gen_task_name(cls.__name__, cls.__module__)
        base = cls.__mro__[1]
        own = vars(cls) if "__wrapped__" in vars(cls) else {}  # of @app.task(...)
        check_names((*own, *options), base if own else cls, task.name)
        for name, value in {**_options_of(cls), **options}.items():
            setattr(task, name, checked(name, value, task.name))
        check_limits(task.soft_time_limit, task.time_limit, f"task {task.name}")
        known = self._tasks.register(task)
        if known is task:
            task.bind(self)
            if self.finalized:
                task.annotate()
        return known

    def gen_task_name(self, name: str, module: str | None) -> str:
        """The name of a task that was not given one; for subclasses."""
        return gen_task_name(self.main, name, module)

    @property
    def tasks(self) -> TaskRegistry:
        """All tasks by name, those of ``shared_task`` included."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._tasks

    def finalize(self, auto: bool = False) -> None:
        """Complete the tasks: add the shared ones and apply ``task_annotations``.

        :param auto: it was not asked for.
        :raises RuntimeError: that, although ``autofinalize`` is off.
        """
        if self.finalized:
            return
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("the app's tasks were used before app.finalize()")
            self.tell_configured()
            for shared in shared_tasks():
                shared.make(self)
            add_builtins(self)
            note_finalized(self)
            self.finalized = True
            for task in self._tasks.values():
                task.annotate()
        self.on_after_finalize.send(sender=self)

    def autodiscover_tasks(
        self,
        packages: Sequence[str] | Callable[[], Sequence[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Import the modules of tasks of some packages when the worker starts.

        :param packages: names of packages, or a function that returns them then.
        :param related_name: the module in each that has its tasks; None: the packages
            themselves. Packages that have none are left out.
        :param force: import them now.
        """
        if packages is None:
            raise ImproperlyConfigured(
                "autodiscover_tasks needs the names of packages, or a function that returns them"
            )
        if force:
            _discover(packages, related_name)
        else:
            self._discoveries.append((packages, related_name))

    def import_default_modules(self) -> None:
        """Import what has the tasks: discovered packages, ``imports`` and ``include``.

        :raises ImportError: a module does not exist.
        """
        for _, response in signals.import_modules.send(sender=self):
            if isinstance(response, BaseException):
                raise response
        discoveries, self._discoveries = self._discoveries, []
        for packages, related_name in discoveries:
            _discover(packages, related_name)
        for module in (*self.conf.imports, *self.conf.include):
            importlib.import_module(module)

    @property
    def current_task(self) -> BaseTask[Any, Any] | None:
        """The task of this app that runs in this thread or coroutine."""
        request = current_request.get()
        if request is None or request.task is None:
            return None
        return self.tasks.get(request.task)

    # --- sending and results

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Result[Any]:
        """Send a task by its name, which need not be known here.

        :param options: those of :meth:`chervil.task.Task.apply_async`.
        :raises ImproperlyConfigured: an option is wrong; nothing was sent.
        :raises BrokerUnavailable: the task was not stored.
        """
        messages = self._named(name, args, kwargs, options)
        bodies = [(args or (), kwargs or {}, embed_of(options))] * len(messages)
        self.publisher.send(messages, options, bodies)
        return self._result_of(messages[0], options)

    async def asend_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Result[Any]:
        """:meth:`send_task` for coroutines."""
        messages = self._named(name, args, kwargs, options)
        await self.publisher.asend(messages)
        return self._result_of(messages[0], options)

    def _named(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> list[Any]:
        if not isinstance(name, str) or not name:
            raise ImproperlyConfigured(f"send_task needs the name of a task, not {name!r}")
        if self.conf.task_always_eager:
            import warnings

            warnings.warn(
                f"task_always_eager has no effect on send_task({name!r})",
                AlwaysEagerIgnored,
                stacklevel=3,
            )
        return self.publisher.build(name, args, kwargs, options)

    def _result_of(self, message: Any, options: Mapping[str, Any]) -> Result[Any]:
        result: Result[Any] = (options.get("result_cls") or Result)(
            message.id, None, message.headers["task"], self
        )
        result._sent_from = message.reply_to
        result.ignored = bool(message.headers["ignore_result"])
        if options.get("add_to_parent") is not False:
            note_child(self, result)
        return result

    def AsyncResult(self, id: str, **kwargs: Any) -> Result[Any]:  # noqa: A002
        """The result of a task, by the task's id."""
        return Result(id, app=self, **kwargs)

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """A signature that this app sends; see :class:`~chervil.canvas.signature.Signature`."""
        kwargs.setdefault("app", self)
        return signature(*args, **kwargs)

    def revoke(self, ids: Iterable[str]) -> None:
        """Make sure that tasks do not start any more.

        The same as :meth:`chervil.control.Control.revoke`.

        :param ids: of the tasks.
        :raises BrokerUnavailable: nothing was stored.
        """
        self.control.revoke(ids)

    # --- Python

    if not TYPE_CHECKING:  # or checkers would take any name

        def __getattr__(self, name):
            """Only called for names that there are not."""
            if name in _NOT_YET:
                raise AttributeError(
                    f"Celery's app.{name} is not in this version of Chervil{_NOT_YET[name]}",
                    name=name,
                    obj=self,
                )
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )

    def _after_fork(self) -> None:
        super()._after_fork()
        for task in self._tasks.values():
            task._plan = None  # it has this process's number and address in it

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.main,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or 'without a name'} at {id(self):#x}>"


def _unpickled(main: str | None) -> Chervil:
    """The app of that name in this process, or the current one."""
    return next((app for app in list(_apps) if main and app.main == main), None) or current_app()


def _options_of(cls: type[BaseTask[Any, Any]]) -> dict[str, Any]:
    """What the classes of a task say about its options."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base is not BaseTask and issubclass(base, BaseTask):
            found.update({name: value for name, value in vars(base).items() if name in CHECKS})
    return found


def _discover(
    packages: Sequence[str] | Callable[[], Sequence[str]], related_name: str | None
) -> None:
    """Import the modules of tasks that the packages have."""
    for package in packages() if callable(packages) else packages:
        if not related_name:
            importlib.import_module(package)
            continue
        name = f"{package}.{related_name}"
        try:
            importlib.import_module(package)
            importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name != name:  # something that the tasks need is missing
                raise


def _default_app() -> Chervil:
    return Chervil("default", set_as_current=False)


set_app_factory(_default_app)
