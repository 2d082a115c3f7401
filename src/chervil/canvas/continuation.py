"""What a message carries to be sent when its task has ended.

Builds the messages and sends nothing: the worker stores them in the step that
stores the result, so that neither comes without the other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from chervil.canvas.signature import Signature, maybe_signature
from chervil.exceptions import InvalidTaskError

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.context import Context
    from chervil.task import Task
    from chervil.wire.message import Message

logger = logging.getLogger("chervil.task")


def check(request: Context) -> None:
    """Refuse, before the task runs, what could not be continued after it.

    :raises InvalidTaskError: the message is part of a chord, or is to be followed
        by a group, chord or nested chain.
    """
    if request.chord:
        raise InvalidTaskError("it is a member of a chord, which this version cannot join")
    followers = (*(request.callbacks or ()), *(request.errbacks or ()), *(request.chain or ()))
    for follower in followers:
        if not isinstance(follower, Mapping) or "task" not in follower:
            raise InvalidTaskError(f"it is to be followed by {follower!r}, which is no signature")
        kind = follower.get("subtask_type")
        if kind:
            raise InvalidTaskError(
                f"it is to be followed by a {kind}, which this version cannot send"
            )


def after_success(app: Chervil, request: Context, value: Any) -> list[Message]:
    """The messages of the callbacks and of the next step of a chain."""
    messages = [_message(app, request, callback, (value,)) for callback in request.callbacks or ()]
    if request.chain:
        *rest, following = request.chain  # the next step is the last
        messages.append(_message(app, request, following, (value,), chain=rest))
    return messages


def after_failure(
    app: Chervil, request: Context, exception: BaseException, traceback: str | None
) -> list[Message]:
    """The messages of the errbacks; those that take more than the id are called here.

    Which kind an errback is, its function's own signature says, so a task that is
    not registered here is always sent.
    """
    messages = []
    for errback in request.errbacks or ():
        callback: Signature[Any] = maybe_signature(errback, app)
        task = app.tasks.get(callback["task"])
        if task is not None and _takes_error(task):
            try:
                task(request, exception, traceback, *callback.args, **callback.kwargs)
            except Exception:
                logger.exception("The errback %s of [%s] raised", task.name, request.id)
        else:
            messages.append(_message(app, request, callback, (request.id,)))
    return messages


def _takes_error(task: Task[Any, Any]) -> bool:
    """Whether an errback wants request, exception and traceback, and not just the id."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature(task.run).parameters.values()
    positional = sum(parameter.kind in kinds for parameter in parameters)
    return positional > 1 or any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)


def _message(
    app: Chervil, request: Context, follower: Any, args: tuple[Any, ...], **options: Any
) -> Message:
    follower = maybe_signature(follower, app)
    if follower["immutable"]:
        args = ()
    options = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        # Who waits for this task hears of what follows it, too.
        "reply_to": request.reply_to,
        **follower["options"],
        **options,
    }
    message = app.publisher.message(
        follower["task"], (*args, *follower["args"]), follower["kwargs"], options
    )
    request.children.append(app.AsyncResult(message.id))
    return message
