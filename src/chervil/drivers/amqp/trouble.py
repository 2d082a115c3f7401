"""What a server says when it refuses something, and what that means for who reads the log."""

from __future__ import annotations

from typing import Final

from chervil.drivers.amqp.methods import name_of


class Refused(Exception):
    """The server closed a channel or the connection over what was asked.

    :ivar code: the reply code (https://www.rabbitmq.com/amqp-0-9-1-reference#constants).
    :ivar text: the server's words.
    :ivar method: the name of the method that it refused; empty when none is to blame.
    """

    def __init__(self, code: int, text: str, method: bytes = b"\0\0\0\0") -> None:
        self.code = code
        self.text = text
        self.method = name_of(method) if any(method) else ""
        super().__init__(explain(code, text))


ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406
CONTENT_TOO_LARGE, CONNECTION_FORCED, NOT_ALLOWED, NOT_IMPLEMENTED = 311, 320, 530, 540

#: Code, what the text has in it, and what that means.
_MEANINGS: Final = (
    (ACCESS_REFUSED, "in use", "has this queue reserved for another connection (exclusive)"),
    (ACCESS_REFUSED, "Login was refused", "refused the user name or password of the URL"),
    (ACCESS_REFUSED, "", "does not let this user do that: see rabbitmqctl list_permissions"),
    (NOT_FOUND, "no queue", "does not have that queue"),
    (NOT_FOUND, "no exchange", "does not have that exchange"),
    (NOT_FOUND, "vhost", "has no virtual host of that name: see rabbitmqctl list_vhosts"),
    (NOT_FOUND, "", "does not have that"),
    (RESOURCE_LOCKED, "", "has this queue reserved for another connection (exclusive)"),
    (
        PRECONDITION_FAILED,
        "inequivalent arg",
        "has it already, but with other properties: say the same in task_queues, "
        "or delete the old one, and what it holds, with rabbitmqctl delete_queue",
    ),
    (
        PRECONDITION_FAILED,
        "delivery acknowledgement",
        "takes a message back that was not acknowledged within its consumer_timeout: raise that "
        "above the longest task, or give the queue an x-consumer-timeout",
    ),
    (PRECONDITION_FAILED, "", "refused a command"),
    (CONTENT_TOO_LARGE, "", "does not take messages of that size"),
    (PRECONDITION_FAILED, "message size", "does not take messages of that size (max_message_size)"),
    (CONNECTION_FORCED, "", "is shutting down, or its operator closed the connection"),
    (NOT_ALLOWED, "vhost", "has no virtual host of that name: see rabbitmqctl list_vhosts"),
    (NOT_ALLOWED, "", "does not allow that"),
    (NOT_IMPLEMENTED, "", "is too old, or this kind of queue cannot do that"),
)


def explain(code: int, text: str) -> str:
    """What the server's answer means, to be put behind its name."""
    for known, part, meaning in _MEANINGS:
        if code == known and part in text:
            return f"{meaning} ({text})"
    return f"refused a command: {code} {text}"
