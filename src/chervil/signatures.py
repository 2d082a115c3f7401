"""Looking at functions: may a task be called like this?"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any

_VARARGS, _VARKEYWORDS = 0x04, 0x08  # inspect.CO_VARARGS, inspect.CO_VARKEYWORDS


def _template() -> None:
    return None


def call_checker(fun: Callable[..., Any], skip_first: bool = False) -> Callable[..., Any]:
    """A function with the parameters of ``fun`` that does nothing.

    Calling it raises the TypeError that ``fun`` would raise for these arguments,
    at the cost of an empty call.

    :param skip_first: leave out the first parameter, ``self``.
    """
    if isinstance(fun, MethodType):
        return call_checker(fun.__func__, skip_first=True)
    if not isinstance(fun, FunctionType):
        return _slow_checker(fun)
    code = fun.__code__
    first = 1 if skip_first else 0
    if skip_first and not code.co_argcount:
        if not code.co_flags & _VARARGS:
            raise TypeError(
                f"{fun.__qualname__}() takes no arguments, but bind=True passes it the task as "
                "the first one: add a parameter 'self'"
            )
        first = 0  # *args takes the task
    names = code.co_varnames[first : _parameters(code)]
    empty = _template.__code__.replace(
        co_argcount=code.co_argcount - first,
        co_posonlyargcount=max(0, code.co_posonlyargcount - first),
        co_kwonlyargcount=code.co_kwonlyargcount,
        co_nlocals=len(names),
        co_varnames=names,
        co_flags=_template.__code__.co_flags | (code.co_flags & (_VARARGS | _VARKEYWORDS)),
        co_name=fun.__name__,
        co_qualname=fun.__name__,
    )
    defaults = fun.__defaults__
    if defaults is not None and len(defaults) > code.co_argcount - first:
        defaults = defaults[first:]
    checker = FunctionType(empty, {}, fun.__name__, defaults)
    checker.__kwdefaults__ = fun.__kwdefaults__
    return checker


def _parameters(code: CodeType) -> int:
    count = code.co_argcount + code.co_kwonlyargcount
    return count + bool(code.co_flags & _VARARGS) + bool(code.co_flags & _VARKEYWORDS)


def _slow_checker(fun: Callable[..., Any]) -> Callable[..., Any]:
    import inspect  # for the few that are no plain functions

    try:
        signature = inspect.signature(fun)
    except (TypeError, ValueError):  # some builtins say nothing about themselves
        return lambda *args, **kwargs: None
    return signature.bind


def takes_anything(fun: Callable[..., Any]) -> bool:
    """Whether every call is right, so that checking is of no use."""
    code = getattr(fun, "__code__", None)
    return (
        isinstance(code, CodeType)
        and not code.co_argcount
        and not code.co_kwonlyargcount
        and bool(code.co_flags & _VARARGS)
        and bool(code.co_flags & _VARKEYWORDS)
    )


def positional_count(fun: Callable[..., Any], skip_first: bool = False) -> float:
    """How many positional arguments it takes at most; infinity with ``*args``."""
    code = getattr(getattr(fun, "__func__", fun), "__code__", None)
    if not isinstance(code, CodeType):
        return 0
    if code.co_flags & _VARARGS:
        return float("inf")
    return code.co_argcount - (skip_first or isinstance(fun, MethodType))


def signature_text(fun: Callable[..., Any], skip_first: bool = False) -> str:
    """The parameters of a function as source text: ``(x: int, y: int = 2)``."""
    import inspect

    try:
        signature = inspect.signature(fun, eval_str=True)
    except Exception:  # an annotation that cannot be evaluated here
        try:
            signature = inspect.signature(fun)
        except (TypeError, ValueError):
            return "(...)"
    if skip_first:
        parameters = list(signature.parameters.values())
        if parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            signature = signature.replace(parameters=parameters[1:])
    return str(signature)


def is_coroutine_function(fun: Any) -> bool:
    """Whether calling it gives a coroutine; decorated functions are looked through."""
    while hasattr(fun, "__wrapped__") and not _has_coroutine_flag(fun):
        fun = fun.__wrapped__
    return _has_coroutine_flag(fun)


def _has_coroutine_flag(fun: Any) -> bool:
    code = getattr(getattr(fun, "__func__", fun), "__code__", None)
    return isinstance(code, CodeType) and bool(code.co_flags & 0x80)  # inspect.CO_COROUTINE
