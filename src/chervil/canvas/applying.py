"""How a signature of one task is sent, run or called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.result import AsyncResult
    from chervil.task import Task

R = TypeVar("R")


class Applying(Generic[R]):
    """Part of :class:`chervil.canvas.signature.Signature`."""

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Any: ...
        @property
        def app(self) -> Chervil: ...
        @property
        def type(self) -> Task[Any, Any]: ...
        def _task(self) -> Task[Any, Any] | None: ...
        def _merged(
            self,
            args: Iterable[Any] | None,
            kwargs: Mapping[str, Any] | None,
            options: Mapping[str, Any],
            force: bool = False,
        ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]: ...

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """Send it, with more arguments before those that it has."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send it; parameters and errors as in :meth:`chervil.task.Task.apply_async`.

        Options that are None count as not given.
        """
        args, kwargs, options = self._merged(args, kwargs, options)
        task = self._task()
        if task is not None:
            return task.apply_async(args, kwargs, **options)
        return self.app.send_task(self["task"], args, kwargs, **options)

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """:meth:`delay` for coroutines."""
        return await self.aapply_async(partial_args, partial_kwargs)

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """:meth:`apply_async` for coroutines."""
        args, kwargs, options = self._merged(args, kwargs, options)
        task = self._task()
        if task is not None:
            return await task.aapply_async(args, kwargs, **options)
        return await self.app.asend_task(self["task"], args, kwargs, **options)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Run it here and now; see :meth:`chervil.task.Task.apply`."""
        args, kwargs, options = self._merged(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> R:
        """Call the task as a function."""
        args, kwargs, _ = self._merged(partial_args, partial_kwargs, {})
        return cast("R", self.type(*args, **kwargs))
