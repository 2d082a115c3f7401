"""What a soak test makes of its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from chervil.testing.faults import processes
from chervil.testing.soak.ledger import Entry, Ledger, read
from chervil.testing.soak.verdict import Judge, Verdict

INFINITE = float("inf")


def sent(name: str = "quick", *others: str) -> list[Entry]:
    return [
        Entry("want", 0.0, "1", f"soak.{name}", node="client0", others=others),
        Entry("sent", 0.1, "1", others=others),
    ]


def run(begun: float, ended: float = INFINITE, pid: int = 7, node: str = "n0@soak") -> list[Entry]:
    found = [Entry("begin", begun, "1", "soak.quick", pid=pid, node=node)]
    if ended < INFINITE:
        found.append(Entry("end", ended, "1", "soak.quick", pid=pid, node=node))
    return found


def fault(name: str, at: float, who: str = "7", node: str = "n0", until: float = 0.0) -> Entry:
    return Entry("fault", at, name=name, node=node, others=(who,), until=until or at)


def judge(*entries: Entry, results: Mapping[str, str] | None = None, **given: Any) -> Verdict:
    given = {"dead": {}, "waiting": 0, "breaks": {}} | given
    states = {"1": "SUCCESS"} if results is None else results
    in_order = sorted(entries, key=lambda entry: entry.at)
    return Judge(in_order, states, **given).verdict()


def test_all_is_well() -> None:
    verdict = judge(*sent(), *run(1.0, 1.1))
    assert verdict.failures() == []
    assert (verdict.sent, verdict.ran, verdict.twice) == (1, 1, 0)


def test_lost_and_stuck() -> None:
    assert judge(*sent(), *run(1.0, 1.1), results={}).lost == ["1"]
    assert judge(*sent(), results={}, waiting=1).stuck == ["1"]
    assert judge(*sent(), results={}, dead={"1": "why"}).unexpected_dead == ["1"]
    assert judge(*sent("once"), results={}).gone == 1


def test_what_follows_a_success_is_wanted_too() -> None:
    assert judge(*sent("quick", "2"), *run(1.0, 1.1)).lost == ["2"]


def test_a_result_of_what_did_not_end() -> None:
    assert judge(*sent(), *run(1.0)).untrue == ["1"]


@pytest.mark.parametrize("who", ["7", "all"])
def test_run_again_because_of_a_fault(who: str) -> None:
    verdict = judge(*sent(), *run(1.0), fault("executor", 1.5, who), *run(1.6, 1.7, pid=8))
    assert verdict.failures() == []
    assert verdict.recoveries["executor"] == [pytest.approx(0.1)]


@pytest.mark.parametrize(
    "cause",
    [
        fault("executor", 1.5, "9"),
        fault("executor", 1.5, node="n1"),
        fault("executor", 5.0),
        fault("stop executor", 1.05, until=4.0),
    ],
    ids=["another process", "another node", "long after its end", "it was only stopped"],
)
def test_run_again_without_a_cause(cause: Entry) -> None:
    verdict = judge(*sent(), *run(1.0, 1.1), cause, *run(6.0, 6.1, pid=8))
    assert verdict.causeless == ["1"]


def test_what_a_stopped_executor_could_not_hand_in() -> None:
    """It is killed long after the task's end, of which nobody could hear."""
    stop, kill = fault("stop executor", 1.05, until=4.0), fault("executor", 3.9)
    verdict = judge(*sent(), *run(1.0, 1.1), stop, kill, *run(4.1, 4.2, pid=8))
    assert verdict.failures() == []


def test_at_most_once() -> None:
    twice = [*run(1.0), fault("executor", 1.5), *run(1.6, 1.7, pid=8)]
    assert judge(*sent("once"), *twice).not_once == ["1"]


def test_sent_again_after_a_cut() -> None:
    twice = [*run(1.0, 1.1), *run(1.2, 1.3, pid=8)]
    verdict = judge(*sent(), *twice, breaks={"client0": [0.05]})
    assert (verdict.sent_twice, verdict.causeless) == (1, [])


def test_what_follows_one_that_was_sent_again() -> None:
    def follow(begun: float, pid: int) -> list[Entry]:
        return [
            Entry("begin", begun, "2", "soak.quick", pid=pid, node="n0@soak"),
            Entry("end", begun + 0.1, "2", "soak.quick", pid=pid, node="n0@soak"),
        ]

    runs = [*run(1.0, 1.1), *run(1.2, 1.3, pid=8), *follow(2.0, 7), *follow(2.2, 8)]
    results = {"1": "SUCCESS", "2": "SUCCESS"}
    entries = [*sent("quick", "2"), *runs]
    assert judge(*entries, results=results, breaks={"client0": [0.05]}).failures() == []
    assert judge(*entries, results=results).causeless == ["1", "2"]


def test_the_ledger_is_read_in_the_order_of_time(tmp_path: Any) -> None:
    ledger = Ledger(str(tmp_path))
    for name in ("a", "b", "c"):
        ledger.write("fault", name=name)
    assert [entry.name for entry in read(str(tmp_path))] == ["a", "b", "c"]


@pytest.mark.parametrize("number", [0, -1, 1])
def test_no_fault_hits_whoever_makes_it(number: int) -> None:
    with pytest.raises(ValueError, match="not the id"):
        processes.kill(number)
    with pytest.raises(ValueError, match="not the id"):
        processes.send_group(number, 9)
