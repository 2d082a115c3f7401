"""The part of an app that has to do with periodic tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chervil.canvas.signature import Signature
from chervil.connections import Connected
from chervil.exceptions import ImproperlyConfigured
from chervil.settings import import_object

if TYPE_CHECKING:
    from chervil.beat import Service
    from chervil.beat.book import Book

#: What ``add_periodic_task`` takes for the entry; anything else is an option of the call.
_OF_ENTRY = frozenset(
    {
        "relative", "start", "end", "jitter", "exclude", "tz",
        "missed", "missed_window", "overlap", "paused",
    }
)  # fmt: skip


class Periodic(Connected):
    """Adding periodic tasks, and looking at them."""

    def __init__(
        self, given: dict[str, Any], config_source: Any = None, namespace: str | None = None
    ) -> None:
        super().__init__(given, config_source, namespace)
        #: What :meth:`add_periodic_task` has added, in the form of ``beat_schedule``; apart
        #: from that, so that who sets ``beat_schedule`` later does not remove it.
        self.periodic_tasks: dict[str, dict[str, Any]] = {}

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **opts: Any,
    ) -> str:
        """Add an entry to those of ``beat_schedule``; the name of the entry.

        To be called in the app's code, for example in a receiver of ``on_after_configure``
        or ``on_after_finalize``; at run time use :attr:`schedule`.

        :param schedule: seconds, ``timedelta``, ``crontab(...)``, ``solar(...)``...
        :param sig: what to send: a signature, a task, or the name of one.
        :param args: positional arguments, before those of the signature.
        :param name: of the entry; made of the call when None.
        :param opts: ``start``, ``end``, ``jitter``, ``exclude``, ``tz``, ``missed``,
            ``missed_window``, ``overlap``, ``relative`` and ``paused`` of
            :class:`~chervil.beat.ScheduleEntry`, and options of ``apply_async``.
        :raises ImproperlyConfigured: it is nothing of that kind.
        """
        call = sig
        if not isinstance(sig, Signature):
            call = Signature(sig, app=self)  # type: ignore[arg-type]
        if call.subtask_type:
            raise ImproperlyConfigured(
                f"add_periodic_task cannot send {sig!r:.100}: put the workflow into a task, and "
                "add that"
            )
        call = call.clone(args, kwargs)
        fields = {key: opts.pop(key) for key in list(opts) if key in _OF_ENTRY}
        entry = {
            **fields,
            "task": call.task,
            "schedule": schedule,
            "args": call.args,
            "kwargs": call.kwargs,
            "options": {**call.options, **opts},
        }
        name = name or repr(call)
        self.periodic_tasks[name] = entry
        return name

    @property
    def schedule(self) -> Book:
        """The periodic tasks, to be looked at and changed at run time."""
        book: Book = import_object("chervil.beat.book:Book")(self)
        return book

    def Beat(  # Celery's name
        self, *, max_interval: float | None = None, scheduler: Any = None, **_kwargs: Any
    ) -> Service:
        """A service that sends periodic tasks: ``app.Beat().run()``."""
        cls = import_object("chervil.beat:Service")
        service: Service = cls(self, max_interval, None, scheduler)
        return service
