"""The document that a result store keeps for a task, as Celery clients read it.

``{"status", "result", "traceback", "children", "date_done", "task_id"}``, plus
``group_id`` and ``parent_id`` when the task had them, plus ``name``, ``args``,
``kwargs``, ``worker``, ``retries``, ``queue`` and stamps with ``result_extended``
(source: celery/celery ``celery/backends/base.py``). A compressed document starts with
a zero byte and names its compression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from chervil.exceptions import DecodeError, EncodeError, TaskRevokedError
from chervil.states import EXCEPTION_STATES, RETRY, REVOKED
from chervil.wire import compression as _compression
from chervil.wire import jsoncodec, serializers
from chervil.wire.failures import (
    RemoteError,
    acceptable,
    exception_for_pickle,
    exception_from_dict,
    exception_to_dict,
)
from chervil.wire.saferepr import saferepr

__all__ = [
    "RemoteError",
    "decode",
    "encode",
    "exception_from_dict",
    "exception_to_dict",
    "join_compression",
    "split_compression",
    "status_in",
    "status_of",
]

_COMPRESSED: Final = b"\0celery-compressed\0"
#: The status in documents that Celery pickled, or wrote as MessagePack or YAML.
_ELSEWHERE: Final = re.compile(
    rb"(?:\x8c\x06status\x94\x8c[^A-Za-z]|\xa6status[\xa1-\xbf]|^status: )([A-Za-z][\w -]*)",
    re.MULTILINE,
)


class _Plain(msgspec.Struct, gc=False):
    """The document in the frequent case; msgspec writes it at once."""

    status: str
    result: Any
    traceback: str | None
    children: Sequence[Any]
    date_done: str | None
    task_id: str
    group_id: str | UnsetType = UNSET
    parent_id: str | UnsetType = UNSET


def encode(
    *,
    task_id: str,
    status: str,
    result: Any,
    traceback: str | None = None,
    children: Sequence[Any] = (),
    date_done: str | None = None,
    group_id: str | None = None,
    parent_id: str | None = None,
    extended: Mapping[str, Any] | None = None,
    stamps: Mapping[str, Any] | None = None,
    serializer: str = "json",
    compression: str | None = None,
) -> bytes:
    """Write the document.

    :param result: the value; for FAILURE and REVOKED the exception, for RETRY the one
        that caused it or None. What is no exception there is put into a ``TaskError``,
        because readers need one.
    :param children: result tuples, ``[[id, parent], members]``, of the tasks it sent.
    :param date_done: ISO 8601 text, see :func:`chervil.wire.times.now_text`; None for
        states that are not final.
    :param extended: further fields, for ``result_extended``.
    :param stamps: stamps by name; they become fields, too.
    :raises EncodeError: the serializer refuses the result; the text names both. Does
        not happen for exceptions, whose arguments become texts if need be; nor because
        of ``extended`` and ``stamps``, for the same reason.
    """
    if isinstance(result, BaseException) or (
        status in EXCEPTION_STATES and not (result is None and status == RETRY)
    ):
        result = _failure(result, serializer)
    elif (
        serializer == "json"
        and not serializers.json_replaced
        and not (extended or stamps or compression)
        and jsoncodec.is_plain(result)
        and (not children or jsoncodec.is_plain(children))
    ):
        plain = _Plain(status, result, traceback, children, date_done, task_id)
        if group_id is not None:
            plain.group_id = group_id
        if parent_id is not None:
            plain.parent_id = parent_id
        try:
            return jsoncodec.fast_encode(plain)
        except (ValueError, TypeError, RecursionError):
            pass  # Lone surrogates.
    meta = _document(status, result, traceback, children, date_done, group_id, parent_id)
    for name, value in (extended or {}).items():
        meta[name] = acceptable(value, serializer)
    if stamps:
        meta["stamped_headers"] = list(stamps)
        for name, value in stamps.items():
            meta.setdefault(name, acceptable(value, serializer))
    meta["task_id"] = task_id
    return _serialize(meta, serializer, compression)


def _document(
    status: str,
    result: Any,
    traceback: str | None,
    children: Sequence[Any],
    date_done: str | None,
    group_id: str | None,
    parent_id: str | None,
) -> dict[str, Any]:
    meta = {
        "status": status,
        "result": result,
        # Sources in odd encodings leave lone surrogates, which not every serializer takes.
        "traceback": traceback and traceback.encode("utf-8", "backslashreplace").decode(),
        "children": list(children),
        "date_done": date_done,
    }
    if group_id is not None:
        meta["group_id"] = group_id
    if parent_id is not None:
        meta["parent_id"] = parent_id
    return meta


def _failure(result: Any, serializer: str) -> Any:
    if isinstance(result, BaseException):
        if serializer == "pickle":
            return exception_for_pickle(result)
        return exception_to_dict(result, serializer)
    if isinstance(result, Mapping) and isinstance(result.get("exc_type"), str):
        return result
    args = [] if result is None else [result]
    return {"exc_type": "TaskError", "exc_message": args, "exc_module": "celery.exceptions"}


def _serialize(meta: dict[str, Any], serializer: str, compression: str | None) -> bytes:
    try:
        data = serializers.dumps(meta, serializer)[2]
    except EncodeError as exc:
        raise EncodeError(f"result of the task {meta['task_id']} cannot be stored: {exc}") from exc
    if compression:
        data, how = _compression.compress(data, compression)
        return join_compression(how, data)
    return data


# --- reading ----------------------------------------------------------------------------


def decode(payload: bytes, serializer: str = "json", import_modules: bool = True) -> dict[str, Any]:
    """Read the document; ``result`` of the exception states is an exception again.

    ``result``, ``traceback``, ``children``, ``date_done`` and ``task_id`` are always
    there; what other writers got wrong in them becomes None or an empty list.

    :param serializer: name or content type of what the store holds.
    :param import_modules: see :func:`chervil.wire.failures.exception_from_dict`.
    :raises DecodeError: it is no such document.
    """
    payload = uncompressed(payload)
    if serializer == "json" and not serializers.json_replaced:
        meta = jsoncodec.loads(payload)
    else:
        meta = serializers.loads(payload, _content_type(serializer), "")
    if not isinstance(meta, dict) or not isinstance(meta.get("status"), str):
        raise DecodeError(f"a result is a map with a status, this is {saferepr(meta, 120)}")
    result = meta.setdefault("result", None)
    if meta["status"] in EXCEPTION_STATES:
        meta["result"] = _exception(meta["status"], result, import_modules)
    if not isinstance(meta.setdefault("traceback", None), str):
        meta["traceback"] = None
    if not isinstance(meta.setdefault("children", None), (list, tuple)):
        meta["children"] = []
    meta.setdefault("date_done", None)
    meta.setdefault("task_id", None)
    return meta


def _exception(status: str, result: Any, import_modules: bool) -> BaseException | None:
    if result is None and status == RETRY:
        return None
    if result is None and status == REVOKED:
        return TaskRevokedError("revoked")
    return exception_from_dict(result, import_modules)


def _content_type(serializer: str) -> str:
    (content_type,) = serializers.accept_types([serializer])
    return content_type


def uncompressed(payload: bytes) -> bytes:
    """The serialized document, of one that may be compressed.

    :raises DecodeError: it is damaged, or its compression is unknown.
    """
    how, data = split_compression(payload)
    return _compression.decompress(data, how) if how else data


# --- what stores have to know of a document ------------------------------------------------


def split_compression(payload: bytes) -> tuple[str, bytes]:
    """How a document is compressed, as a content type, and the rest of it; an empty text
    when it is not.

    :raises DecodeError: it starts like a compressed one, and is none.
    """
    if payload[:1] != b"\0":
        return "", payload
    if not payload.startswith(_COMPRESSED):
        raise DecodeError(f"a result that starts with a zero byte, {payload[:40]!r}")
    how, found, data = payload[len(_COMPRESSED) :].partition(b"\0")
    if not found:
        raise DecodeError(f"a compressed result that ends too early, {payload[:40]!r}")
    return how.decode("ascii", "replace"), data


def join_compression(how: str, data: bytes) -> bytes:
    """The document that :func:`split_compression` takes apart."""
    return _COMPRESSED + how.encode("ascii", "replace") + b"\0" + data if how else data


def status_in(payload: bytes) -> str | None:
    """The status of a JSON document that begins with it, as Celery's and ours do."""
    if payload[:11] == b'{"status":"':
        start = 11
    elif payload[:12] == b'{"status": "':
        start = 12
    else:
        return None
    end = payload.find(b'"', start, start + 200)
    status = payload[start:end]
    if end < 0 or b"\\" in status:
        return None
    return status.decode("utf-8", "replace")


def status_of(payload: bytes) -> str:
    """The status of any document, without reading the result; empty when there is none."""
    try:
        return status_in(payload) or str(decode(payload, import_modules=False)["status"])
    except DecodeError:
        pass  # of another serializer than JSON
    try:
        found = _ELSEWHERE.search(uncompressed(payload))
    except DecodeError:
        return ""
    return found[1].decode() if found else ""
