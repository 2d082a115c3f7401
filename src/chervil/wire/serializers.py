"""The registry of serializers: names that users give, content types on the wire.

Names, content types and encodings are Celery's (source: celery/kombu
``kombu/serialization.py``). Reading is only done for content types that the caller
accepts, because pickle runs code.
"""

from __future__ import annotations

import codecs
import functools
import importlib
import io
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from chervil import exceptions
from chervil.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    MissingDependency,
)
from chervil.wire import jsoncodec
from chervil.wire.compression import MissingDecoder
from chervil.wire.jsoncodec import register_type, unregister_type
from chervil.wire.saferepr import saferepr, safestr

__all__ = [
    "Serializer",
    "accept_types",
    "dumps",
    "loads",
    "names",
    "register",
    "register_type",
    "unregister",
    "unregister_type",
]


class Serializer(msgspec.Struct, frozen=True):
    """One way to turn values into bytes and back."""

    name: str
    encode: Callable[[Any], bytes | str]
    decode: Callable[[bytes], Any]
    content_type: str
    content_encoding: str


_by_name: dict[str, Serializer] = {}
_by_type: dict[str, Serializer] = {}

#: Somebody has put an encoder of their own in the place of ``json``: callers must not
#: take short cuts past this registry.
json_replaced = False


def register(
    name: str,
    encoder: Callable[[Any], bytes | str],
    decoder: Callable[[bytes], Any],
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Add a serializer, or replace one.

    :param encoder: turns a value into bytes, or into text.
    :param decoder: gets the bytes back and returns an equal value.
    :param content_type: what stands in the message, for example ``application/x-my``.
    :param content_encoding: character set of the text, ``binary`` when it is none.
    """
    global json_replaced
    serializer = Serializer(name, encoder, decoder, content_type, content_encoding)
    if name == "json" or content_type == "application/json":
        json_replaced = encoder is not jsoncodec.dumps or decoder is not jsoncodec.loads
    _by_name[name] = serializer
    _by_type[content_type] = serializer


def unregister(name: str) -> None:
    """Forget a serializer; unknown names are ignored."""
    global json_replaced
    serializer = _by_name.pop(name, None)
    json_replaced = json_replaced or name == "json"
    if serializer is not None and _by_type.get(serializer.content_type) is serializer:
        del _by_type[serializer.content_type]


def names() -> list[str]:
    """The names that :func:`dumps` takes."""
    return sorted(_by_name)


def accept_types(wanted: Iterable[str]) -> frozenset[str]:
    """Content types for ``accept_content``: names and content types in any mixture.

    :raises ImproperlyConfigured: one of them is not registered.
    """
    if isinstance(wanted, str):
        raise ImproperlyConfigured(f"a list of serializers is needed, such as [{wanted!r}]")
    types = set()
    for each in wanted:
        serializer = _by_name.get(each) or _by_type.get(each)
        if serializer is None:
            raise ImproperlyConfigured(
                f"serializer or content type {each!r} is not registered; known: "
                f"{', '.join(names())}"
            )
        types.add(serializer.content_type)
    return frozenset(types)


def dumps(value: Any, serializer: str) -> tuple[str, str, bytes]:
    """Serialize; ``serializer`` is a name or a content type.

    :returns: content type, content encoding, data.
    :raises EncodeError: it cannot be done; the text names the value and the serializer.
    :raises MissingDependency: the serializer's library is not installed.
    """
    known = _by_name.get(serializer) or _by_type.get(serializer)
    if known is None:
        raise EncodeError(
            f"serializer {serializer!r} is not registered; known: {', '.join(names())}"
        )
    try:
        data = known.encode(value)
        if isinstance(data, str):
            data = data.encode(known.content_encoding)
    except EncodeError:
        raise
    except MissingDependency as exc:
        raise MissingDependency(str(exc)) from exc
    except Exception as exc:
        raise EncodeError(
            f"{known.name} cannot serialize {saferepr(value, 200)}: {safestr(exc)}"
        ) from exc
    return known.content_type, known.content_encoding, data


def loads(
    data: bytes,
    content_type: str,
    content_encoding: str = "utf-8",
    accept: frozenset[str] | None = None,
) -> Any:
    """Deserialize what came with this content type.

    :param accept: content types to be read at all; None trusts the sender.
    :raises ContentDisallowed: the content type is not in ``accept``.
    :raises DecodeError: the data is not what the content type says, or no serializer
        is registered for it; also when the library that it needs is not installed
        (then it is a :class:`~chervil.exceptions.MissingDependency` as well).
    """
    if accept is not None and content_type not in accept:
        raise refusal(content_type, accept)
    known = _by_type.get(content_type)
    if known is None:
        raise DecodeError(f"no serializer is registered for content type {content_type!r}")
    try:
        if content_encoding not in _UTF8 and known.content_encoding == "utf-8":
            data = _to_utf8(data, content_encoding)
        return known.decode(data)
    except DecodeError:
        raise
    except Exception as exc:
        raise DecodeError(
            f"not valid {known.name}: {safestr(exc)}; it starts with {data[:80]!r}"
        ) from exc


def refusal(content_type: str, accept: frozenset[str]) -> ContentDisallowed:
    """The error for a content type that is not accepted."""
    return ContentDisallowed(
        f"content type {content_type!r} is not accepted; accept_content allows "
        f"{', '.join(sorted(accept)) or 'nothing'}"
    )


#: Spellings of encodings whose bytes are UTF-8 as they are.
_UTF8: Final = frozenset(
    {"utf-8", "utf8", "UTF-8", "UTF8", "us-ascii", "ascii", "binary", "", None}
)


def _to_utf8(data: bytes, encoding: str) -> bytes:
    if codecs.lookup(encoding).name in ("utf-8", "ascii"):
        return data
    return data.decode(encoding).encode("utf-8", "surrogatepass")


# --- yaml -----------------------------------------------------------------------------


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError as exc:
        raise MissingDecoder(
            "the serializer 'yaml' needs PyYAML; install it with: pip install 'chervil[yaml]'"
        ) from exc


@functools.cache
def _yaml_dumper() -> Any:
    """The safe one, which takes maps of every class, signatures among them."""
    yaml = _yaml()

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        pass

    Dumper.add_multi_representer(dict, Dumper.represent_dict)
    return Dumper


def _yaml_dumps(value: Any) -> str:
    return str(_yaml().dump(value, Dumper=_yaml_dumper()))


def _yaml_loads(data: bytes) -> Any:
    yaml = _yaml()
    return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


# --- msgpack -----------------------------------------------------------------------------

_MSGPACK_ATOMS: Final = frozenset({str, int, float, bool, bytes, type(None)})


def _lowered(value: Any) -> Any:
    """The same value out of exact built-in types that msgpack has a form for.

    msgspec would write more than that (dates, sets, UUIDs...), but other readers of
    msgpack would get something else back.
    """
    kind = type(value)
    if kind in _MSGPACK_ATOMS:
        return value
    if isinstance(value, dict):
        return {_lowered(key): _lowered(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lowered(item) for item in value]
    # Subclasses, by methods of the base: str(value) and so on would ask the subclass.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise EncodeError(
        f"msgpack cannot serialize {saferepr(value, 200)} of type {kind.__module__}."
        f"{kind.__qualname__}; convert it or choose another serializer"
    )


def _msgpack_dumps(value: Any) -> bytes:
    return msgspec.msgpack.encode(_lowered(value))


# --- what is there from the start -------------------------------------------------------------


@functools.cache
def _pickling() -> tuple[Any, Any]:
    """The classes that write and read pickles."""
    import pickle  # Few need it, and it takes milliseconds to import.

    class Pickler(pickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            # Signatures are written as plain maps: who reads them may not have Chervil.
            if isinstance(obj, dict) and "subtask_type" in obj and type(obj) is not dict:
                return dict, ({**obj},)
            return NotImplemented

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            # What Celery pickles of its own; it need not be installed here.
            if module == "celery.canvas" and name == "signature":
                return dict
            if module in ("celery.exceptions", "billiard.exceptions"):
                ours = getattr(exceptions, name, None)
                if isinstance(ours, type) and issubclass(ours, BaseException):
                    return ours
            return super().find_class(module, name)

    return Pickler, Unpickler


def _pickle_dumps(value: Any) -> bytes:
    file = io.BytesIO()
    _pickling()[0](file).dump(value)
    return file.getvalue()


def _pickle_loads(data: bytes) -> Any:
    return _pickling()[1](io.BytesIO(data)).load()


register("json", jsoncodec.dumps, jsoncodec.loads, "application/json")
register("pickle", _pickle_dumps, _pickle_loads, "application/x-python-serialize", "binary")
register("yaml", _yaml_dumps, _yaml_loads, "application/x-yaml")
register("msgpack", _msgpack_dumps, msgspec.msgpack.decode, "application/x-msgpack", "binary")
