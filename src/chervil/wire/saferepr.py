"""Texts of values for logs and message headers: bounded in length, never raising."""

from __future__ import annotations

from typing import Any, Final

#: Containers below this depth are shown as ``...``.
_LEVELS: Final = 4
#: Longer containers do not take the short way, so that its cost stays bounded.
_FEW: Final = 32
_SMALL_INT: Final = 1 << 64
_CLOSED: Final = frozenset({bool, float, type(None)})
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}


def saferepr(value: Any, limit: int = 1024) -> str:
    """Describe a value as Python source would, in about ``limit`` characters.

    Long strings and containers are cut with ``...``; objects whose ``__repr__``
    raises are named by their class.

    :param limit: characters, before the closing quotes and brackets are added.
    """
    try:
        if _is_short(value, limit):
            text = repr(value)
            return text if len(text) <= limit else text[: limit - 3] + "..."
        out: list[str] = []
        _describe(value, out, limit, 0)
        return "".join(out)
    except Exception:
        # A container that another thread changes, or a class that lies about itself.
        return f"<{type(value).__qualname__}>"


def safestr(exc: BaseException) -> str:
    """The text of an exception, also when its ``__str__`` or an argument's ``repr`` raises."""
    try:
        return str(exc)
    except Exception:
        return type(exc).__name__


def _is_short(value: Any, limit: int) -> bool:
    """Whether plain ``repr`` is harmless: few items, all of them small."""
    kind = type(value)
    if kind is dict:
        return (
            len(value) <= _FEW
            and _are_small(value.keys(), limit)
            and _are_small(value.values(), limit)
        )
    if kind is tuple or kind is list:
        return len(value) <= _FEW and _are_small(value, limit)
    return _are_small((value,), limit)


def _are_small(items: Any, limit: int) -> bool:
    for item in items:
        kind = type(item)
        if kind is str or kind is bytes:
            if len(item) > limit:
                return False
        elif kind is int:
            if not -_SMALL_INT < item < _SMALL_INT:
                return False
        elif kind not in _CLOSED:
            return False
    return True


def _describe(value: Any, out: list[str], room: int, level: int) -> int:
    """Append the text of ``value``; returns the room that is left."""
    kind = type(value)
    if kind is str or kind is bytes:
        text = _text_of_string(value, room)
    elif kind in _BRACKETS:
        if level >= _LEVELS and value:
            opening, closing = _BRACKETS[kind]
            text = f"{opening}...{closing}"
        else:
            return _describe_items(value, out, room, level)
    else:
        text = _text_of_object(value, room)
    out.append(text)
    return room - len(text)


def _text_of_string(value: str | bytes, room: int) -> str:
    if len(value) <= room:
        text = repr(value)
        if len(text) <= room + 2:
            return text
    room = max(room, 0)
    return repr(value[:room] + "..." if isinstance(value, str) else value[:room] + b"...")


def _text_of_object(value: Any, room: int) -> str:
    try:
        text = repr(value)
    except Exception as exc:
        cls = type(value)
        text = f"<{cls.__module__}.{cls.__qualname__} object, repr() raised {type(exc).__name__}>"
    return text if len(text) <= room else text[: max(room, 0)] + "..."


def _describe_items(value: Any, out: list[str], room: int, level: int) -> int:
    opening, closing = _BRACKETS[type(value)]
    if not value:
        text = repr(value)
        out.append(text)
        return room - len(text)
    out.append(opening)
    room -= len(opening)
    is_dict = type(value) is dict
    for position, item in enumerate(value.items() if is_dict else value):
        if position:
            out.append(", ")
            room -= 2
        if room <= 0:
            out.append("...")
            break
        if is_dict:
            room = _describe(item[0], out, room, level + 1)
            out.append(": ")
            room = _describe(item[1], out, room - 2, level + 1)
        else:
            room = _describe(item, out, room, level + 1)
    else:
        if type(value) is tuple and len(value) == 1:
            out.append(",")
    out.append(closing)
    return room - len(closing)
