"""The verdict of a soak test: the ledger against what broker and result store say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median

import msgspec

from chervil import states
from chervil.testing.soak.ledger import STOP_EXECUTOR, Entry

#: Seconds for which a task that has ended may be on its way to the broker: a process
#: that is killed in that time takes the news of it along.
SETTLING_SECONDS = 1.0
#: Seconds between a signal that kills a process, or a line that says so, and the last
#: instruction of its last child: a machine with much to do does not run them at once.
_DYING_SECONDS = 0.25


class Run(msgspec.Struct):
    """One run of one attempt of a task."""

    begun: float
    pid: int
    node: str
    ended: float = float("inf")


class Verdict(msgspec.Struct):
    """Counts, and the ids behind those that should be 0."""

    sent: int = 0
    unsent: int = 0
    ran: int = 0
    twice: int = 0
    #: Sent a second time by a client whose connection was cut before the answer came.
    sent_twice: int = 0
    #: Run again although no fault hit the run before.
    causeless: list[str] = []
    #: Run again although ``acks_late=False``.
    not_once: list[str] = []
    #: ``acks_late=False``, and gone with the process that had it, as documented.
    gone: int = 0
    lost: list[str] = []
    stuck: list[str] = []
    #: Results that say SUCCESS of tasks that did not end.
    untrue: list[str] = []
    #: Results that a client waited for for a minute.
    late: list[str] = []
    dead: dict[str, int] = {}
    unexpected_dead: list[str] = []
    #: Seconds from a fault to the next run of a task that it hit, by kind of fault.
    recoveries: dict[str, list[float]] = {}
    #: Seconds between the end of a run and the fault that had it run again nevertheless.
    margins: list[float] = []
    other: list[str] = []

    def failures(self) -> list[str]:
        """What must not be, in words."""
        checks = {
            "lost": self.lost,
            "stuck": self.stuck,
            "run again without a cause": self.causeless,
            "run again with acks_late=False": self.not_once,
            "SUCCESS without an end": self.untrue,
            "results not there after a minute": self.late,
            "dead letters of tasks that do not deserve it": self.unexpected_dead,
        }
        texts = [
            f"{name}: {len(found)} ({_some(found)})" for name, found in checks.items() if found
        ]
        return texts + self.other

    def lines(self) -> list[str]:
        """The verdict for people."""
        recovered = [
            f"  {kind}: median {median(times):.2f} s, worst {max(times):.2f} s ({len(times)})"
            for kind, times in sorted(self.recoveries.items())
        ]
        dead = [f"  {count} x {reason}" for reason, count in sorted(self.dead.items())]
        return [
            f"sent                  {self.sent}  (failed to send: {self.unsent})",
            f"run                   {self.ran}",
            f"run more than once    {self.twice}  (not running at a fault: {len(self.causeless)}; "
            f"sent again after a cut: {self.sent_twice})",
            f"at most once, gone    {self.gone}  (run twice: {len(self.not_once)})",
            f"lost                  {len(self.lost)}",
            f"stuck                 {len(self.stuck)}",
            f"dead letters          {sum(self.dead.values())}",
            *dead,
            f"run again after a fault ({sum(map(len, self.recoveries.values()))}), by fault:",
            *recovered,
        ]


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


class Judge:
    """Reads a ledger and says what became of each task.

    :param results: the states of the tasks in the result store.
    :param dead: reasons of dead letters by task id.
    :param waiting: how many messages the broker still has.
    :param breaks: when the connections of clients were cut, by name.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        results: Mapping[str, str],
        dead: Mapping[str, str],
        waiting: int,
        breaks: Mapping[str, Sequence[float]],
    ) -> None:
        self._breaks = breaks
        #: When sending began, by whom; when it had succeeded.
        self._begun: dict[str, tuple[float, str]] = {}
        self._done: dict[str, float] = {}
        self._results, self._dead, self._waiting = results, dead, waiting
        self._names: dict[str, str] = {}
        self._sent: dict[str, tuple[str, ...]] = {}
        self._followers: dict[str, tuple[str, ...]] = {}
        self._leaders: dict[str, str] = {}
        self._runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
        self._faults: list[Entry] = []
        #: Stopped executors, which could not hand in what had ended.
        self._stops: list[Entry] = []
        self._late: list[str] = []
        self._failed = 0
        for entry in entries:
            self._read(entry)

    def _read(self, entry: Entry) -> None:
        key = entry.task_id, entry.retries
        match entry.what:
            case "want":
                self._names[entry.task_id] = entry.name
                self._begun[entry.task_id] = entry.at, entry.node
                self._followers[entry.task_id] = entry.others
                self._leaders.update(dict.fromkeys(entry.others, entry.task_id))
            case "sent":
                self._sent[entry.task_id] = entry.others
                self._done[entry.task_id] = entry.at
            case "failed":
                self._failed += 1
            case "late":
                self._late.append(entry.task_id)
            case "begin":
                self._names.setdefault(entry.task_id, entry.name)
                self._runs[key].append(Run(entry.at, entry.pid, entry.node))
            case "end":
                run = next((r for r in reversed(self._runs[key]) if r.pid == entry.pid), None)
                if run is not None:
                    run.ended = entry.at
            case "dying":
                entry.others, entry.name = (str(entry.pid),), "of itself"
                self._faults.append(entry)
            case "fault" if entry.name == STOP_EXECUTOR:
                self._stops.append(entry)
            case "fault":
                self._faults.append(entry)

    def verdict(self) -> Verdict:
        """What became of everything."""
        verdict = Verdict(sent=len(self._sent), unsent=self._failed)
        verdict.late = [i for i in self._late if self._short_name(i) != "once"]
        verdict.ran = len({task_id for task_id, _ in self._runs})
        for (task_id, _), runs in self._runs.items():
            if len(runs) > 1:
                verdict.twice += 1
                self._judge_runs(verdict, task_id, runs)
        self._judge_ends(verdict)
        verdict.dead = dict(Counter(self._dead.values()))
        verdict.unexpected_dead = [
            task_id
            for task_id in self._dead
            if self._short_name(task_id) not in ("rejects", "dies_always")
        ]
        return verdict

    def outstanding(self) -> set[str]:
        """Tasks that were sent, or follow one that succeeded, and have not ended."""
        wanted = set(self._sent)
        for task_id in self._sent:
            if self._results.get(task_id) == states.SUCCESS:
                wanted.update(self._followers.get(task_id, ()))
        return {task_id for task_id in wanted if not self._has_ended(task_id)}

    def expected(self) -> set[str]:
        """Those of them that must end: with ``acks_late=False`` a task may be gone."""
        return {task_id for task_id in self.outstanding() if self._short_name(task_id) != "once"}

    def _has_ended(self, task_id: str) -> bool:
        return self._results.get(task_id) in states.READY_STATES or task_id in self._dead

    def _short_name(self, task_id: str) -> str:
        return self._names.get(task_id, "").rpartition(".")[2]

    def _judge_ends(self, verdict: Verdict) -> None:
        for task_id in self.outstanding():
            if self._short_name(task_id) == "once":
                verdict.gone += 1
            elif self._waiting:
                verdict.stuck.append(task_id)
            else:
                verdict.lost.append(task_id)
        ended = {task_id for (task_id, _), runs in self._runs.items() if _any_ended(runs)}
        for task_id, state in self._results.items():
            if state == states.SUCCESS and task_id not in ended:
                verdict.untrue.append(task_id)

    def _judge_runs(self, verdict: Verdict, task_id: str, runs: list[Run]) -> None:
        if self._short_name(task_id) == "once":
            verdict.not_once.append(task_id)
        for run, following in pairwise(runs):
            cause = self._cause(run, following)
            if cause is None and self._was_sent_twice(task_id):
                verdict.sent_twice += 1
            elif cause is None:
                verdict.causeless.append(task_id)
            else:
                times = verdict.recoveries.setdefault(cause.name, [])
                times.append(max(0.0, following.begun - cause.at))
                if cause.at > run.ended:
                    verdict.margins.append(cause.at - run.ended)

    def _was_sent_twice(self, task_id: str) -> bool:
        """Whether the answer to its sender was cut off, so that it was sent again, and so
        was what follows it."""
        task_id = self._leaders.get(task_id, task_id)
        begun, client = self._begun.get(task_id, (0.0, ""))
        done = self._done.get(task_id, float("inf"))
        cuts = any(begun <= at <= done for at in self._breaks.get(client, ()))
        return cuts or any(
            fault.node == client and begun <= fault.until and fault.at <= done
            for fault in self._faults
        )

    def _cause(self, run: Run, following: Run) -> Entry | None:
        """The fault that hit a run and came before the next one."""
        for fault in self._faults:
            hit = fault.node.partition("@")[0] == run.node.partition("@")[0] and (
                fault.others == ("all",) or str(run.pid) in fault.others
            )
            # A node that goes on finds on its run queue what others have by then.
            slack = SETTLING_SECONDS if fault.until > fault.at + _DYING_SECONDS else _DYING_SECONDS
            until = max(fault.until, fault.at) + slack
            in_time = run.begun <= until and fault.at <= self._settled_by(run)
            if hit and in_time and fault.at <= following.begun:
                return fault
        return None

    def _settled_by(self, run: Run) -> float:
        """When the broker must have heard of the end of a run."""
        until = run.ended + SETTLING_SECONDS
        for stop in sorted(self._stops, key=lambda stop: stop.at):
            if str(run.pid) in stop.others and stop.at <= until and stop.until > run.ended:
                until = max(until, stop.until + SETTLING_SECONDS)
        return until


def _any_ended(runs: list[Run]) -> bool:
    return any(run.ended != float("inf") for run in runs)
