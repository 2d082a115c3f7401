"""A node: everything that ``chervil worker`` starts, in the order in which it starts.

The order matters: the fork server is forked after the application was imported
and before this process has connections or threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from chervil import __version__, signals
from chervil.backoff import Backoff
from chervil.context import running_task
from chervil.drivers.contracts import Consumer, Queue
from chervil.exceptions import ImproperlyConfigured, OperationalError
from chervil.log import set_process_name, set_task_provider
from chervil.pools import pool_name
from chervil.pools.channel import Channel
from chervil.pools.page import Page
from chervil.pools.runner import Runner
from chervil.pools.solo import Solo
from chervil.worker.admission import Admission
from chervil.worker.appetite import Appetite
from chervil.worker.control.listening import Listening
from chervil.worker.control.state import State
from chervil.worker.executor import Plan
from chervil.worker.fleet import Fleet, Processes
from chervil.worker.flight import Flight
from chervil.worker.health import Health, Pulse, Responder, notify
from chervil.worker.hub import Hub
from chervil.worker.inline import Inline
from chervil.worker.keeper import Keeper
from chervil.worker.outcomes import Outcomes
from chervil.worker.revocations import Revocations
from chervil.worker.settling import Settling
from chervil.worker.shutdown import COLD, WARM, Shutdown, Wakeup
from chervil.worker.storing import send_again
from chervil.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from chervil.app import Chervil

logger = logging.getLogger("chervil.worker")
#: Where tasks mostly wait, the number of CPUs says nothing about how many can run.
_DEFAULT_SLOTS = {"threads": 10, "asyncio": 100}


class Node:
    """One worker node of an application.

    Every argument that is None is taken from the setting of that name.

    :param hostname: the node's name, ``name@host``.
    :param pool: ``prefork``, ``threads``, ``asyncio`` or ``solo``.
    :param concurrency: how many tasks run at a time, over all processes.
    :param processes: executor processes; for ``prefork`` the same as ``concurrency``.
    :param queues: names of the queues to take from.
    :param exclude_queues: take from all queues of the settings but these.
    :param time_limit: hard limit in seconds for tasks that set none.
    :param max_memory_per_child: KiB.
    :param lease: seconds after which others take over when this node is silent.
    :param purge: delete the waiting messages of the queues first.
    :param on_ready: called when the node takes messages.
    :raises ImproperlyConfigured: an argument or a setting is wrong.
    """

    def __init__(
        self,
        app: Chervil,
        *,
        hostname: str | None = None,
        pool: str | None = None,
        concurrency: int | None = None,
        processes: int | None = None,
        queues: Sequence[str] | None = None,
        exclude_queues: Sequence[str] | None = None,
        prefetch_multiplier: float | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        task_events: bool | None = None,
        lease: float | None = None,
        purge: bool = False,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        conf = app.conf
        self.app = app
        self.hostname = hostname or f"chervil@{socket.gethostname()}"
        self.pool = pool_name(pool or conf.worker_pool)
        total = concurrency or conf.worker_concurrency or _DEFAULT_SLOTS.get(self.pool) or _cores()
        self.processes, self.slots = _shares(
            self.pool, total, processes or conf.worker_processes or 0
        )
        #: How many tasks run at a time.
        self.concurrency = self.processes * self.slots
        self.prefetch_multiplier = _first(prefetch_multiplier, conf.worker_prefetch_multiplier)
        self.time_limit = _first(time_limit, conf.task_time_limit)
        self.soft_time_limit = _first(soft_time_limit, conf.task_soft_time_limit)
        self.max_tasks = int(_first(max_tasks_per_child, conf.worker_max_tasks_per_child))
        self.max_memory = int(_first(max_memory_per_child, conf.worker_max_memory_per_child))
        self.task_events = conf.worker_send_task_events if task_events is None else task_events
        self.lease = lease or conf.worker_lease
        self.queues: list[Queue] = app.router.select(queues, exclude_queues)
        self._purge = purge
        self._on_ready = on_ready
        self._keeper: Keeper | None = None
        self._consumer: Consumer | None = None
        self._hub: Hub | None = None
        self._watchdog: Watchdog | None = None
        self._solo: Solo | None = None
        self._fleet_of: Fleet | None = None
        self._responder: Responder | None = None
        self._revocations = Revocations()
        self._control: State | None = None
        self._wakeup = Wakeup()
        self._shutdown = Shutdown(self.hostname, conf.worker_soft_shutdown_timeout, self._wakeup)

    # --- the life of a node

    def run(self) -> int:
        """Serve until told to stop; 0 after a warm shutdown, 1 after a cold one.

        A broker that cannot be reached is tried again until it can.
        """
        app = self.app
        signals.celeryd_init.send(sender=self.hostname, instance=self, conf=app.conf, options={})
        app.import_default_modules()
        app.finalize()
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=app.conf)
        set_task_provider(running_task)
        set_process_name("hub")
        signals.worker_init.send(sender=self)
        with contextlib.ExitStack() as stack:
            stack.callback(self._wakeup.close)
            stack.enter_context(self._shutdown.handling_signals())
            flights: dict[int, Flight] = {}
            outcomes = Outcomes(app)
            settling = Settling(app, outcomes)
            fleet = self._fleet_of = self._fleet(flights, settling)
            stack.callback(fleet.close)
            fleet.start()
            self._answer_probes(stack, fleet)
            consumer = self._first_consumer(stack)
            if consumer is not None:
                hub = self._connect(consumer, fleet, flights, outcomes, settling)
                self._listen(stack, hub)
                self._ready()
                hub.run()
                self._leave(hub, fleet)
        signals.worker_shutdown.send(sender=self)
        logger.info("%s has stopped", self.hostname)
        return self._shutdown.exit_code

    def stop(self, *, now: bool = False) -> None:
        """Finish what runs, for up to ``worker_soft_shutdown_timeout`` seconds, and end; with
        ``now``, end at once. From any thread."""
        self._shutdown.stop(COLD if now else WARM)

    # --- what remote control looks at; from its thread

    version = __version__

    def pids(self) -> list[int]:
        """The executors' processes."""
        return self._fleet_of.pids() if self._fleet_of else []

    def running(self) -> dict[int, tuple[int, float]]:
        """The jobs that run: number -> process id and monotonic time at which it began."""
        return self._fleet_of.running() if self._fleet_of else {}

    def interrupt(self, flight: Flight, signum: int) -> None:
        """End a job that the hub's own thread runs (``solo``)."""
        if self._solo is not None and self._solo.current == flight.number:
            flight.signum = signum
            self._solo.terminate(flight.number)

    def _listen(self, stack: contextlib.ExitStack, hub: Hub) -> None:
        """Start remote control, where the broker can carry it."""
        broker = self.app.broker
        if not broker.features.fanout or not self.app.conf.worker_enable_remote_control:
            return
        self._control = State(self, hub, self._revocations, self._wakeup)
        listening = Listening(self._control, broker.fanout())
        stack.callback(listening.stop)
        listening.start()

    def _fleet(self, flights: dict[int, Flight], settling: Settling) -> Fleet:
        app = self.app
        if self.pool == "solo":
            self._solo = self._shutdown.solo = Solo(Runner(app, self.hostname, lambda _frame: None))
            return Inline(self._solo)
        if not app.broker.features.shared:
            raise ImproperlyConfigured(
                f"{app.conf.broker_url!r} exists in one process only, and the {self.pool} pool "
                "has several: use the solo pool, or sqlite:///chervil.db"
            )
        # Executors that are being replaced keep their row until they have ended.
        page = Page(self.processes * 2 + 2 + min(self.concurrency, 32), self.slots)
        plan = Plan(
            app,
            self.hostname,
            self.pool,
            self.slots,
            Channel(),
            page,
            self.max_tasks,
            self.max_memory,
        )
        return Processes(plan, self.processes, settling, flights, self._quiet)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """While no other thread is at work, this process may be forked."""
        with contextlib.ExitStack() as stack:
            for thread in (self._responder, self._keeper, self._control):
                if thread is not None:
                    stack.enter_context(thread.lock)
            yield

    def _answer_probes(self, stack: contextlib.ExitStack, fleet: Fleet) -> None:
        """From here on, ``chervil health`` gets answers."""
        address = self.app.conf.worker_health_address or ""
        self._responder = Responder(self.hostname, partial(self._health, fleet), address)
        stack.callback(self._responder.close)
        self._responder.start()

    def _health(self, fleet: Fleet) -> Health:
        """How this node is; in the thread that answers probes."""
        pulse = Pulse(self._hub, self._keeper, fleet, self._solo is not None and self._solo.running)
        url = self.app.conf.broker_url
        return pulse.health(self.hostname, url, stopping=bool(self._shutdown.asked))

    def _connect(
        self,
        consumer: Consumer,
        fleet: Fleet,
        flights: dict[int, Flight],
        outcomes: Outcomes,
        settling: Settling,
    ) -> Hub:
        app, broker, store = self.app, self.app.broker, self.app.backend
        hub = Hub(
            broker,
            consumer,
            store,
            fleet,
            flights,
            Admission(app, outcomes, self.time_limit, self.soft_time_limit, self._revocations),
            settling,
            Appetite(fleet.slots, self.prefetch_multiplier),
            shared=broker.features.atomic_results and broker.shares(store),
            wakeup=self._wakeup.fileno(),
        )
        hub.reopen = self._consume
        self._watchdog = Watchdog(
            hub,
            broker,
            [queue.name for queue in self.queues],
            self._wake_consumer,
            hub.replace_consumer,
            turns=self._solo is None,
        )
        self._hub = hub
        self._shutdown.guide(hub)
        return hub

    def _first_consumer(self, stack: contextlib.ExitStack) -> Consumer | None:
        """Wait until the broker is there, and consume; None when the node is to stop first."""
        broker, backoff = self.app.broker, Backoff(base=0.1, cap=2.0)
        stack.callback(self._end_consumer)
        while not self._shutdown.asked:
            try:
                broker.declare(self.queues)
                if self._purge:
                    for queue in self.queues:
                        count = broker.purge(queue.name)
                        logger.warning("Purged %d messages from %r", count, queue.name)
                return self._consume()
            except OperationalError as exc:
                wait = backoff.next()
                logger.error("%s; tried again in %.1f s", exc, wait)
                self._wakeup.wait(wait)
        return None

    def _wake_consumer(self) -> None:
        if self._consumer is not None:
            self._consumer.wake()

    def _look(self) -> None:
        """In the keeper's thread: whether the hub gets on."""
        if self._watchdog is not None:
            self._watchdog.look(monotonic())

    def _consume(self) -> Consumer:
        """A consumer with its keeper, in place of those there were."""
        self._end_consumer()
        consumer = self.app.broker.consumer(self.queues, self.hostname, self.lease)
        self._consumer = consumer
        self._keeper = Keeper(
            consumer, self.app.backend, self.lease, self._lost, self._look, self._send_again
        )
        self._keeper.start()
        return consumer

    def _end_consumer(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _send_again(self) -> None:
        """In the keeper's thread: what dead nodes did not send."""
        send_again(self.app.backend, self.app.broker, self.lease)

    def _lost(self) -> None:
        """In the keeper's thread: the lease ran out."""
        if self._hub is not None:
            self._hub.lose()
            self._wakeup()

    def _ready(self) -> None:
        signals.worker_ready.send(sender=self)
        logger.info("%s ready", self.hostname)
        notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=Ready")
        if self._on_ready is not None:
            self._on_ready()

    def _leave(self, hub: Hub, fleet: Fleet) -> None:
        if hub.stopping == WARM:
            fleet.leave()
        else:
            # Others may have the claims only when nobody works on them here any more.
            fleet.kill()
            hub.settle_last()


def _cores() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shares(pool: str, total: int, processes: int) -> tuple[int, int]:
    """How many executor processes, with how many slots each."""
    if pool == "solo":
        return 1, 1
    if pool == "prefork":
        return (processes or total), 1
    count = processes or 1
    return count, max(1, -(-total // count))


def _first(given: Any, setting: Any) -> float:
    """What was given, or the setting; 0 where both say nothing."""
    return float(given if given is not None else setting or 0)
