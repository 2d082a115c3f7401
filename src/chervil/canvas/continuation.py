"""What a message carries to be sent when its task has ended.

Builds the messages and sends nothing: the worker stores them in the step that
stores the result, so that neither comes without the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chervil.canvas.signature import Signature, maybe_signature
from chervil.exceptions import InvalidTaskError

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.context import Context
    from chervil.wire.message import Message


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
        signature: Signature[Any] = maybe_signature(errback, app)
        task = app.tasks.get(signature["task"])
        if task is not None and task.takes_error:
            task(request, exception, traceback, *signature.args, **signature.kwargs)
        else:
            messages.append(_message(app, request, signature, (request.id,)))
    return messages


def _message(
    app: Chervil, request: Context, signature: Any, args: tuple[Any, ...], **options: Any
) -> Message:
    signature = maybe_signature(signature, app)
    if signature["immutable"]:
        args = ()
    options = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        **signature["options"],
        **options,
    }
    message = app.publisher.message(
        signature["task"], (*args, *signature["args"]), signature["kwargs"], options
    )
    request.children.append(app.AsyncResult(message.id))
    return message
