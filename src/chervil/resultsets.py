"""Several results as one: :class:`ResultSet`, and :class:`GroupResult` for groups."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from chervil import states
from chervil.context import current_app
from chervil.exceptions import ImproperlyConfigured
from chervil.exceptions import TimeoutError as ResultTimeout
from chervil.joining import assert_may_block
from chervil.result import AsyncResult

if TYPE_CHECKING:
    from collections.abc import Generator

    from chervil.app import Chervil

R = TypeVar("R")

#: Results that are read in one go.
_AT_ONCE = 1000
#: Seconds between looks where results are taken in the order in which they come.
_LOOK = 0.5


class ResultSet(Generic[R]):
    """Results that belong together.

    :param results: of tasks, or groups.
    :param app: whose result store to ask.
    """

    #: The result of the step before, in a workflow.
    parent: Any = None

    def __init__(
        self, results: Iterable[Any] = (), app: Chervil | None = None, **kwargs: Any
    ) -> None:
        self.results: list[Any] = list(results)
        self._app = app

    @property
    def app(self) -> Chervil:
        """The app whose result store is asked."""
        if self._app is None:
            self._app = self.results[0].app if self.results else current_app()
        return self._app

    # --- changing

    def add(self, result: Any) -> None:
        """Add a result, unless it is in."""
        if result not in self.results:
            self.results.append(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add those that are not in."""
        for result in results:
            self.add(result)

    def discard(self, result: Any) -> None:
        """Remove a result, if it is in."""
        if result in self.results:
            self.results.remove(result)

    def remove(self, result: Any) -> None:
        """Remove a result.

        :raises KeyError: it is not in.
        """
        if result not in self.results:
            raise KeyError(result)
        self.results.remove(result)

    def clear(self) -> None:
        """Remove all."""
        self.results.clear()

    # --- what is known

    def _flat(self) -> list[AsyncResult[Any]]:
        """The results of tasks, those of inner groups too."""
        flat: list[AsyncResult[Any]] = []
        for result in self.results:
            flat += result._flat() if isinstance(result, ResultSet) else [result]
        return flat

    def _read(self, results: Sequence[AsyncResult[Any]]) -> None:
        """Read the states of those that have not ended, many at once."""
        wanted = {r.id: r for r in results if r._meta is None and not r.ignored}
        ids = list(wanted)
        for start in range(0, len(ids), _AT_ONCE):
            for task_id, outcome in self.app.backend.get(ids[start : start + _AT_ONCE]).items():
                if outcome.status in states.READY_STATES:
                    wanted[task_id]._keep(outcome)

    def _ended(self) -> list[AsyncResult[Any]]:
        flat = self._flat()
        self._read(flat)
        return [result for result in flat if result._meta is not None or result.ignored]

    def ready(self) -> bool:
        """Whether all have ended."""
        return len(self._ended()) == len(self._flat())

    def waiting(self) -> bool:
        """Whether some have not ended."""
        return not self.ready()

    def completed_count(self) -> int:
        """How many have succeeded."""
        return sum(result.successful() for result in self._ended())

    def successful(self) -> bool:
        """Whether all have succeeded."""
        return self.completed_count() == len(self._flat())

    def failed(self) -> bool:
        """Whether one has failed."""
        return any(result.failed() for result in self._ended())

    def maybe_throw(self, callback: Any = None, propagate: bool = True) -> None:
        """Raise the exception of the first that has failed."""
        for result in self._ended():
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    # --- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        callback: Callable[[str, Any], object] | None = None,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], object] | None = None,
        follow_parents: bool = True,
    ) -> list[Any]:
        """Wait for all; their results in order.

        :param timeout: seconds for all together.
        :param propagate: raise the exception of the first that failed, in their order;
            False puts exceptions into the list.
        :param callback: called with id and result of each, in order.
        :raises TimeoutError: not all ended in time.
        """
        if disable_sync_subtasks:
            assert_may_block(self.app.conf.task_always_eager)
        if propagate and follow_parents and self.parent is not None:
            self._raise_for_parents()
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._gather(deadline, propagate, callback, on_message, on_interval)

    join = join_native = get

    def _gather(
        self,
        deadline: float | None,
        propagate: bool,
        callback: Callable[[str, Any], object] | None,
        on_message: Callable[[dict[str, Any]], object] | None,
        on_interval: Callable[[], object] | None,
    ) -> list[Any]:
        values: list[Any] = []
        window = 1
        for place, result in enumerate(self.results):
            if isinstance(result, ResultSet):
                values.append(
                    result._gather(deadline, propagate, callback, on_message, on_interval)
                )
                continue
            if result._meta is None and not result.ignored and place + 1 < len(self.results):
                # Those that follow may have ended, too: the more have, the more are read.
                ahead = [r for r in self.results[place : place + window] if _is_task(r)]
                self._read(ahead)
                ended = all(r._meta is not None for r in ahead)
                window = min(2 * window, _AT_ONCE) if ended else 1
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            values.append(
                result.get(
                    timeout=left,
                    propagate=propagate,
                    callback=callback,
                    on_message=on_message,
                    on_interval=on_interval,
                    disable_sync_subtasks=False,
                    follow_parents=False,
                )
            )
        return values

    async def aget(
        self, timeout: float | None = None, propagate: bool = True, follow_parents: bool = True
    ) -> list[Any]:
        """:meth:`get` for coroutines, which may wait inside tasks, too."""
        import asyncio  # whoever calls this has it already

        if propagate and follow_parents and self.parent is not None:
            self._raise_for_parents()
        try:
            async with asyncio.timeout(timeout):
                return await self._agather(propagate)
        except TimeoutError as exc:
            if isinstance(exc, ResultTimeout):
                raise
            raise ResultTimeout(f"{self!r:.200} did not end within {timeout} s") from None

    async def _agather(self, propagate: bool) -> list[Any]:
        import asyncio

        values: list[Any] = []
        for start in range(0, len(self.results), _AT_ONCE):
            part = self.results[start : start + _AT_ONCE]
            waits = [
                result._agather(propagate)
                if isinstance(result, ResultSet)
                else result.aget(propagate=propagate, follow_parents=False)
                for result in part
            ]
            found = await asyncio.gather(*waits, return_exceptions=True)
            for value, result in zip(found, part, strict=True):
                if isinstance(value, BaseException) and (
                    propagate or not _is_task(result) or result.state not in states.READY_STATES
                ):
                    raise value
            values += found
        return values

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.aget().__await__()

    def _raise_for_parents(self) -> None:
        parent = self.parent
        while parent is not None:
            parent.maybe_throw()
            parent = parent.parent

    def iterate(
        self, timeout: float | None = None, propagate: bool = True, interval: float = _LOOK
    ) -> Iterator[Any]:
        """The results, as they come."""
        for result in self._as_they_come(timeout):
            yield result.maybe_throw(propagate=propagate)

    def iter_native(
        self, timeout: float | None = None, **kwargs: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Pairs of id and result document, as they come."""
        for result in self._as_they_come(timeout):
            yield result.id, result._get_meta()

    def _as_they_come(self, timeout: float | None) -> Iterator[AsyncResult[Any]]:
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = self._flat()
        while waiting:
            self._read(waiting)
            ended = [r for r in waiting if r._meta is not None or r.ignored]
            yield from ended
            waiting = [r for r in waiting if r._meta is None and not r.ignored]
            if waiting and not ended:
                left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
                if left <= 0:
                    raise ResultTimeout(f"{len(waiting)} of {len(self)} results did not come")
                try:
                    waiting[0].get(timeout=left, propagate=False, follow_parents=False)
                except ResultTimeout:
                    continue

    async def aiterate(self, timeout: float | None = None) -> AsyncIterator[Any]:
        """:meth:`iterate` for coroutines."""
        import asyncio

        for done in asyncio.as_completed(
            [result.aget(follow_parents=False) for result in self._flat()], timeout=timeout
        ):
            yield await done

    # --- doing something about them

    def forget(self) -> None:
        """Delete all results."""
        for result in self.results:
            result.forget()

    def revoke(
        self,
        connection: object = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Make sure that none of them starts any more."""
        if terminate:
            for result in self._flat():
                result.revoke(terminate=True, signal=signal)
        else:
            self.app.revoke([result.id for result in self._flat()])

    @property
    def supports_native_join(self) -> bool:
        """True: many results are read at once."""
        return True

    @property
    def backend(self) -> Any:
        """The app's result store."""
        return self.app.backend

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __contains__(self, result: object) -> bool:
        return any(mine == result for mine in self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ResultSet):
            return other.results == self.results
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(str(r) for r in self.results)}]>"


def _is_task(result: Any) -> bool:
    return not isinstance(result, ResultSet)


class GroupResult(ResultSet[R]):
    """The results of a group.

    :param id: the group's id.
    :param results: of its members.
    :param parent: the result of the step before.
    """

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - Celery's name
        results: Iterable[Any] = (),
        parent: Any = None,
        app: Chervil | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(results, app)
        self.id = id
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        """The members' results."""
        return self.results

    def save(self, backend: Any = None) -> None:
        """Store which results belong to it, for :meth:`restore`.

        :raises BackendError: it was not stored.
        """
        self.app.save_group(self)

    def delete(self, backend: Any = None) -> None:
        """Delete what :meth:`save` has stored; the results stay."""
        self.app.delete_group(self.id or "")

    @classmethod
    def restore(
        cls,
        id: str,  # noqa: A002
        backend: Any = None,
        app: Chervil | None = None,
    ) -> GroupResult[Any] | None:
        """What :meth:`save` has stored under this id; None when nothing was."""
        return (app or current_app()).restore_group(id)

    def as_tuple(self) -> tuple[Any, Any]:
        """``((id, parent), members)``, which can be serialized."""
        parent = self.parent.as_tuple() if self.parent is not None else None
        return (self.id, parent), [result.as_tuple() for result in self.results]

    def as_list(self) -> list[str]:
        """The ids of all members."""
        return [result.id for result in self._flat()]

    def _keys(self) -> tuple[Any, ...]:
        return (self.id, self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return other._keys() == self._keys() and other.parent == self.parent
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        members = ", ".join(str(result) for result in self.results)
        return f"<{type(self).__name__}: {self.id} [{members}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, self.results, self.parent)


def result_from_tuple(value: Any, app: Chervil | None = None) -> Any:
    """The result that :meth:`AsyncResult.as_tuple` or :meth:`GroupResult.as_tuple` described.

    :raises ImproperlyConfigured: it is no such tuple.
    """
    if isinstance(value, (AsyncResult, ResultSet)):
        return value
    found: list[Any] = []  # from the last step to the first one
    while value:
        try:
            own, members = value
            task_id, value = own if isinstance(own, (list, tuple)) else (own, None)
        except (TypeError, ValueError):
            raise ImproperlyConfigured(
                f"{value!r:.200} does not describe a result: want ((id, parent), members)"
            ) from None
        if members is not None:
            inner = [result_from_tuple(member, app) for member in members]
            found.append(GroupResult(task_id, inner, app=app))
        else:
            found.append(AsyncResult(task_id, None, None, app))
    for result, parent in pairwise(found):
        result.parent = parent
    if not found:
        raise ImproperlyConfigured(f"{value!r} does not describe a result")
    return cast("Any", found[0])
