"""Looking at a signature before it is sent: as a picture, and as what would be sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from chervil.canvas import sending
from chervil.canvas.drawing import draw
from chervil.canvas.shape import (
    CHAIN,
    CHORD,
    GROUP,
    Sig,
    body_of,
    kind_of,
    listed,
    options_of,
    tasks_of,
)

if TYPE_CHECKING:
    from chervil.app import Chervil


class Planned(msgspec.Struct, frozen=True):
    """A message that would be sent."""

    #: Name of the task.
    task: str
    #: The id that it would have; another one each time, unless the signature has one.
    id: str
    queue: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    priority: int
    #: Unix time in seconds before which it would not run; 0: at once.
    due: float
    #: Bytes of the body.
    size: int
    #: Names of the tasks that it carries along and that run later, if at all: callbacks, the
    #: next steps, the bodies of chords, errbacks.
    later: tuple[str, ...]


class Showing:
    """Part of :class:`chervil.canvas.signature.Signature`."""

    if TYPE_CHECKING:

        @property
        def app(self) -> Chervil: ...

    def draw(self, language: str = "mermaid", most: int = 20) -> str:
        """The workflow as a picture, in the language of Mermaid or Graphviz.

        A circle waits for all that lead to it; dashed lines lead to errbacks.

        :param language: ``mermaid`` or ``dot``.
        :param most: members of a group that are drawn one by one.
        :raises ImproperlyConfigured: the language is not known, or a part is no signature.
        """
        return draw(self, language, most)  # type: ignore[arg-type]

    def dry_run(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[Planned]:
        """What ``apply_async`` with these arguments would send, in its order; sends nothing.

        All is done but the sending: routes are asked, arguments are serialized, and receivers
        of ``before_task_publish`` are called.

        :raises ImproperlyConfigured: as ``apply_async`` would.
        :raises EncodeError: likewise.
        """
        ready = sending.prepare(self.app, self, tuple(args or ()), kwargs, options)  # type: ignore[arg-type]
        return [
            Planned(
                message.headers["task"],
                message.id,
                message.queue,
                tuple(given),
                named,
                message.priority,
                message.due,
                len(message.body),
                tuple(_later(embed or {})),
            )
            for message, (given, named, embed) in zip(ready.messages, ready.bodies, strict=True)
        ]


def _later(embed: Mapping[str, Any]) -> Iterator[str]:
    """The tasks in what a message carries along."""
    seen: set[str] = set()
    for name in ("callbacks", "chain", "chord", "errbacks"):
        sigs = listed(embed.get(name))
        for sig in reversed(sigs) if name == "chain" else sigs:
            yield from _names(sig, seen)


def _names(sig: Sig, seen: set[str]) -> Iterator[str]:
    """The tasks of a signature that has its ids.

    :param seen: ids that were named; the members of a header all carry the same body.
    """
    kind, options = kind_of(sig), options_of(sig)
    if kind in (CHAIN, GROUP, CHORD):
        for part in tasks_of(sig):
            yield from _names(part, seen)
        if kind == CHORD:
            yield from _names(body_of(sig), seen)
    elif options.get("task_id") not in seen:
        if options.get("task_id"):
            seen.add(options["task_id"])
        yield sig["task"]
    else:
        return
    for name in ("link", "chord", "link_error"):
        for follower in listed(options.get(name)):
            yield from _names(follower, seen)
