"""What is due, and its sending.

The scheduler of the leader holds all entries in memory, ordered by their next due time.
What it decides is stored with :meth:`~chervil.drivers.coordination.Coordinator.fire`: the
record of an entry moves on to its next due time in the step that sends the task. So
whoever comes after, or believes to be the leader still, finds each due time either decided
or not, and the messages of a due time always have the same id.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from chervil import clock, signals
from chervil.beat import sending
from chervil.beat.entries import ScheduleEntry
from chervil.beat.missed import decide
from chervil.beat.sources import in_code
from chervil.beat.state import CODE, SENT, SKIPPED, Run, State, decode, encode
from chervil.drivers.coordination import NEW, Firing, Record
from chervil.exceptions import DecodeError, ImproperlyConfigured, OperationalError, PublishError
from chervil.wire.message import Message

if TYPE_CHECKING:
    from chervil.app import Chervil

logger = logging.getLogger("chervil.beat")
#: Entries that are decided and sent in one step.
_AT_ONCE: Final = 500
#: Seconds between looks whether the run before has ended, for ``overlap="queue"``.
_LOOK: Final = 0.5
#: Longest sleep in seconds, where nothing else ends it: clocks may be set meanwhile.
_LONGEST: Final = 5.0


class Scheduler:
    """The periodic tasks of an app.

    For schedulers of one's own (``--scheduler module:Class``): override
    :meth:`setup_schedule` to add entries from elsewhere, or :meth:`messages` to change
    what is sent.

    :param schedule: entries by name, instead of those that the code has.
    :param max_interval: most seconds that :meth:`tick` lets sleep; None: the setting
        ``beat_max_loop_interval``.
    """

    Entry: ClassVar[type[ScheduleEntry]] = ScheduleEntry

    def __init__(
        self,
        app: Chervil,
        schedule: Mapping[str, Any] | None = None,
        max_interval: float | None = None,
        **_kwargs: Any,
    ) -> None:
        self.app = app
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or _LONGEST
        self.book = sending.book_of(app)
        #: All entries by name.
        self.schedule: dict[str, ScheduleEntry] = {}
        self._given = schedule
        self._token = 0
        self._heap: list[tuple[float, int, ScheduleEntry]] = []
        self._numbers = count()
        #: Messages that the broker does not have yet may be kept in the coordinator.
        self._unsent = False
        self._shared = False

    # --- for subclasses

    def setup_schedule(self) -> None:
        """Fill :attr:`schedule` with the entries of the code.

        :raises ImproperlyConfigured: one is wrong.
        """
        if self._given is None:
            self.schedule.update(in_code(self.app))
        else:
            self.update_from_dict(self._given)

    def messages(self, entry: ScheduleEntry, due: float) -> Sequence[Message]:
        """What a due time sends.

        :param due: Unix time in seconds.
        :raises Exception: whatever is wrong; it is logged and noted as the entry's run.
        """
        return sending.build(self.app, entry, due)

    def add(self, **kwargs: Any) -> ScheduleEntry:
        """Add an entry of the code; parameters as of :class:`ScheduleEntry`."""
        entry = self.Entry(app=self.app, **kwargs)
        entry.state.origin = CODE
        self.schedule[entry.name] = entry
        return entry

    def update_from_dict(self, mapping: Mapping[str, Any]) -> None:
        """Add entries of the code in the form of ``beat_schedule``."""
        for name, fields in mapping.items():
            entry = fields
            if not isinstance(fields, ScheduleEntry):
                entry = self.Entry.from_fields(name, fields, self.app)
            entry.state.origin = CODE
            self.schedule[name] = entry

    # --- becoming the leader

    def lead(self, token: int) -> None:
        """Take the entries over, as the holder of the lease with that token.

        :raises OperationalError: the store does not answer.
        :raises ImproperlyConfigured: an entry of the code is wrong.
        """
        coordinator = self.app.coordinator
        self._token, self._unsent = token, True
        self._shared = coordinator.shares(self.app.broker)
        self.schedule, self._heap = {}, []
        self.setup_schedule()
        stored = {record.key: record for record in coordinator.get(self.book)}
        self._merge(stored)
        gone = []
        for name, record in stored.items():
            if name not in self.schedule and not self._take(record):
                gone.append(name)
        if gone:
            logger.info("Periodic tasks that the code does not have any more: %s", ", ".join(gone))
            coordinator.delete(self.book, gone)
        for entry in self.schedule.values():
            self._push(entry)

    def _merge(self, stored: Mapping[str, Record]) -> None:
        """Bring the entries of the code and what is stored of them together."""
        now, records = clock.now(), []
        for name, entry in self.schedule.items():
            record = stored.get(name)
            before = _read(record)
            entry.state, entry.version = _adopted(entry, before, now), NEW
            if record is not None:
                entry.version = record.version
            if record is None or encode(entry.state) != record.data:
                records.append(Record(name, encode(entry.state), entry.version))
            if before is not None and before.origin != CODE:
                logger.warning("Periodic task %r is in the code now: that counts", name)
        versions = self.app.coordinator.put(self.book, records)
        for record, version in zip(records, versions, strict=True):
            if version:  # else somebody changed it just now, which is told
                self.schedule[record.key].version = version

    def refresh(self) -> None:
        """Take over what others have changed.

        :raises OperationalError: the store does not answer.
        """
        stored = {record.key: record for record in self.app.coordinator.get(self.book)}
        for name in self.schedule.keys() - stored.keys():
            del self.schedule[name]
        for name, record in stored.items():
            entry = self.schedule.get(name)
            if (entry is None or entry.version != record.version) and self._take(record):
                self._push(self.schedule[name])

    def _take(self, record: Record) -> bool:
        """Take over a stored entry; False for one of code that is not ours."""
        state = _read(record)
        if state is None:
            return True  # it is kept for whoever can read it
        if state.origin == CODE:
            entry = self.schedule.get(record.key)
            if entry is None:
                return False
        else:
            try:
                entry = self.Entry.from_fields(record.key, state.definition, self.app)
            except ImproperlyConfigured as exc:
                logger.error("A stored periodic task cannot be used: %s", exc)
                return True
            self.schedule[record.key] = entry
        entry.state, entry.version = state, record.version
        return True

    # --- the loop

    def tick(self) -> float:
        """Send what is due; seconds until there is something to do again.

        :raises LeaseLost: another one is the leader by now; nothing was sent.
        :raises OperationalError: the store does not answer; try again.
        """
        now = clock.now()
        entries = self._due(now)
        if entries:
            try:
                self._decide(entries, now)
            except BaseException:
                for entry in entries:  # nothing is known to be stored
                    self._push(entry)
                raise
        if self._unsent:
            self._send_pending()
        self._drop_stale()
        delay = self._heap[0][0] - clock.now() if self._heap else self.max_interval
        return max(0.0, min(delay, self.max_interval, 1.0 if self._unsent else delay))

    def _push(self, entry: ScheduleEntry, at: float | None = None) -> None:
        state = entry.state
        entry.place = next(self._numbers)
        if not state.paused and state.due is not None:
            at = entry.fire_at(state.due) if at is None else at
            heappush(self._heap, (at, entry.place, entry))

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and not self._is_current(heap[0]):
            heappop(heap)

    def _is_current(self, item: tuple[float, int, ScheduleEntry]) -> bool:
        _, place, entry = item
        return entry.place == place and self.schedule.get(entry.name) is entry

    def _due(self, now: float) -> list[ScheduleEntry]:
        found: list[ScheduleEntry] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(found) < _AT_ONCE:
            item = heappop(heap)
            if self._is_current(item):
                found.append(item[2])
        return found

    def _decide(self, entries: Sequence[ScheduleEntry], now: float) -> None:
        """Decide what becomes of entries whose time has come, and send that."""
        going, unknown = self._going([entry for entry in entries if entry.overlap != "allow"])
        plans: list[_Plan] = []
        size = 0
        for entry in entries:
            try:
                plan = None if entry in unknown else self._plan(entry, now, going.get(entry.name))
            except Exception:  # of a calendar's or schedule's own code
                logger.exception("Periodic task %s: what is due cannot be told", entry.name)
                self._push(entry, now + _LONGEST)
                continue
            if plan is None:
                self._push(entry, now + _LOOK)
                continue
            plans.append(plan)
            size += len(plan.messages)
            if size >= _AT_ONCE:
                self._fire(plans)
                plans, size = [], 0
        self._fire(plans)

    def _going(
        self, entries: Sequence[ScheduleEntry]
    ) -> tuple[dict[str, str], Sequence[ScheduleEntry]]:
        """Which of the entries' last runs go on, and of which that is not known."""
        if not entries:
            return {}, ()
        try:
            return sending.running(self.app, entries), ()
        except OperationalError as exc:
            logger.warning("Whether the runs before have ended is not known: %s", exc)
            return {}, entries

    def _plan(self, entry: ScheduleEntry, now: float, going: str | None) -> _Plan | None:
        """What to do about an entry; None: wait on."""
        state, due = entry.state, entry.state.due
        assert due is not None
        until = max(due, now - entry.jitter)
        if state.waiting:
            dues, following = [due], entry.rule.after(due)
        else:
            rule, window = entry.rule, self._window(entry)
            dues, following = decide(rule, entry.missed, window, due, until)
        if len(dues) > 1 and entry.overlap != "allow":
            dues, following = dues[:1], dues[1]  # the second looks at the first
        if dues and going and entry.overlap == "queue":
            if state.waiting:
                return None
            return _Plan(entry, msgspec.structs.replace(state, due=dues[0], waiting=True), [])
        after = msgspec.structs.replace(state, due=following, last=(dues or [due])[-1])
        after.waiting = state.waiting and following is not None and following <= now
        plan = _Plan(entry, after, [])
        for at in dues:
            self._run(plan, at, now, going)
        if not dues:
            logger.info("Periodic task %s: missed, and not made up for", entry.name)
        return plan

    def _window(self, entry: ScheduleEntry) -> float | None:
        if entry.missed_window is None and type(entry.schedule).__name__ in ("crontab", "cron"):
            return self.app.conf.beat_cron_starting_deadline
        return entry.missed_window

    def _run(self, plan: _Plan, due: float, now: float, going: str | None) -> None:
        """Add one due time to a plan."""
        entry, keep = plan.entry, self.app.conf.beat_history
        if going and entry.overlap == "skip":
            logger.info("Periodic task %s: skipped, the run before goes on", entry.name)
            plan.state.note(Run(due, now, "", SKIPPED), keep)
            return
        if going and entry.overlap == "cancel_previous":
            plan.cancel = going
        try:
            built = self.messages(entry, due)
        except Exception as exc:
            logger.error("Periodic task %s cannot be sent: %s", entry.name, exc, exc_info=True)
            plan.state.note(Run(due, now, "", f"failed: {exc}"[:200]), keep)
            return
        plan.messages += built
        plan.state.note(Run(due, now, built[0].id if built else "", SENT), keep)

    def _fire(self, plans: Sequence[_Plan]) -> None:
        """Store what was decided, and send it."""
        if not plans:
            return
        ids = [plan.cancel for plan in plans if plan.cancel]
        if ids:
            sending.cancel(self.app, ids)
        firings = []
        for plan in plans:
            record = Record(plan.entry.name, encode(plan.state), plan.entry.version)
            messages = tuple(plan.messages)
            firings.append(
                Firing(record, messages) if self._shared else Firing(record, (), messages)
            )
        versions = self.app.coordinator.fire(self.book, self.book, self._token, firings)
        stale = False
        for plan, version in zip(plans, versions, strict=True):
            if version:
                self._sent(plan, version)
            else:
                stale = True
        if stale:
            self.refresh()

    def _sent(self, plan: _Plan, version: int) -> None:
        entry = plan.entry
        entry.state, entry.version = plan.state, version
        self._push(entry)
        for message in plan.messages:
            logger.info("Sending due task %s (%s) [%s]", entry.name, entry.task, message.id)
        if plan.messages and not self._shared:
            self._unsent = True
        elif plan.messages and signals.after_task_publish.receivers:
            for message in plan.messages:
                signals.after_task_publish.send(
                    sender=entry.task,
                    body=(entry.args, entry.kwargs, None),
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    headers=message.headers,
                    properties=message.properties,
                )

    def _send_pending(self) -> None:
        """Hand over to the broker what is kept for it, also by those who were leader before."""
        coordinator = self.app.coordinator
        while messages := coordinator.pending(self.book):
            try:
                self.app.publisher.send(messages, {"retry": False})
            except PublishError as exc:
                failed = set(exc.failed)
                ids = [message.id for message in messages if message.id not in failed]
                coordinator.sent(self.book, ids)
                logger.warning("Periodic tasks are sent again in a second: %s", exc)
                return
            except OperationalError as exc:
                logger.warning("Periodic tasks are sent in a second: %s", exc)
                return
            coordinator.sent(self.book, [message.id for message in messages])
        self._unsent = False

    # --- Celery's

    def sync(self) -> None:
        """Nothing to do: every firing is stored in the step that sends it."""

    def close(self) -> None:
        """Forget the entries."""
        self.schedule, self._heap = {}, []

    @property
    def info(self) -> str:
        """For the log."""
        return f"{len(self.schedule)} periodic tasks"


class _Plan(msgspec.Struct):
    """What was decided about an entry, not yet stored."""

    entry: Any
    state: State
    messages: list[Message]
    #: The id of the run before, which is to be ended first.
    cancel: str = ""


def _read(record: Record | None) -> State | None:
    """The state in a record; None where there is none that can be read."""
    if record is None:
        return None
    try:
        return decode(record.key, record.data)
    except DecodeError as exc:
        logger.error("%s", exc)
        return None


def _adopted(entry: ScheduleEntry, before: State | None, now: float) -> State:
    """The state of an entry of the code, from what is stored of it."""
    try:
        definition = entry.definition()
    except ImproperlyConfigured:  # it stays where the code is
        definition = {"task": entry.task, "words": entry.words()}
    rule = entry.fingerprint()
    if before is None:
        return State(definition, CODE, rule, entry.paused, entry.rule.first(now))
    state = msgspec.structs.replace(before, definition=definition, origin=CODE, rule=rule)
    if before.rule != rule:
        state.due, state.waiting = entry.rule.from_now(before.last, now), False
    return state
