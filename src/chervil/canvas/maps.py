"""Many calls in one task: maps and chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from chervil.canvas.composite import Composite
from chervil.canvas.primitives import group as _Group
from chervil.canvas.shape import CHUNKS, parts_of
from chervil.canvas.signature import Signature, maybe_signature, register_type

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.resultsets import GroupResult

R = TypeVar("R")


class _Map(Signature[R]):
    """One task that calls another one for each item, in its own process."""

    name_: str

    def __init__(self, task: Any, it: Iterable[Any], **options: Any) -> None:
        app = options.pop("app", None)
        kwargs = {"task": maybe_signature(task, app), "it": list(it)}
        super().__init__(self.name_, (), kwargs, options, immutable=True, app=app)
        if self._app is None and isinstance(kwargs["task"], Signature):
            self._app = kwargs["task"]._app

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Chervil | None = None) -> Any:
        """The map that a dict describes."""
        kwargs = d["kwargs"]
        return cls(kwargs["task"], kwargs["it"], app=app, **(d.get("options") or {}))

    def __repr__(self) -> str:
        sign = "*x" if self.name_ == "celery.starmap" else "x"
        return f"[{self['kwargs']['task']['task']}({sign}) for x in {self['kwargs']['it']!r:.100}]"


@register_type()
class xmap(_Map[R]):
    """One task that calls ``task(x)`` for each ``x``; its result is the list of results."""

    name_ = "celery.map"


@register_type()
class xstarmap(_Map[R]):
    """One task that calls ``task(*x)`` for each ``x``; its result is the list of results."""

    name_ = "celery.starmap"


@register_type()
class chunks(Composite[R]):
    """Calls with the arguments in ``it``, ``n`` of them in one task each.

    :param task: the signature that is called.
    :param it: a tuple or list of arguments for each call.
    :param n: calls in one task.
    """

    kind = CHUNKS

    def __init__(self, task: Any, it: Iterable[Any], n: int, **options: Any) -> None:
        app = options.pop("app", None)
        kwargs = {"task": maybe_signature(task, app), "it": list(it), "n": n}
        super().__init__("celery.chunks", (), kwargs, options, immutable=True, app=app)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Chervil | None = None) -> chunks[Any]:
        """The chunks that a dict describes."""
        kwargs = d["kwargs"]
        return cls(kwargs["task"], kwargs["it"], kwargs["n"], app=app, **(d.get("options") or {}))

    def group(self) -> _Group[Any]:
        """The group of star maps that it stands for."""
        made: _Group[Any] = _Group.from_dict(parts_of(self), app=self.app)
        return made

    def __call__(self, **options: Any) -> Any:
        """Send them."""
        return self.apply_async(**options)

    def _followed_by(self, other: Any) -> Any:
        return self.group() | other

    def apply(  # type: ignore[override]
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> GroupResult[Any]:
        """Run them here and now."""
        return self.group().apply(args, kwargs, **options)

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Chervil | None = None) -> Any:
        """Send calls in chunks."""
        return cls(task, it, n, app=app)()

    def __repr__(self) -> str:
        kwargs = self["kwargs"]
        return f"chunks({kwargs['task']!r}, {kwargs['it']!r:.100}, {kwargs['n']})"
