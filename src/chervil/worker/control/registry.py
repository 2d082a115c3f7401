"""The commands that nodes know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import msgspec

F = TypeVar("F", bound=Callable[..., Any])


class Command(msgspec.Struct, frozen=True):
    """A command, and how the command line takes it."""

    name: str
    #: Called with the state and the arguments by name; what it returns is the reply.
    handler: Callable[..., Any]
    #: ``inspect``: only looks; ``control``: changes something.
    kind: str
    #: Arguments on the command line and their types.
    args: Sequence[tuple[str, Callable[[str], Any]]] = ()
    #: The argument that takes all that is left over there.
    variadic: str | None = None
    signature: str = ""
    help: str = ""
    #: Seconds that clients wait for the reply.
    default_timeout: float = 1.0
    #: Listed by ``--help``.
    visible: bool = True


class Panel:
    """All commands by name; aliases have the same command."""

    commands: dict[str, Command] = {}

    @classmethod
    def register(cls, handler: F, kind: str, alias: str | None = None, **options: Any) -> F:
        """Add a command under the function's name."""
        name = options.pop("name", None) or getattr(handler, "__name__", "")
        text = (handler.__doc__ or "").strip().partition("\n")[0]
        options.setdefault("help", text)
        known = {field: options[field] for field in Command.__struct_fields__ if field in options}
        command = Command(name=name, handler=handler, kind=kind, **known)
        cls.commands[name] = command
        if alias:
            cls.commands[alias] = command
        return handler


@overload
def control_command(fun: F) -> F: ...
@overload
def control_command(fun: None = None, **options: Any) -> Callable[[F], F]: ...
def control_command(fun: Any = None, **options: Any) -> Any:
    """Make a command of a function that changes something; options as in Celery:
    ``name``, ``alias``, ``args``, ``variadic``, ``signature``, ``help``, ``default_timeout``."""
    return _decorate(fun, "control", options)


@overload
def inspect_command(fun: F) -> F: ...
@overload
def inspect_command(fun: None = None, **options: Any) -> Callable[[F], F]: ...
def inspect_command(fun: Any = None, **options: Any) -> Any:
    """Make a command of a function that only looks; options as for
    :func:`control_command`."""
    return _decorate(fun, "inspect", options)


def _decorate(fun: Any, kind: str, options: dict[str, Any]) -> Any:
    if fun is not None:
        return Panel.register(fun, kind, **options)
    return lambda fun: Panel.register(fun, kind, **options)


def ok(value: str) -> dict[str, str]:
    """A reply that says that something was done."""
    return {"ok": value}


def nok(value: str) -> dict[str, str]:
    """A reply that says why something was not done."""
    return {"error": value}
