"""``pydantic=True``: arguments and results validated from a function's annotations.

On the way to the worker, models are dumped, because messages carry plain values;
in the worker every annotated argument is validated, which makes models of them
again. A result is validated against the return annotation and dumped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from chervil.exceptions import ImproperlyConfigured, MissingDependency, ValidationError
from chervil.signatures import is_coroutine_function

if TYPE_CHECKING:
    from inspect import Signature


class Models:
    """What a function's annotations say about its arguments and its result.

    :param fun: the function; its annotations are read at the first call, when all
        names in them are defined.
    :param strict: pydantic's strict mode: no conversions.
    :param context: for validators, as ``info.context``.
    :param dump_kwargs: for ``model_dump``; ``mode`` is ``"json"`` unless it says so.
    :raises MissingDependency: pydantic is not installed.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        strict: bool = False,
        context: Mapping[str, Any] | None = None,
        dump_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            import pydantic
        except ModuleNotFoundError as exc:
            raise MissingDependency(
                "pydantic=True needs pydantic, which is not installed: "
                "pip install 'chervil[pydantic]'"
            ) from exc
        self._pydantic = pydantic
        self._fun = fun
        self._strict = strict
        self._context = dict(context or {})
        self._dump_kwargs = {"mode": "json", **(dump_kwargs or {})}

    @functools.cached_property
    def _signature(self) -> Signature:
        import inspect

        return inspect.signature(self._fun)

    @functools.cached_property
    def _adapters(self) -> dict[str, Any]:
        """Validators by the name of the parameter, ``return`` for the result."""
        from typing import get_type_hints

        try:
            hints = get_type_hints(self._fun, include_extras=True)
        except NameError as exc:
            raise ImproperlyConfigured(
                f"pydantic=True: the annotations of {self._fun.__qualname__} cannot be read: {exc}"
            ) from exc
        return {name: self._adapter(hint) for name, hint in hints.items() if hint is not Any}

    def _adapter(self, hint: Any) -> Any:
        pydantic = self._pydantic
        try:
            return pydantic.TypeAdapter(hint)
        except pydantic.errors.PydanticSchemaGenerationError:
            config = pydantic.ConfigDict(arbitrary_types_allowed=True)
            return pydantic.TypeAdapter(hint, config=config)

    def arguments(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Validated arguments.

        :raises ValidationError: one is not what its annotation says.
        """
        bound = self._signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            adapter = self._adapters.get(name)
            if adapter is None:
                continue
            kind = self._signature.parameters[name].kind
            what = f"argument {name!r}"
            if kind is kind.VAR_POSITIONAL:
                bound.arguments[name] = tuple(self._validate(adapter, v, what) for v in value)
            elif kind is kind.VAR_KEYWORD:
                bound.arguments[name] = {
                    k: self._validate(adapter, v, f"argument {k!r}") for k, v in value.items()
                }
            else:
                bound.arguments[name] = self._validate(adapter, value, what)
        return bound.args, bound.kwargs

    def outgoing(
        self, first: tuple[Any, ...], args: Any, kwargs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments as they travel, if the worker will not refuse them.

        :param first: what comes before ``args`` when it is called: the task, or nothing.
        :raises ValidationError: one is not what its annotation says.
        """
        try:
            self._signature.bind(*first, *args, **kwargs)
        except TypeError:
            pass  # with typing=False it is the worker that finds out
        else:
            self.arguments((*first, *args), kwargs)
        return (
            tuple(self.dump(value) for value in args),
            {key: self.dump(value) for key, value in kwargs.items()},
        )

    def _validate(self, adapter: Any, value: Any, what: str) -> Any:
        try:
            return adapter.validate_python(value, strict=self._strict, context=self._context)
        except self._pydantic.ValidationError as exc:
            raise ValidationError(f"{self._fun.__name__}: {what}: {exc}") from exc

    def result(self, value: Any) -> Any:
        """A validated result, dumped.

        :raises ValidationError: it is not what the return annotation says.
        """
        adapter = self._adapters.get("return")
        if adapter is not None:
            value = self._validate(adapter, value, "result")
        return self.dump(value)

    def dump(self, value: Any) -> Any:
        """The value with plain values in place of models, also inside of containers."""
        if isinstance(value, self._pydantic.BaseModel):
            return value.model_dump(**self._dump_kwargs)
        if isinstance(value, dict):
            dumped = {key: self.dump(item) for key, item in value.items()}
            return dumped if any(dumped[key] is not value[key] for key in value) else value
        if isinstance(value, (list, tuple, set, frozenset)) and not hasattr(value, "_fields"):
            items = [self.dump(item) for item in value]
            changed = any(new is not old for new, old in zip(items, value, strict=True))
            return items if changed else value
        return value

    def wrap(self) -> Callable[..., Any]:
        """The function, with its arguments and result validated."""
        fun = self._fun
        if is_coroutine_function(fun):

            @functools.wraps(fun)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                args, kwargs = self.arguments(args, kwargs)
                return self.result(await fun(*args, **kwargs))

            return run_async

        @functools.wraps(fun)
        def run(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = self.arguments(args, kwargs)
            return self.result(fun(*args, **kwargs))

        return run
