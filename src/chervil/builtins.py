"""Tasks that every app has, under Celery's names: maps, chunks, and what joins chords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chervil import states
from chervil.canvas.continuation import Following, read_record
from chervil.canvas.maps import chunks as make_chunks
from chervil.canvas.shape import Sig, kind_of, listed, options_of, tasks_of
from chervil.canvas.signature import maybe_signature
from chervil.context import Context
from chervil.decorators import from_function
from chervil.exceptions import ChordError
from chervil.joining import allow_join_result
from chervil.resultsets import GroupResult, result_from_tuple
from chervil.task import Task

if TYPE_CHECKING:
    from chervil.app import Chervil

#: Seconds between looks for the results of a chord that was sent without being counted.
_INTERVAL = 1.0


def accumulate(*args: Any, **kwargs: Any) -> Any:
    """Its arguments, or one of them."""
    index = kwargs.get("index")
    return args if index is None else args[index]


def map_(self: Task[Any, Any], task: Sig, it: Iterable[Any]) -> list[Any]:
    """Call a task for each item."""
    call = maybe_signature(task, self.app).type
    return [call(item) for item in it]


def starmap(self: Task[Any, Any], task: Sig, it: Iterable[Any]) -> list[Any]:
    """Call a task for each list of arguments."""
    call = maybe_signature(task, self.app).type
    return [call(*item) for item in it]


def chunks(self: Task[Any, Any], task: Sig, it: Iterable[Any], n: int) -> Any:
    """Send calls in chunks."""
    return make_chunks.apply_chunks(task, it, n, self.app).as_tuple()


def backend_cleanup(self: Task[Any, Any]) -> int:
    """Delete results that have expired; how many."""
    return self.backend.expire()


def chord_unlock(
    self: Task[Any, Any],
    group_id: str,
    callback: Sig,
    interval: float | None = None,
    max_retries: int | None = None,
    result: Any = None,
    **_others: Any,
) -> None:
    """Send a chord's body, with what has arrived of its header.

    It is sent once, when all have arrived or one has failed; a copy of it that comes
    later finds the join closed. One that Celery has sent for a store that does not count
    names the results, and looks for them until all are there.
    """
    request, app = self.request, self.app
    joined = app.backend.joined(group_id) if app.backend.joins else None
    following = Following(app, request)
    if joined is not None and joined.complete:
        records = [read_record(value, app.conf.result_serializer) for value in joined.values]
        following.aftermath.closes.append(group_id)
        saved = None if "chord_size" in callback else app.restore_group(group_id)
    elif result is None:
        return
    else:
        ended = [result_from_tuple(value, app) for value in result]
        if not all(one.ready() for one in ended):
            raise self.retry(countdown=interval or _INTERVAL, max_retries=max_retries)
        with allow_join_result():
            records = [(one.id, one.state, one.get(propagate=False)) for one in ended]
        saved = None
    failed = next((record for record in records if record[1] != states.SUCCESS), None)
    if failed is None:
        values = [value for _, _, value in records]
        if saved is not None:
            values = _nested(saved, {member: value for member, _, value in records}) or values
        _send_body(following, callback, values)
    else:
        _fail_body(following, callback, ChordError(f"Dependency {failed[0]} raised {failed[2]!r}"))
    request.aftermath = following.aftermath


def _nested(group: GroupResult[Any], values: Mapping[str, Any]) -> list[Any] | None:
    """Values as a group's results are nested, which Celery saves for headers that end in groups.

    None when they are not those of the group.
    """
    if not all(result.id in values for result in group._flat()):
        return None
    return [
        _nested(result, values) if isinstance(result, GroupResult) else values[result.id]
        for result in group
    ]


def _send_body(following: Following, body: Sig, values: list[Any]) -> None:
    request = following.request
    origin = {"parent_id": request.parent_id, "root_id": request.root_id}
    aftermath = following.aftermath
    try:
        following.send(body, (values,), origin)
    except Exception as exc:  # it cannot be written as a message: nobody else would tell
        aftermath.publish.clear()
        _fail_body(following, body, ChordError(f"the body cannot be sent: {exc!r}"))


def _fail_body(following: Following, body: Sig, error: ChordError) -> None:
    """Let a body fail that is not run: its errbacks, and all that waits for it."""
    options = options_of(body)
    errbacks = [*listed(options.get("link_error")), *_inner_errbacks(body)]
    request = following.request
    told = Context(
        id=options.get("task_id") or request.id,
        task=body["task"],
        errbacks=errbacks,
        root_id=request.root_id,
        parent_id=request.parent_id,
        args=(),
        kwargs={},
        delivery_info=request.delivery_info,
    )
    inner = Following(following.app, told)
    inner.call_errbacks(errbacks, error, None)
    inner.doom([body], error, None, states.FAILURE)
    aftermath, more = following.aftermath, inner.aftermath
    aftermath.publish += more.publish
    aftermath.others += more.others
    aftermath.arrivals += more.arrivals
    aftermath.begins.update(more.begins)


def _inner_errbacks(body: Sig) -> list[Any]:
    """The errbacks of what would have run first; each once."""
    if kind_of(body) is None:
        return []
    found: list[Any] = []
    first = tasks_of(body) if kind_of(body) == "group" else tasks_of(body)[:1]
    for task in first:
        options = options_of(task) if isinstance(task, Mapping) else {}
        found += [e for e in listed(options.get("link_error")) if e not in found]
    return found


#: Name, function, whether it takes the task.
_TASKS = (
    ("celery.accumulate", accumulate, False),
    ("celery.map", map_, True),
    ("celery.starmap", starmap, True),
    ("celery.chunks", chunks, True),
    ("celery.backend_cleanup", backend_cleanup, True),
    ("celery.chord_unlock", chord_unlock, True),
)


def add_builtins(app: Chervil) -> None:
    """Give an app these tasks, unless it has its own of that name."""
    for name, function, bound in _TASKS:
        if name not in app._tasks:
            options: dict[str, Any] = {"name": name, "bind": bound, "base": Task}
            if name == "celery.chord_unlock":
                options.update(ignore_result=True, max_retries=None)
            from_function(app, function, options)
