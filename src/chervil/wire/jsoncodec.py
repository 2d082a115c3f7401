"""JSON as Celery writes it: plain JSON plus marked objects for some Python types.

A value that JSON has no form for travels as an object with exactly the two keys
``__type__`` and ``__value__`` (source: celery/kombu ``kombu/utils/json.py``).
Non-finite floats travel as ``NaN`` and ``Infinity``, strings with lone surrogates
as escapes, and integers in any size up to Python's digit limit.

Two implementations stand behind each function. msgspec is many times faster but
writes dates, UUIDs, decimals and bytes without markers and refuses subclasses, so
it only gets values for which both would say the same; all else goes through the
``json`` module of the standard library.
"""

from __future__ import annotations

import base64
import datetime as _dt
import decimal
import json
import math
import sys
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from chervil.exceptions import DecodeError, EncodeError
from chervil.wire.saferepr import saferepr, safestr

_NoneType: Final = type(None)
#: Types (exactly these, no subclasses) that both implementations write alike.
ATOMS: Final = frozenset({str, int, bool, _NoneType})
_STR: Final = frozenset({str})
#: Nesting up to which a value is looked through for the fast path.
_DEPTH: Final = 8
#: Values on one level above which it is not (it might contain itself many times).
_MANY: Final = 500_000

fast_encode: Final = msgspec.json.Encoder().encode
fast_decode: Final[Callable[[bytes | str], Any]] = msgspec.json.Decoder().decode


def is_plain(value: Any) -> bool:
    """Whether msgspec writes this value as the typed encoder would.

    True needs exact built-in types all the way down, string keys and finite floats.
    """
    kind = type(value)
    if kind is list or kind is tuple:
        return ATOMS.issuperset(map(type, value)) or _are_plain(value)
    if kind is dict:
        return _STR.issuperset(map(type, value)) and (
            ATOMS.issuperset(map(type, value.values())) or _are_plain(value.values())
        )
    return kind in ATOMS or (kind is float and math.isfinite(value))


def _are_plain(items: Iterable[Any]) -> bool:
    """The same for several values, level by level, which is fast for many of them."""
    for _ in range(_DEPTH):
        inner: list[Any] = []
        for item in items:
            kind = type(item)
            if kind in ATOMS:
                continue
            if kind is float:
                if not math.isfinite(item):
                    return False
            elif kind is dict:
                if item:
                    if not _STR.issuperset(map(type, item)):
                        return False
                    inner += item.values()
            elif kind is list or kind is tuple:
                inner += item
            else:
                return False
        if ATOMS.issuperset(map(type, inner)):
            return True
        if len(inner) > _MANY:
            return False
        items = inner
    return False


def dumps(value: Any) -> bytes:
    """Encode as typed JSON.

    :raises EncodeError: the value, or something in it, has no JSON form.
    """
    if is_plain(value):
        try:
            return fast_encode(value)
        except (ValueError, TypeError, RecursionError):
            pass  # Lone surrogates: the other encoder writes them as escapes.
    try:
        return _typed_encode(value).encode("ascii")
    except EncodeError:
        raise
    except Exception as exc:
        raise EncodeError(f"json cannot serialize {saferepr(value, 200)}: {safestr(exc)}") from exc


def loads(data: bytes | str) -> Any:
    """Decode typed JSON.

    A marker that is itself written with escapes (``"\\u005f..."``) is not looked for.

    :raises DecodeError: it is not JSON, or a marker is unknown or has a wrong value.
    """
    marked = "__type__" in data if isinstance(data, str) else data.find(b"__type__") >= 0
    if not marked:
        try:
            return fast_decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # NaN, lone surrogates and the like, or an error to be told in detail.
    try:
        return _typed_decode(data if isinstance(data, str) else data.decode("utf-8"))
    except DecodeError:
        raise
    except Exception as exc:
        shown = data[:80]
        raise DecodeError(f"not valid JSON: {safestr(exc)}; it starts with {shown!r}") from exc


# --- types with markers ---------------------------------------------------------

_encoders: dict[type, tuple[str | None, Callable[[Any], Any]]] = {}
_decoders: dict[str, Callable[[Any], Any]] = {}


def register_type(
    cls: type,
    marker: str | None,
    encoder: Callable[[Any], Any],
    decoder: Callable[[Any], Any] | None = None,
) -> None:
    """Teach typed JSON a type; instances of subclasses are included.

    Every process that reads such values has to register the same marker.

    :param marker: name on the wire; None writes what ``encoder`` returns unmarked.
    :param encoder: turns an instance into something that JSON has a form for.
    :param decoder: turns that back into an instance; needed with a marker.
    """
    if marker is not None:
        if decoder is None:
            raise EncodeError(f"register_type({cls.__name__}, {marker!r}): a decoder is needed")
        _decoders[marker] = decoder
    _encoders[cls] = (marker, encoder)


def unregister_type(cls: type) -> None:
    """Undo :func:`register_type`; unknown types are ignored."""
    marker, _ = _encoders.pop(cls, (None, None))
    if marker is not None:
        _decoders.pop(marker, None)


def _default(value: Any) -> Any:
    """What the standard encoder calls for everything that it does not know."""
    reducer = getattr(value, "__json__", None)
    if reducer is not None:
        return reducer()
    if type(value) is bytes:
        return _mark_bytes(value)
    for cls, (marker, encoder) in _encoders.items():
        if isinstance(value, cls):
            inner = encoder(value)
            return inner if marker is None else {"__type__": marker, "__value__": inner}
    if isinstance(value, bytes):
        return _mark_bytes(value)
    if _is_lazy_text(value):
        return str(value)
    kind = type(value)
    raise EncodeError(
        f"json cannot serialize {saferepr(value, 200)} of type {kind.__module__}."
        f"{kind.__qualname__}; convert it, give its class a __json__ method, teach its type "
        "with register_type(), or choose another serializer"
    )


def _mark_bytes(value: bytes) -> dict[str, str]:
    try:
        return {"__type__": "bytes", "__value__": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"__type__": "base64", "__value__": base64.b64encode(value).decode("ascii")}


def _is_lazy_text(value: Any) -> bool:
    functional = sys.modules.get("django.utils.functional")
    return functional is not None and isinstance(value, functional.Promise)


def _object_hook(found: dict[str, Any]) -> Any:
    if len(found) != 2 or "__type__" not in found or "__value__" not in found:
        return found
    marker, value = found["__type__"], found["__value__"]
    decoder = _decoders.get(marker) if isinstance(marker, str) else None
    if decoder is None:
        raise DecodeError(
            f"JSON with the type marker {saferepr(marker, 80)}, which is not known here; "
            "teach it with register_type()"
        )
    try:
        return decoder(value)
    except Exception as exc:
        raise DecodeError(
            f"JSON with the type marker {marker!r} and a value that does not fit it, "
            f"{saferepr(value, 80)}: {safestr(exc)}"
        ) from exc


def _uuid_from(value: Any) -> uuid.UUID:
    return uuid.UUID(**value) if isinstance(value, dict) else uuid.UUID(value)


_typed_encode: Final = json.JSONEncoder(default=_default, separators=(",", ":")).encode
_typed_decode: Final = json.JSONDecoder(object_hook=_object_hook).decode

# The order matters: a datetime is also a date.
register_type(_dt.datetime, "datetime", _dt.datetime.isoformat, _dt.datetime.fromisoformat)
register_type(
    _dt.date, "date", _dt.date.isoformat, lambda text: _dt.datetime.fromisoformat(text).date()
)
register_type(_dt.time, "time", _dt.time.isoformat, _dt.time.fromisoformat)
register_type(decimal.Decimal, "decimal", str, decimal.Decimal)
register_type(uuid.UUID, "uuid", lambda value: {"hex": value.hex}, _uuid_from)
_decoders["bytes"] = lambda text: text.encode("utf-8")
_decoders["base64"] = lambda text: base64.b64decode(text.encode("ascii"))
