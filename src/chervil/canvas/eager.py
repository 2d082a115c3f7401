"""Workflows that run in the process that calls them, one task after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chervil import states
from chervil.canvas.shape import (
    CHORD,
    GROUP,
    joined_links,
    kind_of,
    listed,
    members_of,
    steps_of,
    tasks_of,
    with_options,
)
from chervil.eager import EagerResult
from chervil.exceptions import ChordError
from chervil.ids import new_id
from chervil.joining import allow_join_result
from chervil.resultsets import GroupResult

if TYPE_CHECKING:
    from chervil.canvas.signature import Signature

_Kwargs = dict[str, Any]
#: Options that are no use to what runs here.
_NOT_HERE = ("chain", "chord", "producer", "connection", "retry", "retry_policy")


def chain(sig: Signature[Any], args: tuple[Any, ...], kwargs: _Kwargs, options: _Kwargs) -> Any:
    """Run the steps of a chain; the result of the last one, or of the first that failed."""
    given = _given(sig, options)
    link, link_error = given.pop("link", None), given.pop("link_error", None)
    task_id = given.pop("task_id", None)
    last: Any = None
    steps = steps_of(tasks_of(sig))
    for number, step in enumerate(steps):
        more: _Kwargs = dict(given) if not number else {}
        if number == len(steps) - 1:
            more.update(link=link, task_id=task_id)
        more["link_error"] = link_error
        result = _apply(sig, step, args, kwargs, more)
        if last is not None:
            _below(result, last)
        last = result
        if _failed(result) or getattr(result, "state", "") in (states.IGNORED, states.REJECTED):
            break
        args, kwargs = (_value(result),), {}
    return last


def group(sig: Signature[Any], args: tuple[Any, ...], kwargs: _Kwargs, options: _Kwargs) -> Any:
    """Run the members of a group."""
    given = _given(sig, options)
    group_id = given.pop("task_id", None) or new_id()
    results = [
        _apply(sig, member, args, kwargs, {**given, "group_id": group_id, "group_index": index})
        for index, member in enumerate(members_of(tasks_of(sig)))
    ]
    return GroupResult(group_id, results, app=sig.app)


def chord(sig: Signature[Any], args: tuple[Any, ...], kwargs: _Kwargs, options: _Kwargs) -> Any:
    """Run header and body of a chord."""
    given = _given(sig, options)
    link, link_error = given.pop("link", None), given.pop("link_error", None)
    task_id = given.pop("task_id", None)
    header = sig["kwargs"]["header"]
    if kind_of(header) != GROUP if isinstance(header, Mapping) else True:
        header = {"task": "celery.group", "kwargs": {"tasks": tasks_of(sig)}, "options": {}}
        header["subtask_type"] = GROUP
    kwargs = {**(sig["kwargs"].get("kwargs") or {}), **kwargs}
    results: Any = sig.as_signature(header).apply((*args, *sig["args"]), kwargs, **given)
    body = with_options(sig["kwargs"]["body"], link=listed(link), link_error=listed(link_error))
    failed = next((result for result in results if _failed(result)), None)
    if failed is None:
        result = _apply(sig, body, (_value(results),), {}, {"task_id": task_id})
    else:
        result = _unrun(sig, body, task_id, failed)
    _below(result, results)
    return result


def _apply(
    sig: Signature[Any], part: Any, args: tuple[Any, ...], kwargs: _Kwargs, options: _Kwargs
) -> Any:
    given = {name: value for name, value in options.items() if value}
    part = sig.as_signature(part).clone()
    own = part["options"]
    for name in ("link", "link_error"):
        if given.get(name):
            given[name] = joined_links(own.get(name), given[name])
    if own.get("task_id") and kind_of(part) is None:
        given.pop("task_id", None)
    with allow_join_result():
        return part.apply(args, kwargs, **given)


def _given(sig: Signature[Any], options: _Kwargs) -> _Kwargs:
    merged = {**sig["options"], **{k: v for k, v in options.items() if v is not None}}
    for name in ("link", "link_error"):
        if merged.get(name):
            merged[name] = joined_links(sig["options"].get(name), merged[name])
    return {name: value for name, value in merged.items() if name not in _NOT_HERE}


def _failed(result: Any) -> bool:
    if isinstance(result, GroupResult):
        return any(map(_failed, result))
    return result.state in states.PROPAGATE_STATES


def _value(result: Any) -> Any:
    with allow_join_result():
        return result.get()


def _below(result: Any, parent: Any) -> None:
    """Put a result behind another one."""
    while result.parent is not None:
        result = result.parent
    if result is not parent:
        result.parent = parent


def _unrun(sig: Signature[Any], body: Any, task_id: str | None, failed: Any) -> Any:
    """The result of a body whose header has failed."""
    while isinstance(failed, GroupResult):
        failed = next(filter(_failed, failed))
    error = ChordError(f"Dependency {failed.id} raised {failed.result!r}")
    for errback in listed(body["options"].get("link_error")):
        sig.as_signature(errback).apply((task_id or failed.id,))
    name = body["task"] if kind_of(body) not in (CHORD, GROUP) else None
    return EagerResult(
        task_id or new_id(), error, states.FAILURE, failed.traceback, name, app=sig.app
    )
