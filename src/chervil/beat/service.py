"""``chervil beat``: any number of processes, of which one sends.

Who holds the lease is the leader. It renews the lease three times in each period, from the
loop that sends: a leader whose loop does not move loses it. What a leader stores carries
the token of its lease, so one that froze and comes back stores nothing any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from chervil import clock, signals
from chervil.beat.scheduler import Scheduler
from chervil.beat.sending import book_of
from chervil.exceptions import ImproperlyConfigured, LeaseLost, OperationalError
from chervil.settings import import_object

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.drivers.coordination import Grant, Watch

logger = logging.getLogger("chervil.beat")
#: Seconds between attempts while the store does not answer.
_PAUSE = 1.0
#: Celery's schedulers, in whose places ours stands.
_CELERYS = frozenset(
    f"{module}{sep}{name}"
    for module in ("celery.beat", "chervil.beat")
    for sep in ".:"
    for name in ("Scheduler", "PersistentScheduler")
)


class Service:
    """Sends the periodic tasks of an app, when it is its turn to.

    :param max_interval: most seconds to sleep; None: the setting.
    :param schedule_filename: accepted for Celery's sake; the state is in the coordinator.
    :param scheduler_cls: the class, or ``module:name``; None: the setting.
    :param lease: seconds; None: the setting ``beat_lease``.
    :param on_ready: called when the store was reached and it is known who leads.
    """

    def __init__(
        self,
        app: Chervil,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: type[Scheduler] | str | None = None,
        *,
        lease: float | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval
        self.schedule_filename = schedule_filename
        self.scheduler_cls = scheduler_class(scheduler_cls or app.conf.beat_scheduler)
        self.lease = lease or app.conf.beat_lease
        self.book = book_of(app)
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        self._on_ready = on_ready
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._scheduler: Scheduler | None = None
        self._leader = ""

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler; made when this is first used."""
        if self._scheduler is None:
            self._scheduler = self.get_scheduler()
        return self._scheduler

    def get_scheduler(self, lazy: bool = False) -> Scheduler:
        """Make a scheduler; for subclasses."""
        return self.scheduler_cls(self.app, max_interval=self.max_interval)

    # --- the life of a beat

    def run(self, embedded: bool = False) -> None:
        """Serve until told to stop.

        :param embedded: it is the beat of a worker.
        :raises ImproperlyConfigured: an entry is wrong, or there is no coordinator.
        """
        app = self.app
        try:
            signals.beat_init.send(sender=self)
            if embedded:
                signals.beat_embedded_init.send(sender=self)
            app.import_default_modules()
            app.finalize()
            self.scheduler.setup_schedule()  # what is wrong in the code shows at once
            app.coordinator  # noqa: B018
            with self._handling_signals():
                while not self._stopping.is_set():
                    self._try_to_serve()
            logger.info("beat has stopped")
        finally:
            self._stopped.set()

    #: Celery's name.
    start = run

    def _try_to_serve(self) -> None:
        try:
            self._serve()
        except OperationalError as exc:
            logger.warning("The store of periodic tasks (tried again in a second): %s", exc)
            self._stopping.wait(_PAUSE)

    def _serve(self) -> None:
        coordinator = self.app.coordinator
        watch = self._watch = coordinator.watch(self.book)
        try:
            while not self._stopping.is_set():
                grant = coordinator.acquire(self.book, self.owner, self.lease)
                if grant.owner != self.owner:
                    self._stand_by(grant, watch)
                    continue
                try:
                    self._lead(grant, watch)
                except LeaseLost:
                    logger.warning("Another beat has taken over")
                else:
                    coordinator.release(self.book, grant.token)
        finally:
            self._watch = None
            watch.close()

    def _ready(self, leader: str, text: str) -> None:
        if self._leader != leader:
            self._leader = leader
            logger.info("beat: %s", text)
        ready, self._on_ready = self._on_ready, None
        if ready is not None:
            ready()

    def _stand_by(self, grant: Grant, watch: Watch) -> None:
        self._ready(grant.owner, f"ready; {grant.owner} sends, this one stands by")
        watch.wait(min(grant.remaining + 0.005, self.lease / 3))

    def _lead(self, grant: Grant, watch: Watch) -> None:
        """Send what is due until told to stop.

        :raises LeaseLost: another one leads by now.
        """
        scheduler, coordinator = self.scheduler, self.app.coordinator
        renew = clock.monotonic() + self.lease / 3
        scheduler.lead(grant.token)
        self._ready(self.owner, f"ready; sends {scheduler.info}")
        while not self._stopping.is_set():
            if clock.monotonic() >= renew:
                renew = clock.monotonic() + self.lease / 3
                renewed = coordinator.acquire(self.book, self.owner, self.lease)
                if (renewed.owner, renewed.token) != (grant.owner, grant.token):
                    raise LeaseLost("the lease ran out")
            delay = scheduler.tick()
            if watch.wait(max(0.0, min(delay, renew - clock.monotonic()))):
                scheduler.refresh()

    def stop(self, wait: bool = False) -> None:
        """Stop soon. From any thread or signal handler.

        :param wait: until it has stopped; not from a signal handler.
        """
        self._stopping.set()
        watch = self._watch
        if watch is not None:
            watch.wake()
        if wait:
            self._stopped.wait()

    def sync(self) -> None:
        """Nothing to do: all state is stored when it changes."""

    # --- signals

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.stop()


def scheduler_class(given: Any) -> type[Scheduler]:
    """The class of schedulers that is meant.

    :raises ImproperlyConfigured: there is none of that name, or it is something else.
    """
    if isinstance(given, str):
        if given in _CELERYS:
            return Scheduler
        try:
            given = import_object(given)
        except ImportError as exc:
            raise ImproperlyConfigured(
                f"the scheduler {given!r} cannot be imported: {exc}"
            ) from exc
    if not isinstance(given, type) or not issubclass(given, Scheduler):
        raise ImproperlyConfigured(
            f"the scheduler {given!r} must be a subclass of chervil.beat.Scheduler; one that was "
            "written for Celery has to be adapted: see 'Periodic tasks' in the guide"
        )
    return given
