"""A signature: which task to call with what, as a value that can be passed on.

It is a dict with the six keys that travel in messages, so a signature that came
out of a message is as good as one that was made here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from chervil.canvas.applying import Applying
from chervil.canvas.freezing import Freezer
from chervil.canvas.linking import Linking
from chervil.canvas.showing import Showing
from chervil.context import current_app
from chervil.exceptions import ImproperlyConfigured
from chervil.ids import new_id

if TYPE_CHECKING:
    from typing import Self

    from chervil.app import Chervil
    from chervil.canvas.primitives import chain
    from chervil.task import Task

R = TypeVar("R")
T = TypeVar("T")

#: Options that keep the value that the signature has, whatever is given when it is sent.
KEPT_OPTIONS = frozenset({"group_id", "stamped_headers"})

#: Subtask types and the classes that they are read back as.
_types: dict[str, type[Signature[Any]]] = {}

_S = TypeVar("_S", bound="type[Signature[Any]]")


def register_type(name: str | None = None) -> Callable[[_S], _S]:
    """Decorator: signatures with this ``subtask_type`` are read back as that class."""

    def register(cls: _S) -> _S:
        _types[name or cls.__name__] = cls
        return cls

    return register


class Signature(Linking, Showing, Applying[R], dict[str, Any]):
    """A task with arguments and options, not yet sent.

    :param task: a task, its name, or another signature, which is copied.
    :param args: positional arguments; more may be put before them when it is sent.
    :param kwargs: keyword arguments.
    :param options: of :meth:`~chervil.task.Task.apply_async`.
    :param immutable: nothing is added when it is sent, such as a parent's result.
    :param ex: more options.
    """

    _app: Chervil | None = None
    _type: Task[Any, Any] | None = None

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Task[Any, Any] | None = None,  # noqa: A002 - Celery's name
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Chervil | None = None,
        **ex: Any,
    ) -> None:
        self._app = app
        if isinstance(task, Mapping):
            super().__init__(task)
            return
        if task is not None and not isinstance(task, str):
            self._type = task
            task = getattr(task, "name", None)
            if not isinstance(task, str):
                raise ImproperlyConfigured(f"a signature needs a task or its name, not {task!r}")
        elif type is not None:
            self._type = type
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **ex},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[_S], _S]:
        """Decorator: signatures with this ``subtask_type`` are read back as the class.

        :param name: the class's own name when not given.
        """
        return register_type(name)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Chervil | None = None) -> Signature[Any]:
        """The signature that a dict describes, of the class for its ``subtask_type``."""
        kind = d.get("subtask_type")
        if kind:
            target = _types.get(kind)
            if target is None:
                raise ImproperlyConfigured(f"no signature class for subtask_type {kind!r}")
            if target is not cls:
                return target.from_dict(d, app=app)
        signature: Signature[Any] = Signature(d, app=app)
        # A message may leave some out.
        for key, default in (("args", ()), ("kwargs", {}), ("options", {})):
            if signature.get(key) is None:
                signature[key] = default
        signature.setdefault("subtask_type", None)
        signature.setdefault("immutable", False)
        return signature

    # --- merging

    def _merged(
        self,
        args: Iterable[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        force: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Arguments and options with more of them added."""
        own: dict[str, Any] = self["options"]
        merged = dict(own)
        for key, value in options.items():
            if value is not None and not (key in KEPT_OPTIONS and key in own):
                merged[key] = value
        if self["immutable"] and not force:
            return tuple(self["args"]), dict(self["kwargs"]), merged
        return (
            (*(args or ()), *self["args"]),
            {**self["kwargs"], **(kwargs or {})},
            merged,
        )

    # --- changing

    def clone(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """A copy, with more arguments before those that it has, and more options."""
        new_args, new_kwargs, new_options = self._merged(args, kwargs, options)
        copied = self._like(dict(self))
        copied.update(
            args=new_args, kwargs=new_kwargs, options=copy.deepcopy(new_options, {id(self): copied})
        )
        return copied

    partial = clone

    def replace(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """A copy with these arguments and options instead of its own, where given."""
        copied = self.clone()
        if args is not None:
            copied["args"] = tuple(args)
        if kwargs is not None:
            copied["kwargs"] = dict(kwargs)
        if options is not None:
            copied["options"] = dict(options)
        return copied

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Set options, in place."""
        if immutable is not None:
            self.set_immutable(immutable)
        self["options"].update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether more arguments are ignored."""
        self["immutable"] = immutable

    # --- becoming a part of something

    if TYPE_CHECKING:

        def __or__(self, other: Signature[T]) -> chain[T]:  # type: ignore[override]
            """A chain: the other one is sent with the result of this one."""

        def __ror__(self, other: Signature[Any]) -> chain[R]: ...  # type: ignore[override]

        def __ior__(self, other: Signature[T]) -> chain[T]: ...  # type: ignore[override]

    else:

        def __or__(self, other):
            return self._followed_by(other)

        def __ror__(self, other):
            return self.as_signature(other)._followed_by(self)

        __ior__ = __or__  # not dict's, which would merge the two

    def _followed_by(self, other: Any) -> Signature[Any]:
        """``self | other``; the composite classes have rules of their own."""
        return cast("Signature[Any]", _types["chain"]._joined(self, self.as_signature(other)))

    @classmethod
    def _joined(cls, first: Any, other: Any) -> Any:
        raise NotImplementedError

    def as_signature(self, other: Any) -> Signature[Any]:
        """What ``|`` may take: a signature, or a dict like one.

        :raises TypeError: it is neither.
        """
        if isinstance(other, Signature):
            return other
        if isinstance(other, Mapping) and "task" in other:
            return Signature.from_dict(other, app=self._app)
        hint = f"; write {other.name}.s(...)" if callable(getattr(other, "s", None)) else ""
        raise TypeError(f"a signature can be combined with another one, not {other!r:.100}{hint}")

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Mapping[str, Any] | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix the ids under which it will run, in place; the result that there will be.

        :param _id: use this id, unless it has one.
        :param group_id: id of the group that it is a member of.
        :param chord: the body of the chord whose header it is a part of.
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
        self.update(frozen)
        return self.app.result_of(node)

    _freeze = freeze

    # --- what it is

    @property
    def app(self) -> Chervil:
        """The app that sends it."""
        if self._app is None:
            self._app = self._type.app if self._type is not None else current_app()
        return self._app

    def _task(self) -> Task[Any, Any] | None:
        """The task, when it is registered here."""
        if self._type is None:
            self._type = self.app.tasks.get(self["task"])
        return self._type

    @property
    def type(self) -> Task[Any, Any]:
        """The task.

        :raises NotRegistered: it is not registered here.
        """
        task = self._task()
        return self.app.tasks[self["task"]] if task is None else task

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self["task"])

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self["task"])

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return tuple(self["args"])

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        return cast("dict[str, Any]", self["kwargs"])

    @property
    def options(self) -> dict[str, Any]:
        """Options of ``apply_async``."""
        return cast("dict[str, Any]", self["options"])

    @property
    def subtask_type(self) -> str | None:
        """The kind of workflow, or None for a single task."""
        return cast("str | None", self["subtask_type"])

    @property
    def immutable(self) -> bool:
        """Whether more arguments are ignored."""
        return bool(self["immutable"])

    @property
    def id(self) -> str | None:
        """The id it will be sent with, if one was set."""
        return cast("str | None", self["options"].get("task_id"))

    def _like(self, content: Mapping[str, Any]) -> Self:
        new = self.__class__.__new__(self.__class__)
        dict.__init__(new, content)
        new._app, new._type = self._app, self._type
        return new

    def __copy__(self) -> Self:
        return self._like(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = self._like({})
        memo[id(self)] = new
        new.update({key: copy.deepcopy(value, memo) for key, value in self.items()})
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (dict(self),)

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """The call as text: ``add(2, 3, key='x')``."""
        all_args, all_kwargs, _ = self._merged(args, kwargs, {}, force=True)
        shown = [repr(arg) for arg in all_args]
        shown += [f"{key}={value!r}" for key, value in all_kwargs.items()]
        return f"{self['task']}({', '.join(shown)})"

    def __repr__(self) -> str:
        return self.reprcall()


def _restored(content: dict[str, Any]) -> Signature[Any]:
    return Signature.from_dict(content)


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature[Any]:
    """Make a signature, from the parameters of :class:`Signature`.

    :param varies: a task or its name; or a signature (a copy of it is returned) or a
        dict like one.
    """
    if isinstance(varies, Mapping):
        if isinstance(varies, Signature):
            return varies.clone()
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


def maybe_signature(d: Any, app: Chervil | None = None, clone: bool = False) -> Any:
    """A dict as a signature; a signature, or anything else, as it is.

    :param clone: copy it when it is a signature already.
    """
    if isinstance(d, Signature):
        if clone:
            d = d.clone()
    elif isinstance(d, Mapping):
        d = Signature.from_dict(d, app=app)
    if app is not None and isinstance(d, Signature):
        d._app = app
    return d


def type_of(name: str) -> Any:
    """The class for a ``subtask_type``."""
    return _types[name]


#: Celery's old name.
subtask = signature
maybe_subtask = maybe_signature
