"""A task that has others do its work: ``replace`` and ``add_to_chord``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from chervil.canvas import sending
from chervil.canvas.continuation import Aftermath
from chervil.canvas.freezing import accumulated
from chervil.canvas.shape import (
    CHAIN,
    CHORD,
    GROUP,
    chord_of,
    kind_of,
    options_of,
    steps_of,
    tasks_of,
)
from chervil.canvas.signature import maybe_signature
from chervil.exceptions import Ignore, ImproperlyConfigured
from chervil.joining import allow_join_result

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.canvas.signature import Signature
    from chervil.context import Context
    from chervil.result import AsyncResult


class Replacing:
    """Part of :class:`chervil.task.Task`."""

    if TYPE_CHECKING:
        name: str

        @property
        def app(self) -> Chervil: ...
        @property
        def request(self) -> Context: ...

    def replace(self, sig: Signature[Any]) -> Any:
        """Have a signature run instead of this task, under its id; ends the task.

        What was to follow the task follows the signature. A group is replaced by the
        list of its results. It is stored in the step that ends the task.

        :raises Ignore: always; it tells the worker. (An eager call returns the result.)
        :raises ImproperlyConfigured: the signature is empty, or part of a chord already.
        """
        whole = self._whole(maybe_signature(sig, self.app))
        request = self.request
        if request.is_eager:
            with allow_join_result():
                return whole.apply().get()
        options = {
            "task_id": request.id,
            "parent_id": request.id,
            "root_id": request.root_id or request.id,
            "group_id": request.group,
            "group_index": request.group_index,
            "chord": request.chord,
            "chain": request.chain,
            "link": request.callbacks,
            "link_error": request.errbacks,
            "reply_to": request.reply_to or None,
            "ignore_result": request.ignore_result or None,
            "replaced_task_nesting": (request.replaced_task_nesting or 0) + 1,
            **self._stamps(),
        }
        ready = sending.prepare(self.app, whole, (), None, options)
        return self.on_replace(ready)

    def on_replace(self, ready: Any) -> NoReturn:
        """Store what replaces the task in the step that ends it."""
        self.request.aftermath = Aftermath(ready.messages, [], [], ready.joins, [])
        raise Ignore("Replaced by new task")

    def _whole(self, sig: Any) -> Signature[Any]:
        if "chord" in options_of(sig):
            raise ImproperlyConfigured(
                f"{self.name}: a signature that replaces a task must not be part of a chord"
            )
        kind = kind_of(sig)
        if kind == CHAIN:
            steps = steps_of(tasks_of(sig))
            if not steps:
                raise ImproperlyConfigured(f"{self.name}: cannot be replaced by an empty chain")
            if kind_of(steps[-1]) == GROUP:
                sig = sig | maybe_signature(accumulated(), self.app)
        elif kind not in (None, CHORD):
            sig = maybe_signature(chord_of(sig, accumulated()), self.app)
        return sig  # type: ignore[no-any-return]

    def _stamps(self) -> dict[str, Any]:
        request = self.request
        if not request.stamped_headers:
            return {}
        return {"stamped_headers": request.stamped_headers, **(request.stamps or {})}

    def add_to_chord(self, sig: Signature[Any], lazy: bool = False) -> AsyncResult[Any]:
        """Let the chord that this task is a member of wait for another task, too.

        :param sig: the task; it is sent now, unless
        :param lazy: it is only given its place, and the caller sends it.
        :raises ValueError: the task is not a member of a chord.
        """
        request = self.request
        if not request.chord or not request.group:
            raise ValueError("Current task is not member of any chord")
        sig = maybe_signature(sig, self.app, clone=True)
        sig.set(
            group_id=request.group,
            group_index=request.group_index,
            chord=request.chord,
            root_id=request.root_id,
        )
        result: AsyncResult[Any] = sig.freeze()
        self.app.backend.widen(request.group, 1)
        return result if lazy else sig.delay()
