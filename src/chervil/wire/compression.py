"""Compression of message bodies and results, under Celery's names.

The name that a user gives and the content type in the message header are
Celery's (source: celery/kombu ``kombu/compression.py``): ``gzip`` is a bare zlib
stream and ``lzma`` an xz container.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from chervil.exceptions import DecodeError, EncodeError, MissingDependency
from chervil.wire.saferepr import safestr

#: (data, largest result in bytes or None) -> data
_Decompress = Callable[[bytes, int | None], bytes]


class Codec(msgspec.Struct, frozen=True):
    """A way to compress. ``decompress`` gets the data and the largest size allowed."""

    content_type: str
    compress: Callable[[bytes], bytes]
    decompress: _Decompress


class MissingDecoder(MissingDependency, DecodeError):
    """Data came in a form that needs a library which is not installed."""


class _TooLarge(Exception):
    pass


_by_name: dict[str, Codec] = {}
_by_type: dict[str, Codec] = {}


def register(
    name: str,
    compress: Callable[[bytes], bytes],
    decompress: _Decompress,
    content_type: str,
    aliases: tuple[str, ...] = (),
) -> None:
    """Add a way to compress, or replace one.

    :param decompress: called with the data and the largest size in bytes that the
        result may have (None: any); it may ignore the limit, which is checked again.
    :param content_type: what stands in the message header ``compression``.
    """
    codec = Codec(content_type, compress, decompress)
    _by_type[content_type] = codec
    for each in (name, *aliases):
        _by_name[each] = codec


def unregister(name: str) -> None:
    """Forget a name and its content type; unknown names are ignored."""
    codec = _by_name.pop(name, None)
    if codec is not None:
        for other in [each for each, known in _by_name.items() if known is codec]:
            del _by_name[other]
        if _by_type.get(codec.content_type) is codec:
            del _by_type[codec.content_type]


def names() -> list[str]:
    """The names that :func:`compress` takes."""
    return sorted(_by_name)


def compress(data: bytes, name: str) -> tuple[bytes, str]:
    """Compress; ``name`` may also be a content type.

    :returns: the compressed data and the content type for the header.
    :raises EncodeError: nobody knows that name, or the library refused.
    :raises MissingDependency: the library is not installed.
    """
    codec = _by_name.get(name) or _by_type.get(name)
    if codec is None:
        raise EncodeError(f"compression {name!r} is not known; known: {', '.join(names())}")
    try:
        return codec.compress(data), codec.content_type
    except MissingDependency as exc:
        # Said here as well as when reading, where it is a DecodeError too.
        raise MissingDependency(str(exc)) from exc
    except Exception as exc:
        raise EncodeError(f"compression {name!r} failed: {safestr(exc)}") from exc


def decompress(data: bytes, content_type: str, limit: int | None = None) -> bytes:
    """Undo :func:`compress`; ``content_type`` may also be a name.

    :param limit: bytes that the result may have at most; None means any number.
    :raises DecodeError: unknown content type, damaged data or a result over the limit;
        also when the library that it needs is not installed (then it is a
        :class:`~chervil.exceptions.MissingDependency` as well).
    """
    codec = _by_type.get(content_type) or _by_name.get(content_type)
    if codec is None:
        raise DecodeError(
            f"compression {content_type!r} is not known; known: {', '.join(_by_type)}"
        )
    try:
        result = codec.decompress(data, limit)
    except DecodeError:
        raise
    except _TooLarge:
        result = None
    except Exception as exc:
        raise DecodeError(
            f"data damaged, or not compressed as {content_type}: {safestr(exc)}"
        ) from exc
    if result is None or (limit is not None and len(result) > limit):
        raise DecodeError(f"data compressed as {content_type} is larger than {limit} bytes")
    return result


# --- the ways that Celery knows -----------------------------------------------------


def _library(module: str, extra: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        if extra is None:
            raise MissingDecoder(f"this Python was built without {module}") from exc
        raise MissingDecoder(
            f"{extra} needs a library; install it with: pip install 'chervil[{extra}]'"
        ) from exc


def _zstd() -> Any:
    return _library("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "zstd")


def _zlib_compress(data: bytes) -> bytes:
    return bytes(_library("zlib").compress(data))


def _zlib_decompress(data: bytes, limit: int | None) -> bytes:
    # 47: either header, of a zlib stream or of a gzip file.
    stream = _library("zlib").decompressobj(47)
    if limit is None:
        result = stream.decompress(data) + stream.flush()
    else:
        result = stream.decompress(data, limit + 1)
        if len(result) > limit:
            raise _TooLarge
    if not stream.eof:
        raise EOFError("it ends too early")
    return bytes(result)


def _in_streams(make: Callable[[], Any], data: bytes, limit: int | None) -> bytes:
    """Decompress one stream, or several that follow each other."""
    parts: list[bytes] = []
    size = 0
    while True:
        stream = make()
        part = stream.decompress(data, -1 if limit is None else limit - size + 1)
        parts.append(part)
        size += len(part)
        if limit is not None and size > limit:
            raise _TooLarge
        if not stream.eof:
            raise EOFError("it ends too early")
        data = stream.unused_data
        if not data:
            return b"".join(parts)


def _brotli_decompress(data: bytes, limit: int | None) -> bytes:
    brotli = _library("brotli", "brotli")
    if limit is None:
        return bytes(brotli.decompress(data))
    stream = brotli.Decompressor()
    parts = [stream.process(data, output_buffer_limit=limit + 1)]
    size = len(parts[0])
    while size <= limit and not stream.is_finished():
        part = stream.process(b"", output_buffer_limit=limit + 1 - size)
        if not part and stream.can_accept_more_data():
            raise EOFError("it ends too early")
        parts.append(part)
        size += len(part)
    if size > limit:
        raise _TooLarge
    return b"".join(parts)


register("zlib", _zlib_compress, _zlib_decompress, "application/x-gzip", ("gzip",))
register(
    "bzip2",
    lambda data: bytes(_library("bz2").compress(data)),
    lambda data, limit: _in_streams(_library("bz2").BZ2Decompressor, data, limit),
    "application/x-bz2",
    ("bzip",),
)
register(
    "lzma",
    lambda data: bytes(_library("lzma").compress(data)),
    lambda data, limit: _in_streams(_library("lzma").LZMADecompressor, data, limit),
    "application/x-lzma",
    ("xz",),
)
register(
    "brotli",
    lambda data: bytes(_library("brotli", "brotli").compress(data)),
    _brotli_decompress,
    "application/x-brotli",
)
register(
    "zstd",
    lambda data: bytes(_zstd().compress(data)),
    lambda data, limit: _in_streams(_zstd().ZstdDecompressor, data, limit),
    "application/zstd",
    ("zstandard",),
)
