"""What a client holds of a task that was sent: its id, and through it the outcome."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from chervil import states
from chervil.context import current_app
from chervil.exceptions import TimeoutError as ResultTimeout
from chervil.joining import assert_may_block
from chervil.wire import outcomes

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.drivers.contracts import ResultStore
    from chervil.wire.message import Outcome

R = TypeVar("R")


class RemoteTraceback(Exception):
    """The traceback as text from where the task ran; ``__cause__`` of what ``get`` raises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class AsyncResult(Generic[R]):
    """The result of a task, by the task's id.

    Awaiting it is the same as awaiting :meth:`aget`.

    :param id: the task's id.
    :param backend: accepted for Celery's signature; the app's store is read.
    :param task_name: for messages, when known.
    :param app: whose result store to ask; the current app when None.
    :param parent: the result of the step before, in a workflow.
    """

    __slots__ = (
        "__weakref__",
        "_meta",
        "_sent_from",
        "app",
        "id",
        "ignored",
        "parent",
        "task_name",
    )

    TimeoutError = ResultTimeout

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        backend: object = None,
        task_name: str | None = None,
        app: Chervil | None = None,
        parent: Any = None,
    ) -> None:
        if not isinstance(id, str) or not id:
            raise ValueError(f"a result needs the id of a task, which is text, not {id!r}")
        self.id = id
        self.app: Chervil = app or current_app()
        self.task_name = task_name
        self.parent = parent
        #: The task was sent with ``ignore_result``: ``get`` returns None at once.
        self.ignored = False
        self._meta: dict[str, Any] | None = None
        #: The address that the message carried, when this process sent it or its parent.
        self._sent_from: str | None = None

    @property
    def task_id(self) -> str:
        """The same as ``id``."""
        return self.id

    @property
    def backend(self) -> ResultStore:
        """The app's result store."""
        return self.app.backend

    # --- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, R], object] | None = None,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Wait until the task has ended and return its result.

        :param timeout: seconds to wait at most; None waits for ever.
        :param propagate: raise the task's exception again; False returns it.
        :param interval: accepted for Celery's signature: nothing polls.
        :param no_ack: accepted for Celery's signature.
        :param follow_parents: raise what the steps before have failed with.
        :param callback: called with the id and the result.
        :param on_message: called with each state that is seen, as a dict.
        :param on_interval: called from time to time while nothing happens.
        :param disable_sync_subtasks: refuse to wait inside a task.
        :raises TimeoutError: the task did not end in time.
        :raises RuntimeError: called inside a task; see :func:`allow_join_result`.
        :raises BackendError: the result store cannot be read.
        """
        if self.ignored:
            return cast("R", None)
        if disable_sync_subtasks:
            assert_may_block(self.app.conf.task_always_eager)
        if propagate and follow_parents and self.parent is not None:
            self._raise_for_parents()
        if self._meta is None:
            app = self.app
            on_news = None if on_message is None else self._news(on_message)
            outcome = app.waits.wait(self.id, self._sent_here(), timeout, on_news, on_interval)
            if outcome is None:
                raise self._timed_out(timeout)
            self._keep(outcome)
        return self._deliver(propagate, callback)

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, R], object] | None = None,
        on_message: Callable[[dict[str, Any]], object] | None = None,
    ) -> R:
        """:meth:`get` for coroutines, which may wait inside tasks, too."""
        if self.ignored:
            return cast("R", None)
        if propagate and follow_parents and self.parent is not None:
            self._raise_for_parents()
        if self._meta is None:
            self._keep(await self._await_outcome(timeout, on_message))
        return self._deliver(propagate, callback)

    async def _await_outcome(
        self, timeout: float | None, on_message: Callable[[dict[str, Any]], object] | None
    ) -> Outcome:
        import asyncio  # whoever calls this has it already

        app = self.app
        on_news = None if on_message is None else self._news(on_message)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiter = app.waits.submit(self.id, self._sent_here(), future, on_news)
        try:
            if timeout is None:
                return await future
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise  # the store's or the callback's own
            raise self._timed_out(timeout) from None
        finally:
            if not future.done() or future.cancelled():
                app.waits.cancel(waiter)

    def _sent_here(self) -> bool:
        """Whether the task's message carried this process's address.

        :raises BackendError: the result cannot come here.
        """
        app = self.app
        if self._sent_from == app.address and app.has_results:
            return True
        app.check_awaits(self.id)
        return False

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    def _news(self, on_message: Callable[[dict[str, Any]], object]) -> Callable[[Outcome], object]:
        return lambda outcome: on_message(self._decode(outcome))

    def _raise_for_parents(self) -> None:
        parent = self.parent
        while parent is not None:
            parent.maybe_throw()
            parent = parent.parent

    def _timed_out(self, timeout: float | None) -> ResultTimeout:
        name = self.task_name or "task"
        try:
            state = self.state
        except Exception as exc:
            state = f"unknown ({exc})"
        hint = " (no worker took it yet, or the id is unknown)" if state == states.PENDING else ""
        return ResultTimeout(
            f"{name}[{self.id}] did not end within {timeout:g} s; state: {state}{hint}"
        )

    def _deliver(self, propagate: bool, callback: Callable[[str, R], object] | None) -> R:
        if propagate:
            self.maybe_throw()
        value: R = self.result
        if callback is not None:
            callback(self.id, value)
        return value

    def maybe_throw(self, propagate: bool = True, callback: Any = None) -> Any:
        """Raise the task's exception again if it has failed; otherwise return its result."""
        meta = self._get_meta()
        value = meta["result"]
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            raise _throwable(value, meta.get("traceback"))
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    # --- what is known

    def _decode(self, outcome: Outcome) -> dict[str, Any]:
        return outcomes.decode(outcome.payload, self.app.conf.result_serializer)

    def _keep(self, outcome: Outcome) -> dict[str, Any]:
        meta = self._decode(outcome)
        if meta["status"] in states.READY_STATES:
            self._meta = meta
        return meta

    def _get_meta(self) -> dict[str, Any]:
        if self._meta is not None:
            return self._meta
        outcome = self.app.backend.get((self.id,)).get(self.id)
        if outcome is None:
            return {"status": states.PENDING, "result": None}
        return self._keep(outcome)

    @property
    def state(self) -> str:
        """PENDING (or unknown), STARTED, RETRY, FAILURE, SUCCESS, REVOKED or a custom one."""
        return str(self._get_meta()["status"])

    status = state

    @property
    def result(self) -> Any:
        """The result, the exception, or what ``update_state`` gave as meta data."""
        return self._get_meta()["result"]

    info = result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task as text."""
        return self._get_meta().get("traceback")

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether the task has ended without an exception."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether the task has ended with an exception."""
        return self.state == states.FAILURE

    @property
    def children(self) -> list[AsyncResult[Any]] | None:
        """What the task has sent, when it has ended; None before."""
        children = self._get_meta().get("children")
        if children is None:
            return None
        found = [self.app.result_from_tuple(child) for child in children]
        todo: list[Any] = [*found]
        while todo:
            result = todo.pop()
            if hasattr(result, "results"):
                todo += result.results
            else:
                result._sent_from = self._sent_from
        return found

    @property
    def date_done(self) -> dt.datetime | None:
        """When the task ended."""
        date = self._get_meta().get("date_done")
        return dt.datetime.fromisoformat(date) if isinstance(date, str) else date

    @property
    def name(self) -> str | None:
        """The task's name; stored with ``result_extended``."""
        return self._get_meta().get("name") or self.task_name

    @property
    def args(self) -> Any:
        """The task's positional arguments; stored with ``result_extended``."""
        return self._get_meta().get("args")

    @property
    def kwargs(self) -> Any:
        """The task's keyword arguments; stored with ``result_extended``."""
        return self._get_meta().get("kwargs")

    @property
    def worker(self) -> str | None:
        """The node that ran it; stored with ``result_extended``."""
        return self._get_meta().get("worker")

    @property
    def retries(self) -> int | None:
        """How often it was retried; stored with ``result_extended``."""
        return self._get_meta().get("retries")

    @property
    def queue(self) -> str | None:
        """The queue it came from; stored with ``result_extended``."""
        return self._get_meta().get("queue")

    # --- doing something about it

    def forget(self) -> None:
        """Delete the result, here and in the store."""
        self._meta = None
        if self.parent is not None:
            self.parent.forget()
        self.app.backend.forget((self.id,))
        self.app.waits.forget(self.id)

    def revoke(
        self,
        connection: object = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Make sure that the task does not start any more; it ends as REVOKED.

        The broker keeps the cancellation, so it holds for nodes that are started
        later, too; see :meth:`chervil.control.Control.revoke`.

        :param connection: accepted for Celery's signature.
        :param terminate: also end it where it runs.
        :param signal: how; ``SIGTERM`` when None.
        :param wait: until nodes have answered, at most ``timeout`` seconds (1 when None).
        :raises BrokerUnavailable: nothing was stored.
        """
        self.app.control.revoke(
            self.id,
            terminate=terminate,
            signal=signal or "SIGTERM",
            reply=wait,
            timeout=1.0 if timeout is None else timeout,
        )

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        connection: object = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Cancel all tasks with these stamps, not this one alone, as in Celery; see
        :meth:`chervil.control.Control.revoke_by_stamped_headers`."""
        self.app.control.revoke_by_stamped_headers(
            headers,
            terminate=terminate,
            signal=signal or "SIGTERM",
            reply=wait,
            timeout=1.0 if timeout is None else timeout,
        )

    # --- structure

    def as_tuple(self) -> tuple[Any, Any]:
        """``(id, parent)`` and nothing, which can be serialized."""
        above: list[Any] = []  # a chain may be longer than the stack is deep
        parent: Any = self.parent
        while type(parent) is AsyncResult:
            above.append(parent.id)
            parent = parent.parent
        found = parent.as_tuple() if parent is not None else None
        for task_id in reversed(above):
            found = (task_id, found), None
        return (self.id, found), None

    def as_list(self) -> list[str]:
        """This id and those of the steps before."""
        found = [self.id]
        parent: Any = self.parent
        while parent is not None:
            found += [parent.id] if isinstance(parent, AsyncResult) else parent.as_list()
            parent = parent.parent
        return found

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, None, self.task_name, None, self.parent)

    def __copy__(self) -> AsyncResult[R]:
        return type(self)(self.id, None, self.task_name, self.app, self.parent)

    def __deepcopy__(self, memo: dict[int, Any]) -> AsyncResult[R]:
        return self.__copy__()


def _throwable(value: Any, traceback: str | None) -> BaseException:
    """The exception of a stored result, without the traces of an earlier ``get``."""
    if not isinstance(value, BaseException):
        value = Exception(value)
    value = value.with_traceback(None)
    if traceback:
        value.__cause__ = RemoteTraceback(traceback)
    return cast("BaseException", value)
