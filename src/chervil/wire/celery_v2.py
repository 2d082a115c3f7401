"""The body of a task message: ``[args, kwargs, embed]``, serialized and compressed.

The embed holds what is to happen after the task: ``callbacks``, ``errbacks``,
``chain`` (the remaining steps, last one first) and ``chord`` (source: celery/celery
``celery/app/amqp.py``, ``as_task_v2``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from chervil.exceptions import DecodeError
from chervil.wire import compression as _compression
from chervil.wire import jsoncodec, serializers
from chervil.wire.saferepr import saferepr as saferepr

#: What Celery writes for a task with nothing to happen after it.
EMPTY_EMBED: Final = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
_RAW_EMPTY_EMBED: Final = msgspec.Raw(EMPTY_EMBED)
_NO_MORE: Final[dict[str, Any]] = {
    "callbacks": None,
    "errbacks": None,
    "chain": None,
    "chord": None,
}
_LISTS: Final = ("callbacks", "errbacks", "chain")
_JSON: Final = "application/json"


class Body(NamedTuple):
    """A serialized body and what the message has to say about it."""

    data: bytes
    content_type: str
    content_encoding: str
    #: Content type for the header ``compression``; None when not compressed.
    compression: str | None


def encode_body(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    embed: Mapping[str, Any] | None = None,
    serializer: str = "json",
    compression: str | None = None,
) -> Body:
    """Serialize the arguments of a task and what is to happen after it.

    :param embed: some or all of ``callbacks``, ``errbacks``, ``chain``, ``chord``.
    :param serializer: name or content type, see :mod:`chervil.wire.serializers`.
    :param compression: name or content type, see :mod:`chervil.wire.compression`.
    :raises EncodeError: a value cannot be serialized; the text names it.
    """
    if (
        serializer == "json"
        and not serializers.json_replaced
        and (not embed or embed == _NO_MORE)
        and jsoncodec.is_plain(args)
        and (not kwargs or jsoncodec.is_plain(kwargs))
    ):
        try:
            data = jsoncodec.fast_encode((args, kwargs or {}, _RAW_EMPTY_EMBED))
        except (ValueError, TypeError, RecursionError):
            pass  # Lone surrogates; the typed encoder can write them.
        else:
            if not compression:
                return Body(data, _JSON, "utf-8", None)
            data, how = _compression.compress(data, compression)
            return Body(data, _JSON, "utf-8", how)
    whole = (tuple(args), dict(kwargs or {}), {**_NO_MORE, **(embed or {})})
    content_type, content_encoding, data = serializers.dumps(whole, serializer)
    if not compression:
        return Body(data, content_type, content_encoding, None)
    data, how = _compression.compress(data, compression)
    return Body(data, content_type, content_encoding, how)


def decode_body(
    data: bytes,
    content_type: str,
    content_encoding: str = "utf-8",
    compression: str | None = None,
    accept: frozenset[str] | None = None,
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Read a body: args, kwargs and embed.

    Understood are Celery's list of three, a list of two (without the embed), ``null``
    or an empty map as the embed, and the map of task protocol 1.

    :param compression: the message header ``compression``.
    :param accept: content types to be read at all; None trusts the sender.
    :raises ContentDisallowed: the content type is not in ``accept``.
    :raises DecodeError: it is no such body; the text says what was found.
    """
    if compression:
        data = _decompressed(data, content_type, compression, accept)
    return split_body(serializers.loads(data, content_type, content_encoding, accept))


def load_body(
    data: bytes,
    content_type: str,
    content_encoding: str,
    compression: str | None,
    accept: frozenset[str] | None,
) -> Any:
    """The first half of :func:`decode_body`: whatever value was serialized.

    :raises ContentDisallowed: the content type is not in ``accept``.
    :raises DecodeError: the data is damaged or of an unknown kind.
    """
    if compression:
        data = _decompressed(data, content_type, compression, accept)
    return serializers.loads(data, content_type, content_encoding, accept)


def _decompressed(
    data: bytes, content_type: str, compression: str, accept: frozenset[str] | None
) -> bytes:
    # Not before the content is known to be wanted: this is where memory goes.
    if accept is not None and content_type not in accept:
        raise serializers.refusal(content_type, accept)
    if not isinstance(compression, str):
        raise DecodeError(f"the header compression is text, this is {compression!r:.80}")
    return _compression.decompress(data, compression)


def split_body(body: Any) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """args, kwargs and embed of a deserialized body.

    :raises DecodeError: it is none.
    """
    if isinstance(body, dict):
        return _split_map(body)
    if not isinstance(body, (list, tuple)) or not 2 <= len(body) <= 3:
        raise DecodeError(f"a body is [args, kwargs, embed], this is {saferepr(body, 120)}")
    args, kwargs = body[0], body[1]
    embed = body[2] if len(body) == 3 else None
    if type(args) is not list:
        args = _checked_args(args)
    if type(kwargs) is not dict or (kwargs and not all(type(key) is str for key in kwargs)):
        kwargs = _checked_kwargs(kwargs)
    if embed != _NO_MORE:
        embed = _checked_embed(embed)
    return args, kwargs, embed


def _split_map(body: dict[Any, Any]) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The map of task protocol 1, alone or under the headers of protocol 2."""
    if "args" not in body and "kwargs" not in body:
        raise DecodeError(
            "a body that is a map needs args and kwargs (task protocol 1), this is "
            f"{saferepr(body, 120)}"
        )
    embed = {key: body.get(key) for key in _NO_MORE}
    return (
        _checked_args(body.get("args")),
        _checked_kwargs(body.get("kwargs")),
        _checked_embed(embed),
    )


def _checked_args(args: Any) -> list[Any]:
    if args is None:
        return []
    if isinstance(args, (list, tuple)):
        return list(args)
    raise DecodeError(f"the args of a body are a list, these are {saferepr(args, 120)}")


def _checked_kwargs(kwargs: Any) -> dict[str, Any]:
    if kwargs is None:
        return {}
    if isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs):
        return kwargs
    raise DecodeError(
        f"the kwargs of a body are a map with names as keys, these are {saferepr(kwargs, 120)}"
    )


def _checked_embed(embed: Any) -> dict[str, Any]:
    if embed is None:
        return {}
    if not isinstance(embed, dict):
        raise DecodeError(f"the embed of a body is a map, this is {saferepr(embed, 120)}")
    for key in _LISTS:
        steps = embed.get(key)
        if steps is None:
            continue
        if not isinstance(steps, (list, tuple)) or not all(isinstance(s, dict) for s in steps):
            raise DecodeError(f"{key} is a list of signatures, this is {saferepr(steps, 120)}")
    chord = embed.get("chord")
    if chord is not None and not isinstance(chord, dict):
        raise DecodeError(f"chord is a signature, this is {saferepr(chord, 120)}")
    return embed
