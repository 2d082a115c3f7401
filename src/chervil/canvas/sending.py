"""From a plan to stored messages and the results that the caller gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from chervil.canvas.plan import Call, Planner
from chervil.ids import new_id
from chervil.messages import embed_of

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.canvas.freezing import Node
    from chervil.canvas.shape import Sig
    from chervil.wire.message import Message

#: Messages that are stored in one go.
BATCH = 1000
#: Options that are about the sending itself.
_SENDING = frozenset(
    {
        "add_to_parent",
        "connection",
        "producer",
        "publisher",
        "result_cls",
        "retry",
        "retry_policy",
        "route_name",
        "router",
    }
)


class Prepared(msgspec.Struct):
    """A workflow that is ready to be sent."""

    messages: list[Message]
    #: For ``after_task_publish``: args, kwargs and embed of each message.
    bodies: list[Any]
    node: Node | None
    first: Node | None
    #: Chords that begin, and how many members they have.
    joins: dict[str, int]


def planner(app: Chervil) -> Planner:
    """A planner with the app's address and settings."""
    return Planner(new_id, app.address, app.conf.task_allow_error_cb_on_chord_header)


def prepare(
    app: Chervil,
    sig: Sig,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Prepared:
    """Build all messages that begin a workflow.

    :raises ImproperlyConfigured: an option is wrong.
    :raises EncodeError: arguments cannot be serialized.
    """
    plan = planner(app)
    given = {k: v for k, v in (options or {}).items() if k not in _SENDING}
    node = plan.plan(sig, args, kwargs, given)
    messages: list[Message] = []
    bodies: list[Any] = []
    for call in plan.calls:
        built = messages_of(app, call)
        messages += built
        bodies += [(call.args, call.kwargs, embed_of(call.options))] * len(built)
    return Prepared(messages, bodies, node, plan.first, plan.joins)


def messages_of(app: Chervil, call: Call) -> list[Message]:
    """The message of a call, once for each queue that it belongs into."""
    task = app.tasks.get(call.task)
    if task is None:
        return app.publisher.build(call.task, call.args, call.kwargs, call.options)
    return task.messages_of(call.args, call.kwargs, call.options)


def send(
    app: Chervil,
    sig: Sig,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Any:
    """Send a workflow; its result."""
    ready = prepare(app, sig, args, kwargs, options)
    if ready.joins:
        app.backend.announce(ready.joins)
    about = {name: options[name] for name in _SENDING if options.get(name) is not None}
    for start in range(0, len(ready.messages), BATCH):
        stop = start + BATCH
        app.publisher.send(ready.messages[start:stop], about, ready.bodies[start:stop])
    return _result(app, ready, options)


async def asend(
    app: Chervil,
    sig: Sig,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Any:
    """:func:`send` for coroutines."""
    ready = prepare(app, sig, args, kwargs, options)
    if ready.joins:
        app.backend.announce(ready.joins)
    for start in range(0, len(ready.messages), BATCH):
        await app.publisher.asend(ready.messages[start : start + BATCH])
    return _result(app, ready, options)


def _result(app: Chervil, ready: Prepared, options: Mapping[str, Any]) -> Any:
    if ready.node is None:
        return None
    ignored = {message.id for message in ready.messages if message.headers["ignore_result"]}
    result = app.result_of(ready.node, ignored)
    if options.get("add_to_parent") is not False and ready.first is not None:
        app.note_child(app.result_of(ready.first))
    return result
