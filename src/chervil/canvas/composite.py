"""What chains, groups and chords have in common: being sent as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from chervil.canvas import sending
from chervil.canvas.freezing import Freezer
from chervil.canvas.shape import Sig, kind_of
from chervil.canvas.signature import Signature
from chervil.context import current_app
from chervil.ids import new_id

if TYPE_CHECKING:
    from typing import Self

    from chervil.app import Chervil
    from chervil.result import AsyncResult

R = TypeVar("R")


class Composite(Signature[R]):
    """A signature that is made of others.

    ``kind`` says what it is to the planner, so that classes derived from these may have
    a ``subtask_type`` of their own.
    """

    kind: str

    # --- sending

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send it; what is to run first is stored at once, in batches.

        :param args: put before the arguments of what runs first.
        :param options: as of :meth:`chervil.task.Task.apply_async`. Those of a chain are
            for its first task, those of a group for each member, those of a chord for its
            header and its body; ``link`` is for the last task, ``link_error`` for all that
            a chain has, and for the body of a chord.
        :returns: the result of the last task, with those of the steps before as ``parent``;
            for a group a :class:`~chervil.resultsets.GroupResult`.
        :raises BrokerUnavailable: nothing was stored.
        :raises PublishError: some messages were not; it names them.
        """
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        result = sending.send(app, self, tuple(args or ()), kwargs or {}, options)
        return cast("AsyncResult[R]", result)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """Send it, with arguments for what runs first."""
        return self.apply_async(partial_args, partial_kwargs)

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """:meth:`apply_async` for coroutines."""
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        result = await sending.asend(app, self, tuple(args or ()), kwargs or {}, options)
        return cast("AsyncResult[R]", result)

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> AsyncResult[R]:
        """:meth:`delay` for coroutines."""
        return await self.aapply_async(partial_args, partial_kwargs)

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """The same as :meth:`delay`."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Run it here and now."""
        raise NotImplementedError

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Mapping[str, Any] | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix the ids of all tasks in it, in place; the result that there will be.

        Chains in it are flattened, and groups with something behind them become chords.
        """
        frozen, node = Freezer(new_id, self.app.address).freeze(
            self,
            task_id=_id,
            group_id=group_id,
            group_index=group_index,
            chord=chord,
            root_id=root_id,
            parent_id=parent_id,
        )
        self._take(frozen)
        return self.app.result_of(node)

    _freeze = freeze

    def _take(self, frozen: Mapping[str, Any]) -> None:
        """Become what was frozen."""
        self["options"] = frozen["options"]
        if kind_of(frozen) == self.kind:
            names = [name for name in ("tasks", "header", "body") if name in frozen["kwargs"]]
            for name in names:
                self["kwargs"][name] = self._read(frozen["kwargs"][name])

    # --- its parts

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Chervil | None = None) -> Any:
        """The composite that a dict describes; the dicts in it become signatures."""
        if isinstance(d, cls):
            return d
        made = cls.__new__(cls)
        dict.__init__(made, d)
        made._app = app
        kwargs = dict(made.get("kwargs") or {})
        for name in ("tasks", "header", "body"):
            if name in kwargs:
                kwargs[name] = made._read(kwargs[name])
        made.update(
            args=made.get("args") or (), kwargs=kwargs, options=dict(made.get("options") or {})
        )
        made.setdefault("subtask_type", cls.kind)
        made.setdefault("immutable", False)
        return made

    def _read(self, value: Any) -> Any:
        """Dicts in it as signatures; a list of them as a list."""
        if isinstance(value, (list, tuple)):
            return [self._read(item) for item in value]
        if isinstance(value, Signature):
            return value
        if isinstance(value, Mapping):
            return Signature.from_dict(value, app=self._app)
        return value

    def clone(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """A copy, its parts too; arguments and options as in ``Signature.clone``."""
        copied = super().clone(args, kwargs, **options)
        inner = copied["kwargs"]
        for name in ("tasks", "header", "body"):
            if name in inner:
                inner[name] = self._cloned(inner[name])
        return copied

    def _cloned(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._cloned(item) for item in value]
        return value.clone() if isinstance(value, Signature) else self._read(value)

    def _like_me(self, kwargs: Mapping[str, Any]) -> Self:
        """A copy with other parts."""
        return self._like({**self, "kwargs": {**self["kwargs"], **kwargs}})

    @property
    def app(self) -> Chervil:
        """The app that sends it: its own, or the first that a part has."""
        if self._app is None:
            self._app = app_of(self) or current_app()
        return self._app


def app_of(sig: Sig) -> Chervil | None:
    """The app that a signature belongs to, or the first of its parts."""
    if isinstance(sig, Signature):
        if sig._app is not None:
            return sig._app
        if sig._type is not None:
            return sig._type.app
    kwargs = sig.get("kwargs") or {}
    if kind_of(sig) is None:
        return None
    for name in ("tasks", "header", "body", "task"):
        value = kwargs.get(name)
        for part in value if isinstance(value, (list, tuple)) else [value]:
            app = app_of(part) if isinstance(part, Mapping) else None
            if app is not None:
                return app
    return None
