"""A task as a part of workflows: its signatures, and maps over it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chervil.canvas.maps import chunks, xmap, xstarmap
from chervil.canvas.signature import Signature

if TYPE_CHECKING:
    from chervil.app import Chervil

R = TypeVar("R")


class Composing(Generic[R]):
    """Part of :class:`chervil.task.Task`."""

    if TYPE_CHECKING:
        _app: Chervil | None

    def signature(
        self, args: Iterable[Any] | None = None, *starargs: Any, **starkwargs: Any
    ) -> Signature[R]:
        """A signature; parameters as of :class:`~chervil.canvas.signature.Signature`."""
        starkwargs.setdefault("app", self._app)
        return Signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def map(self, it: Iterable[Any]) -> xmap[list[R]]:
        """One task that calls this one with each item, one after the other."""
        return xmap(self.s(), it, app=self._app)

    def starmap(self, it: Iterable[Iterable[Any]]) -> xstarmap[list[R]]:
        """One task that calls this one with each list of arguments, one after the other."""
        return xstarmap(self.s(), it, app=self._app)

    def chunks(self, it: Iterable[Iterable[Any]], n: int) -> chunks[list[list[R]]]:
        """A group of tasks that call this one with ``n`` lists of arguments each."""
        return chunks(self.s(), it, n, app=self._app)

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """A signature with these arguments, perhaps not all of them."""
        return Signature(self, args, kwargs, app=self._app)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """As :meth:`s`, but nothing is added to the arguments when it is sent."""
        return Signature(self, args, kwargs, immutable=True, app=self._app)
