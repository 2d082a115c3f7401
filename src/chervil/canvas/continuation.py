"""What follows when a task has ended: callbacks, errbacks, the next step, the chord.

Builds it and stores nothing: the worker stores it in the step that stores the result,
so that neither comes without the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from chervil import states
from chervil.canvas.sending import messages_of, planner
from chervil.canvas.shape import CHAIN, CHORD, GROUP, body_of, kind_of, listed, options_of, tasks_of
from chervil.drivers.chords import Arrival
from chervil.exceptions import InvalidTaskError
from chervil.wire import outcomes, serializers
from chervil.wire.message import Message, Outcome
from chervil.wire.times import now_text

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.canvas.shape import Sig
    from chervil.context import Context

#: The task that makes a chord's body from what has arrived.
UNLOCK = "celery.chord_unlock"


class Aftermath(msgspec.Struct):
    """What is to be stored with the end of a task; as in ``Settlement``."""

    publish: list[Message] = []
    others: list[Outcome] = []
    arrivals: list[Arrival] = []
    begins: dict[str, int] = {}
    closes: list[str] = []


def check(request: Context) -> None:
    """Refuse, before the task runs, what could not be continued after it.

    :raises InvalidTaskError: something that is to follow is no signature.
    """
    followers = [*listed(request.callbacks), *listed(request.errbacks), *listed(request.chain)]
    if request.chord:
        followers.append(request.chord)
        if not request.group and not options_of(request.chord).get("group_id"):
            raise InvalidTaskError("it is a member of a chord, but of no group")
    for follower in followers:
        if not isinstance(follower, Mapping) or not isinstance(follower.get("task"), str):
            raise InvalidTaskError(f"it is to be followed by {follower!r:.200}, no signature")


class Following:
    """Works out what follows one run of a task."""

    def __init__(self, app: Chervil, request: Context) -> None:
        self.app = app
        self.request = request
        self.aftermath = Aftermath([], [], [], {}, [])

    def success(self, value: Any) -> Aftermath:
        """After a success: callbacks, the next step of a chain, the chord."""
        request = self.request
        for callback in listed(request.callbacks):
            self.send(callback, (value,))
        if request.chain:
            *rest, following = request.chain  # the next step is the last
            self.send(following, (value,), {"chain": rest})
        if request.chord:
            self.arrive(
                request.id or "",
                request.chord,
                request.group,
                request.group_index,
                states.SUCCESS,
                value,
            )
        return self.aftermath

    def failure(
        self,
        exception: BaseException,
        traceback: str | None,
        status: str = states.FAILURE,
        quiet: bool = False,
    ) -> Aftermath:
        """After a failure: errbacks, and all that waits for this task fails with it.

        :param quiet: errbacks are only sent, none is called here.
        """
        request = self.request
        if status == states.FAILURE:
            self.call_errbacks(listed(request.errbacks), exception, traceback, quiet)
        self.doom(listed(request.chain), exception, traceback, status)
        if request.chord:
            self.arrive(
                request.id or "",
                request.chord,
                request.group,
                request.group_index,
                status,
                exception,
            )
        return self.aftermath

    # --- sending

    def send(
        self, sig: Sig, args: tuple[Any, ...], options: Mapping[str, Any] | None = None
    ) -> None:
        """Plan a signature and have its messages published."""
        request, app = self.request, self.app
        given = {
            "parent_id": request.id,
            "root_id": request.root_id or request.id,
            # Who waits for this task hears of what follows it, too.
            "reply_to": request.reply_to,
            **(options or {}),
        }
        if app.conf.task_inherit_parent_priority and request.delivery_info:
            priority = request.delivery_info.get("priority")
            if priority is not None and "priority" not in options_of(sig):
                given["priority"] = priority
        plan = planner(app)
        plan.plan(sig, args, None, given)
        for call in plan.calls:
            self.aftermath.publish += messages_of(app, call)
        self.aftermath.begins.update(plan.joins)
        if plan.first is not None:
            request.children.append(app.result_of(plan.first))

    def call_errbacks(
        self,
        errbacks: Sequence[Sig],
        exception: BaseException,
        traceback: str | None,
        quiet: bool = False,
    ) -> None:
        """Send errbacks; those that take more than the id are called here.

        Which kind an errback is, its function's own signature says, so a task that is
        not registered here is always sent.
        """
        request = self.request
        for errback in errbacks:
            task = self.app.tasks.get(errback["task"]) if kind_of(errback) is None else None
            if task is None or not task.takes_error or quiet:
                self.send(errback, (request.id,))
                continue
            try:
                args, kwargs = errback.get("args") or (), errback.get("kwargs") or {}
                task(request, exception, traceback, *args, **kwargs)
            except Exception:
                import logging  # only here: not needed to import the package

                text = "The errback %s of [%s] raised"
                logging.getLogger("chervil.task").exception(text, task.name, request.id)

    # --- what ends without having run

    def doom(
        self, sigs: Sequence[Sig], exception: BaseException, traceback: str | None, status: str
    ) -> None:
        """Let tasks that will never run end like the one that they waited for.

        Those that nobody gave an id, nobody waits for.
        """
        todo = list(sigs)
        while todo:
            sig = todo.pop()
            kind = kind_of(sig)
            if kind in (CHAIN, GROUP):
                todo += tasks_of(sig)
            elif kind == CHORD:
                todo += [*tasks_of(sig), body_of(sig)]
            else:
                self._doom_task(sig, exception, traceback, status)

    def _doom_task(
        self, sig: Sig, exception: BaseException, traceback: str | None, status: str
    ) -> None:
        options = options_of(sig)
        task_id = options.get("task_id")
        if not task_id:
            return
        conf = self.app.conf
        if not options.get("ignore_result"):
            payload = outcomes.encode(
                task_id=task_id,
                status=status,
                result=exception,
                traceback=traceback,
                date_done=now_text(),
                group_id=options.get("group_id"),
                parent_id=self.request.id,
                serializer=conf.result_serializer,
                compression=conf.result_compression,
            )
            reply_to = options.get("reply_to") or ""
            self.aftermath.others.append(Outcome(task_id, status, payload, 0.0, reply_to))
        chord = options.get("chord")
        if chord:
            index = options.get("group_index")
            self.arrive(task_id, chord, options.get("group_id"), index, status, exception)

    # --- chords

    def arrive(
        self, member: str, chord: Sig, group: str | None, index: int | None, status: str, value: Any
    ) -> None:
        """Note that a member of a chord's header has ended."""
        app, request = self.app, self.request
        if not app.backend.joins:
            import logging  # only here: not needed to import the package

            text = (
                "[%s] is a member of a chord, which this result_backend cannot join: no body is run"
            )
            logging.getLogger("chervil.task").error(text, member)
            return
        join = group or options_of(chord).get("group_id") or ""
        trigger = app.publisher.message(
            UNLOCK,
            (join, chord),
            {},
            {
                "queue": (request.delivery_info or {}).get("queue"),
                "ignore_result": True,
                "parent_id": member,
                "root_id": request.root_id or request.id,
                "reply_to": "",
                "argsrepr": f"({join!r}, ...)",
                "priority": (request.delivery_info or {}).get("priority"),
            },
            inherit=False,
        )
        self.aftermath.arrivals.append(
            Arrival(
                join,
                member,
                -1 if index is None else index,
                int(chord.get("chord_size") or 0),
                status != states.SUCCESS,
                record_of(member, status, value, app.conf.result_serializer),
                trigger,
            )
        )


def record_of(member: str, status: str, value: Any, serializer: str) -> bytes:
    """What is kept of a member that has ended, as Celery's Redis backend writes it."""
    if status != states.SUCCESS:
        value = outcomes.exception_to_dict(value, serializer)
    return serializers.dumps([1, member, status, value], serializer)[2]


def read_record(data: bytes, serializer: str) -> tuple[str, str, Any]:
    """Task id, status, and result or exception, of such a record."""
    (content_type,) = serializers.accept_types([serializer])
    _, member, status, value = serializers.loads(data, content_type, "utf-8", None)
    if status != states.SUCCESS:
        value = outcomes.exception_from_dict(value, import_modules=True)
    return member, status, value
