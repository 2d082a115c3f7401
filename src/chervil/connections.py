"""The part of an app that holds its connections: opened when needed, right after a fork."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, cast

from chervil.configuration import Configured
from chervil.drivers.contracts import Queue
from chervil.drivers.registry import (
    has_coordinator,
    has_private_results,
    open_broker,
    open_coordinator,
    open_results,
    scheme_of,
    settings_of_results,
)
from chervil.exceptions import BackendError, ImproperlyConfigured, QueueNotFound
from chervil.identity import new_address
from chervil.publish import Publisher
from chervil.routing import Router
from chervil.routing.entities import to_contract
from chervil.waits import Waits

if TYPE_CHECKING:
    from typing import Self

    from chervil.drivers.contracts import Broker, PrivateStore, ResultStore
    from chervil.drivers.coordination import Coordinator

_open: weakref.WeakSet[Connected] = weakref.WeakSet()


class Connected(Configured):
    """Broker, result store, publisher and waits of an app."""

    def __init__(
        self, given: dict[str, Any], config_source: Any = None, namespace: str | None = None
    ) -> None:
        super().__init__(given, config_source, namespace)
        self._broker: Broker | None = None
        self._backend: ResultStore | None = None
        self._router: Router | None = None
        #: URL and options that they were opened with.
        self._broker_for: tuple[str, dict[str, Any]] | None = None
        self._backend_for: tuple[str, dict[str, Any]] | None = None
        self._coordinator: Coordinator | None = None
        self._coordinator_for: tuple[str, dict[str, Any]] | None = None
        #: Results go to who sent the task, so that the store is told before it is sent; as
        #: of when the broker or the store was used last.
        self.has_private_results = False
        #: Likewise, whether there are results at all.
        self.has_results = True
        #: ``Settings.version`` for which this was compared with the settings.
        self._compared = -1
        #: Where results are announced to this process.
        self.address = new_address()
        #: Sends messages.
        self.publisher = Publisher(self)  # type: ignore[arg-type]
        #: Waits for results.
        self.waits = Waits(lambda: self.backend, lambda: self.address)
        _open.add(self)

    @property
    def broker(self) -> Broker:
        """The broker; opened when this is used for the first time.

        :raises ImproperlyConfigured: ``broker_url`` is wrong.
        """
        broker = self._broker
        if broker is None or self._compared != self.conf.version:
            self._compare()
            broker = self._broker or self._open_broker()
        return broker

    @property
    def backend(self) -> ResultStore:
        """The result store; opened when this is used for the first time.

        :raises ImproperlyConfigured: ``result_backend`` is wrong.
        """
        backend = self._backend
        if backend is None or self._compared != self.conf.version:
            self._compare()
            backend = self._backend or self._open_backend()
        return backend

    @property
    def coordinator(self) -> Coordinator:
        """What nodes share; opened when this is used for the first time.

        :raises ImproperlyConfigured: ``coordinator_url`` is wrong, or neither it nor broker
            and result store can keep such state.
        """
        with self._lock:
            wanted = self._coordinator_wanted()
            if self._coordinator is not None and self._coordinator_for != wanted:
                self._coordinator.close()
                self._coordinator = None
            if self._coordinator is None:
                self._coordinator = open_coordinator(*wanted)
                self._coordinator_for = wanted
            return self._coordinator

    def _coordinator_wanted(self) -> tuple[str, dict[str, Any]]:
        url = self.conf.coordinator_url
        stores = (self._broker_wanted(), self._backend_wanted())
        for known, options in stores:
            if url == known or (url is None and has_coordinator(known)):
                return known, options
        if url is None:
            raise ImproperlyConfigured(
                f"neither the broker ({scheme_of(stores[0][0])}://) nor the result store "
                f"({scheme_of(stores[1][0])}://) can keep the state that nodes share for this; "
                "set coordinator_url to redis://... or sqlite:///..."
            )
        return url, {}

    @property
    def router(self) -> Router:
        """Where tasks go."""
        if self._router is None:
            self._router = Router(self.conf)
        return self._router

    def _compare(self) -> None:
        """Give up what was opened with other settings than there are now."""
        with self._lock:
            if self._broker is not None and self._broker_for != self._broker_wanted():
                self._broker.close()
                self._broker = None
            if self._backend is not None and self._backend_for != self._backend_wanted():
                self.waits.close()
                self._backend.close()
                self._backend = None
            url = self.conf.effective_result_backend
            self.has_private_results = has_private_results(url)
            self.has_results = scheme_of(url) != "disabled"
            self._compared = self.conf.version

    def _broker_wanted(self) -> tuple[str, dict[str, Any]]:
        return self.conf.broker_url, dict(self.conf.broker_transport_options)

    def _backend_wanted(self) -> tuple[str, dict[str, Any]]:
        conf = self.conf
        url = conf.effective_result_backend
        options = {name: conf[name] for name in settings_of_results(url)}
        return url, options | conf.result_backend_transport_options

    @property
    def private_backend(self) -> PrivateStore | None:
        """The result store, if results go to who sent the task and to nobody else."""
        backend = self.backend
        return cast("PrivateStore", backend) if self.has_private_results else None

    def check_awaits(self, task_id: str) -> None:
        """See that a result can come to this process.

        :raises BackendError: it goes to another one, or to none.
        """
        store = self.private_backend
        if not self.has_results:
            raise BackendError(
                f"the result of task {task_id} cannot be waited for: results are not kept. Set "
                "result_backend, for example to redis://localhost, sqlite:///results.db, or "
                "rpc:// with RabbitMQ"
            )
        if store is not None and not store.awaits(task_id):
            raise BackendError(
                f"the result of task {task_id} cannot be waited for here: with "
                f"{scheme_of(self.conf.effective_result_backend)}:// results go to the process "
                "that sent the task, and this one did not, or the result was read long ago; a "
                "store such as redis:// keeps results for everybody"
            )

    def _open_broker(self) -> Broker:
        with self._lock:
            if self._broker is None:
                self.conf.validate()
                self._broker_for = self._broker_wanted()
                broker = open_broker(*self._broker_for)
                broker.definition = self._definition
                self._broker = broker
            return self._broker

    def _definition(self, name: str) -> Queue:
        """How the queue of a name is declared, for brokers that must be told."""
        try:
            return to_contract(self.router.queues[name])
        except QueueNotFound:  # somebody else's
            return Queue(name, declare=False)

    def _open_backend(self) -> ResultStore:
        with self._lock:
            if self._backend is None:
                self._backend_for = self._backend_wanted()
                self._backend = open_results(*self._backend_for)
            return self._backend

    def close(self) -> None:
        """Stop the app's threads and close its connections; it can be used again."""
        self.publisher.close()
        self.waits.close()
        with self._lock:
            broker, self._broker = self._broker, None
            backend, self._backend = self._backend, None
            coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            coordinator.close()
        if backend is not None:
            backend.close()
        if broker is not None:
            broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _after_fork(self) -> None:
        """What a process must not share with its parent."""
        self._lock = threading.RLock()
        self.address = new_address()
        self.publisher.reset()
        self.waits.reset()


def _after_fork() -> None:
    for connected in list(_open):
        connected._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
