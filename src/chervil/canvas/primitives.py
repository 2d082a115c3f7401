"""The building blocks: chain, group, chord, chunks and maps, with Celery's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from chervil.canvas import eager
from chervil.canvas.composite import Composite
from chervil.canvas.folding import extended, folded, is_several, spread_out, unrolled
from chervil.canvas.shape import CHAIN, CHORD, CHUNKS, GROUP, kind_of, parts_of, spread
from chervil.canvas.signature import Signature, maybe_signature, register_type
from chervil.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.result import AsyncResult
    from chervil.resultsets import GroupResult

R = TypeVar("R")
T = TypeVar("T")
_S = Signature[Any]


@register_type(CHAIN)
class chain(Composite[R]):
    """Tasks one after the other; each gets the result of the one before as first argument.

    ``chain(a, b, c)`` is ``a | b | c``. A group with a task behind it becomes a chord.

    :param tasks: signatures, or one iterable of them.
    :param options: of :meth:`~chervil.canvas.composite.Composite.apply_async`.
    """

    kind = CHAIN

    if not TYPE_CHECKING:

        def __new__(cls, *tasks, **options):
            if not options and tasks and (len(tasks) > 1 or is_several(tasks[0])):
                whole = folded(cls, tasks[0] if len(tasks) == 1 else tasks)
                if cls is chain or isinstance(whole, cls):
                    return whole
            return super().__new__(cls)

    @overload
    def __init__(self, a: Signature[R], /) -> None: ...
    @overload
    def __init__(self, a: _S, b: Signature[R], /) -> None: ...
    @overload
    def __init__(self, a: _S, b: _S, c: Signature[R], /) -> None: ...
    @overload
    def __init__(self, a: _S, b: _S, c: _S, d: Signature[R], /) -> None: ...
    @overload
    def __init__(self: chain[Any], *tasks: Any, **options: Any) -> None: ...

    def __init__(self, *tasks: Any, **options: Any) -> None:
        if self:  # made by __new__
            return
        several = tasks[0] if len(tasks) == 1 and is_several(tasks[0]) else tasks
        app = options.pop("app", None)
        super().__init__(
            "celery.chain",
            (),
            {"tasks": [maybe_signature(task, app) for task in several]},
            options,
            subtask_type=CHAIN,
            app=app,
        )

    @classmethod
    def _of(cls, tasks: list[Any], app: Chervil | None = None) -> chain[Any]:
        made = super().__new__(cls)
        Signature.__init__(
            made, "celery.chain", (), {"tasks": tasks}, {}, subtask_type=CHAIN, app=app
        )
        return made

    @classmethod
    def _joined(cls, first: _S, other: _S) -> Any:
        steps = [first]
        if isinstance(other, chain):
            return cls._of(steps + spread_out(other), first._app)
        return cls._of([*steps, unrolled(other)], first._app)

    def _followed_by(self, other: Any) -> Any:
        return extended(self, self.as_signature(other))

    @property
    def tasks(self) -> list[_S]:
        """The steps."""
        return cast("list[_S]", self["kwargs"]["tasks"])

    @tasks.setter
    def tasks(self, tasks: Iterable[_S]) -> None:
        self["kwargs"]["tasks"] = list(tasks)

    def unchain_tasks(self) -> list[_S]:
        """Copies of the steps, with what the chain itself has linked."""
        return [self.as_signature(task).clone() for task in spread(self)]

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Run the steps here and now."""
        return cast(
            "AsyncResult[R]", eager.chain(self, tuple(args or ()), dict(kwargs or {}), options)
        )

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks)) or "chain()"


@register_type(GROUP)
class group(Composite[R]):
    """Tasks side by side. Its result is the list of theirs.

    :param tasks: signatures, or one iterable of them.
    :param options: for each of them.
    """

    kind = GROUP

    def __init__(self, *tasks: Any, **options: Any) -> None:
        several: Any = tasks
        if len(tasks) == 1:
            several = tasks[0]
            if isinstance(several, Mapping):
                several = several["kwargs"]["tasks"] if kind_of(several) == GROUP else [several]
        app = options.pop("app", None)
        super().__init__(
            "celery.group",
            (),
            {"tasks": [maybe_signature(task, app) for task in several]},
            options,
            subtask_type=GROUP,
            app=app,
        )

    if TYPE_CHECKING:

        def __or__(self, other: Signature[T]) -> chord[T]:  # type: ignore[override]
            """A chord: the other one is sent with the list of the results."""

        def apply_async(  # type: ignore[override]
            self,
            args: Iterable[Any] | None = None,
            kwargs: Mapping[str, Any] | None = None,
            **options: Any,
        ) -> GroupResult[Any]: ...

        async def aapply_async(  # type: ignore[override]
            self,
            args: Iterable[Any] | None = None,
            kwargs: Mapping[str, Any] | None = None,
            **options: Any,
        ) -> GroupResult[Any]: ...

        async def adelay(  # type: ignore[override]
            self, *partial_args: Any, **partial_kwargs: Any
        ) -> GroupResult[Any]: ...

        def delay(  # type: ignore[override]
            self, *partial_args: Any, **partial_kwargs: Any
        ) -> GroupResult[Any]: ...

    def _followed_by(self, other: Any) -> Any:
        other = self.as_signature(other)
        if isinstance(other, group) and not len(other):
            return self
        return chord(self, other, app=self._app)

    @property
    def tasks(self) -> list[_S]:
        """The members."""
        return cast("list[_S]", self["kwargs"]["tasks"])

    @tasks.setter
    def tasks(self, tasks: Iterable[_S]) -> None:
        self["kwargs"]["tasks"] = list(tasks)

    def __len__(self) -> int:
        return len(self["kwargs"]["tasks"]) if "kwargs" in self else 0

    def __bool__(self) -> bool:
        return True

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group[R]:
        """Give the members growing countdowns, in seconds."""
        delay = start
        for task in self.tasks:
            task.set(countdown=delay)
            delay = delay + step if stop is None else min(delay + step, stop)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say for each member whether more arguments are ignored."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, callback: _S) -> _S:
        """Link to the first member, which does not give it its result.

        What is to get the results of all is a chord: ``group | callback``.
        """
        return self.tasks[0].link(callback.clone().set(immutable=True))

    def link_error(self, errback: _S) -> Any:
        """Link to each member."""
        return tuple(task.link_error(errback.clone()) for task in self.tasks)

    def apply(  # type: ignore[override]
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> GroupResult[Any]:
        """Run the members here and now."""
        return cast(
            "GroupResult[Any]", eager.group(self, tuple(args or ()), dict(kwargs or {}), options)
        )

    def __repr__(self) -> str:
        return f"group({', '.join(map(repr, self.tasks))})"


def _header(header: Any, app: Chervil | None) -> Any:
    """What a chord's header may be, as a group or a list of signatures."""
    if not isinstance(header, Mapping):
        return [maybe_signature(member, app) for member in header]
    kind = kind_of(header)
    if kind == CHUNKS:
        return group.from_dict(parts_of(header), app)
    if kind == CHAIN:
        return header["kwargs"]["tasks"]
    return header if kind == GROUP else [header]


@register_type(CHORD)
class chord(Composite[R]):
    """A group, the header, and a task that is sent with its results, the body.

    ``chord(header)(body)`` sends it, ``group | body`` makes it.

    :param header: signatures, an iterable of them, or a group.
    :param body: a signature; may be given when it is called.
    :param options: for all of its tasks.
    """

    kind = CHORD

    @overload
    def __init__(self, header: Any, body: Signature[R], **options: Any) -> None: ...
    @overload
    def __init__(
        self: chord[Any], header: Any, body: Mapping[str, Any] | None = None, **options: Any
    ) -> None: ...

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: Chervil | None = None,
        **options: Any,
    ) -> None:
        header = _header(maybe_signature(header, app), app)
        parts = {"header": header, "body": maybe_signature(body, app)}
        super().__init__(
            task,
            args,
            {**(kwargs or {"kwargs": {}}), **parts},
            options,
            subtask_type=CHORD,
            app=app,
        )

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body if one is given."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send it; ``kwargs`` may have the body."""
        whole, kwargs = self._completed(kwargs)
        return Composite.apply_async(whole, args, kwargs, **options)

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """:meth:`apply_async` for coroutines."""
        whole, kwargs = self._completed(kwargs)
        return await Composite.aapply_async(whole, args, kwargs, **options)

    def _completed(self, kwargs: Mapping[str, Any] | None) -> tuple[chord[R], dict[str, Any]]:
        given = dict(kwargs or {})
        body = given.pop("body", None)
        whole = self if body is None else self._like_me({"body": maybe_signature(body, self._app)})
        if whole.body is None:
            raise ImproperlyConfigured("a chord needs a body: chord(header)(body)")
        return whole, given

    def _followed_by(self, other: Any) -> Any:
        other = unrolled(self.as_signature(other))
        if isinstance(other, (group, chain)):
            return chain._joined(self, other)
        if self.body is None:
            raise ImproperlyConfigured("a chord needs a body before something can follow it")
        return self._like_me({"body": self.body | other})

    @property
    def tasks(self) -> Any:
        """The header: a group, or a list of signatures."""
        return self["kwargs"]["header"]

    @tasks.setter
    def tasks(self, header: Any) -> None:
        self["kwargs"]["header"] = header

    @property
    def body(self) -> Signature[R] | None:
        """The task that gets the results."""
        return cast("Signature[R] | None", self["kwargs"]["body"])

    @body.setter
    def body(self, body: Signature[R]) -> None:
        self["kwargs"]["body"] = body

    @property
    def members(self) -> list[_S]:
        """The tasks of the header as a list."""
        header = self["kwargs"]["header"]
        return cast("list[_S]", header["kwargs"]["tasks"] if isinstance(header, group) else header)

    def link(self, callback: _S) -> _S:
        """Link to the body."""
        if self.body is None:
            raise ImproperlyConfigured("a chord needs a body before something can be linked to it")
        self.body.link(callback)
        return callback

    def link_error(self, errback: _S) -> _S:
        """Link to the body, and to the header where ``task_allow_error_cb_on_chord_header``."""
        everywhere = self.app.conf.task_allow_error_cb_on_chord_header
        for task in self.members:
            if everywhere:
                task.link_error(errback.clone().set(immutable=True))
            elif isinstance(task, chord):
                task.link_error(errback)
        if self.body is not None:
            self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Say for each task of the header whether more arguments are ignored."""
        for task in self.members:
            task.set_immutable(immutable)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Run header and body here and now."""
        whole, kwargs = self._completed(kwargs)
        return cast("AsyncResult[R]", eager.chord(whole, tuple(args or ()), kwargs, options))

    def __repr__(self) -> str:
        return f"chord({self.members!r}, {self.body!r})"


#: Celery's names of the classes behind ``chain`` and ``chord``.
_chain, _chord = chain, chord
