"""``app.schedule``: periodic tasks looked at and changed at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from chervil import clock
from chervil.beat.backfill import Missing, past, send
from chervil.beat.entries import FIELDS, ScheduleEntry
from chervil.beat.sending import book_of, build
from chervil.beat.sources import in_code
from chervil.beat.state import BY_HAND, CODE, STORE, Run, State, decode, encode
from chervil.drivers.coordination import NEW, Record
from chervil.exceptions import AlreadyRegistered, ImproperlyConfigured, NotRegistered
from chervil.ids import new_id

if TYPE_CHECKING:
    from chervil.app import Chervil

#: Attempts to change an entry that others change at the same moment.
_ATTEMPTS = 50


class Book:
    """The stored periodic tasks of an app; whoever leads is told of changes at once.

    All methods raise :class:`~chervil.exceptions.OperationalError` when the store does not
    answer, and :class:`~chervil.exceptions.NotRegistered` for an entry that there is not.
    """

    def __init__(self, app: Chervil) -> None:
        self._app = app
        self._name = book_of(app)

    # --- looking

    def list(self) -> list[ScheduleEntry]:
        """All entries, by name: those that are stored, and those of the code that no
        scheduler has seen yet."""
        found = self._in_code()
        for record in self._app.coordinator.get(self._name):
            entry = self._entry(record, found.get(record.key))
            if entry is not None:
                found[record.key] = entry
        return [found[name] for name in sorted(found)]

    def get(self, name: str) -> ScheduleEntry:
        """The entry of that name."""
        in_code = self._in_code().get(name)
        for record in self._app.coordinator.get(self._name, [name]):
            entry = self._entry(record, in_code)
            if entry is not None:
                return entry
        if in_code is None:
            raise NotRegistered(f"there is no periodic task {name!r}")
        return in_code

    def __iter__(self) -> Iterator[ScheduleEntry]:
        return iter(self.list())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(entry.name == name for entry in self.list())

    def history(self, name: str) -> Sequence[Run]:
        """The last runs of an entry, oldest first; as many as ``beat_history`` says."""
        return self.get(name).state.runs

    def next(self, name: str, count: int = 5) -> Sequence[float]:
        """The next due times, as Unix times in seconds."""
        return self.get(name).upcoming(count)

    def leader(self) -> str | None:
        """Who sends at present: host, process id, and a mark; None: nobody."""
        grant = self._app.coordinator.holder(self._name)
        return grant.owner if grant is not None else None

    # --- changing

    def add(self, name: str, schedule: Any, task: Any, **fields: Any) -> ScheduleEntry:
        """Add an entry to the store.

        :param schedule: seconds, ``timedelta``, ``crontab(...)``...
        :param task: a task, or the name of one.
        :param fields: others of :class:`~chervil.beat.ScheduleEntry`; what is in them must
            have a JSON form.
        :raises ImproperlyConfigured: something is wrong, or cannot be stored.
        :raises AlreadyRegistered: there is an entry of that name.
        """
        given = {**fields, "schedule": schedule, "task": getattr(task, "name", task)}
        entry = ScheduleEntry.from_fields(name, given, self._app)
        if name in self._in_code():
            raise AlreadyRegistered(f"there is a periodic task {name!r} in the code")
        entry.state = State(
            entry.definition(),
            STORE,
            entry.fingerprint(),
            entry.paused,
            entry.rule.first(clock.now()),
        )
        (version,) = self._app.coordinator.put(self._name, [Record(name, encode(entry.state), NEW)])
        if not version:
            raise AlreadyRegistered(f"there is a periodic task {name!r}; change it with update()")
        entry.version = version
        return entry

    def update(self, name: str, **fields: Any) -> ScheduleEntry:
        """Change an entry that was added at run time; what is not given stays.

        A new schedule counts from now on: times that it would have named before are not
        made up for.

        :raises ImproperlyConfigured: something is wrong, or the entry is in the code.
        """
        if "task" in fields:
            fields["task"] = getattr(fields["task"], "name", fields["task"])

        def change(entry: ScheduleEntry) -> None:
            self._refuse_code(entry, "change it there")
            kept = {key: value for key, value in entry.state.definition.items() if key in FIELDS}
            new = ScheduleEntry.from_fields(name, {**kept, **fields}, self._app)
            state = entry.state
            state.definition = new.definition()
            if "paused" in fields:
                state.paused = new.paused
            if state.rule != new.fingerprint():
                state.rule, state.waiting = new.fingerprint(), False
                state.due = new.rule.from_now(state.last, clock.now())

        return self._change(name, change)

    def pause(self, name: str) -> ScheduleEntry:
        """Send nothing until :meth:`resume`."""

        def change(entry: ScheduleEntry) -> None:
            entry.state.paused = True

        return self._change(name, change)

    def resume(self, name: str) -> ScheduleEntry:
        """End a pause; what was due meanwhile is not made up for."""

        def change(entry: ScheduleEntry) -> None:
            state = entry.state
            if state.paused:
                state.paused, state.waiting = False, False
                state.due = entry.rule.from_now(state.last or state.due, clock.now())

        return self._change(name, change)

    def remove(self, name: str) -> None:
        """Delete an entry that was added at run time.

        :raises ImproperlyConfigured: the entry is in the code.
        """
        self._refuse_code(self.get(name), "remove it there, or pause it")
        self._app.coordinator.delete(self._name, [name])

    def fire(self, name: str) -> str:
        """Send an entry's task now, whatever its schedule says; the id of the task.

        :raises BrokerUnavailable: it was not sent.
        """
        entry, now = self.get(name), clock.now()
        messages = build(self._app, entry, now, task_id=new_id())
        self._app.publisher.send(messages)
        run = Run(now, now, messages[0].id, BY_HAND)
        self.note(name, [run])
        return run.task_id

    def backfill(
        self,
        name: str,
        start: Any,
        end: Any = None,
        *,
        dry_run: bool = True,
        again: bool = False,
    ) -> Sequence[Missing]:
        """Send what was due in a past range and was not sent.

        What was sent is known from the entry's history and from the results that are kept.

        :param start: a ``datetime`` (naive: in the entry's zone), ISO text or Unix time.
        :param end: the same; None: now.
        :param dry_run: only say what would be sent.
        :param again: also what was sent; under new task ids.
        :returns: the due times that are, or would be, sent.
        """
        entry = self.get(name)
        first = entry.time("start", start)
        last = clock.now() if end is None else entry.time("end", end)
        if first is None or last is None or last < first:
            raise ImproperlyConfigured(f"backfill of {name!r}: give a start that is before the end")
        chosen = [
            msgspec.structs.replace(item, task_id=new_id()) if item.done else item
            for item in past(self._app, entry, first, last)
            if again or not item.done
        ]
        if not dry_run and chosen:
            self.note(name, send(self._app, entry, chosen))
        return chosen

    def note(self, name: str, runs: Sequence[Run]) -> None:
        """Add runs to the history of an entry."""

        def change(entry: ScheduleEntry) -> None:
            for run in runs:
                entry.state.note(run, self._app.conf.beat_history)

        self._change(name, change)

    # --- inside

    def _in_code(self) -> dict[str, ScheduleEntry]:
        found = in_code(self._app)
        for entry in found.values():
            entry.state.due = entry.rule.first(clock.now())
            entry.state.rule = entry.fingerprint()
        return found

    def _entry(self, record: Record, in_code: ScheduleEntry | None) -> ScheduleEntry | None:
        """An entry with its state; None: of code that this program does not have."""
        state = decode(record.key, record.data)
        entry = in_code
        if entry is None:
            if "schedule" not in state.definition:
                return None
            entry = ScheduleEntry.from_fields(record.key, state.definition, self._app)
        entry.state, entry.version = state, record.version
        return entry

    def _refuse_code(self, entry: ScheduleEntry, remedy: str) -> None:
        if entry.state.origin == CODE:
            raise ImproperlyConfigured(
                f"the periodic task {entry.name!r} is defined in the code: {remedy}"
            )

    def _change(self, name: str, change: Callable[[ScheduleEntry], None]) -> ScheduleEntry:
        """Change an entry as it is stored now, whoever else changes it."""
        for _ in range(_ATTEMPTS):
            entry = self.get(name)
            entry.state = msgspec.structs.replace(entry.state)
            change(entry)
            if not entry.version:  # of the code, and no scheduler has seen it
                entry.state.definition = entry.state.definition or {"task": entry.task}
            record = Record(name, encode(entry.state), entry.version or NEW)
            (version,) = self._app.coordinator.put(self._name, [record])
            if version:
                return self.get(name)
        raise ImproperlyConfigured(
            f"the periodic task {name!r} is changed by others all the time; try again"
        )


def described(entry: ScheduleEntry) -> Mapping[str, Any]:
    """An entry in values that JSON has, for people and programs."""
    state = entry.state
    return {
        "name": entry.name,
        "task": entry.task,
        "schedule": entry.words(),
        "origin": state.origin,
        "paused": state.paused,
        "next": state.due if not state.paused else None,
        "last": state.runs[-1].at if state.runs else None,
        "last_id": state.last_sent.task_id if state.last_sent else None,
        "count": state.count,
        "definition": state.definition,
    }
