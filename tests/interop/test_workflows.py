"""Chains, groups and chords from clients of either side, on workers of either side and of both.

In the calls ``a`` and ``b`` are queues; each is served by one worker, the same or another one.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.interop.conftest import Broker
from tests.interop.sides import SIDES, Client, Workers
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until


@pytest.fixture(autouse=True)
def _on_redis(broker: Broker) -> None:
    if broker.kind != "redis":
        pytest.skip("workers of both kinds count the members of chords together on Redis alone")


class Cast(NamedTuple):
    """Who sends, and the queues of who runs it."""

    client: Client
    a: str
    b: str

    def send(self, call: str, **names: object) -> str:
        return self.client.send(call, a=self.a, b=self.b, **names)


#: Of client, worker of ``a``, worker of ``b``; what Celery does alone is theirs.
CASTS = [
    (client, a, b)
    for client in SIDES
    for a in SIDES
    for b in SIDES
    if (client, a, b) != ("celery", "celery", "celery")
]


@pytest.fixture(params=CASTS, ids="-".join)
def cast(
    request: pytest.FixtureRequest, clients: dict[str, Client], standing: list[WorkerProcess]
) -> Cast:
    client, a, b = request.param
    return Cast(clients[client], f"{a}-only", f"{b}-only")


#: The members of a header, every second one on ``b``.
HEADER = "[t.add.s(n, n).set(queue=q) for n, q in enumerate([a, b, a, b])]"
FAILING = "[t.add.s(1, 1).set(queue=a), t.fails.s('custom').set(queue=b)]"

FLOWS: dict[str, tuple[str, object]] = {
    "chain": (
        "package.chain(t.add.s(1, 2).set(queue=a), t.add.s(10).set(queue=b), "
        "t.add.s(100).set(queue=a))",
        113,
    ),
    "group": (f"package.group({HEADER})", [0, 2, 4, 6]),
    "chord": (f"package.chord({HEADER}, t.total.s().set(queue=b))", 12),
    "chord of one": ("package.chord([t.add.s(1, 1).set(queue=a)], t.total.s().set(queue=b))", 2),
    "body of a chain": (
        f"package.chord({HEADER}, t.total.s().set(queue=a) | t.add.s(1).set(queue=b))",
        13,
    ),
    "body of a group": (
        f"package.chord({HEADER}, "
        "package.group(t.same.s().set(queue=a), t.total.s().set(queue=b)))",
        [[0, 2, 4, 6], 12],
    ),
    "group within a chain": (
        "t.add.s(1, 1).set(queue=a) | package.group(t.add.s(1).set(queue=a), "
        "t.add.s(2).set(queue=b)) | t.total.s().set(queue=b) | t.add.s(1).set(queue=a)",
        8,
    ),
    "group at the end of a chain": (
        "t.add.s(1, 1).set(queue=a) | "
        "package.group(t.add.s(1).set(queue=a), t.add.s(2).set(queue=b))",
        [3, 4],
    ),
    "chains in a header": (
        "package.chord([t.add.s(1, 1).set(queue=a) | t.add.s(2).set(queue=b), "
        "t.add.s(2, 2).set(queue=b) | t.add.s(3).set(queue=a)], t.total.s().set(queue=a))",
        11,
    ),
    "chord in a header": (
        "package.chord([t.add.s(1, 1).set(queue=a), package.chord([t.add.s(2, 2).set(queue=b), "
        "t.add.s(3, 3).set(queue=a)], t.total.s().set(queue=a))], t.total.s().set(queue=b))",
        12,
    ),
    "chord after chord": (
        f"package.chord({HEADER}, t.total.s().set(queue=a)) | package.group("
        "t.add.s(1).set(queue=b), t.add.s(2).set(queue=a)) | t.total.s().set(queue=b)",
        27,
    ),
    "retries in a header": (
        "package.chord([t.retries_by_itself.s(2).set(queue=a), t.add.s(1, 1).set(queue=b)], "
        "t.total.s().set(queue=b))",
        4,
    ),
    "map": ("t.same.map([1, 2]).set(queue=a)", [1, 2]),
    "chunks": (
        "t.add.chunks([(n, n) for n in range(4)], 2).group().set(queue=b)",
        [[0, 2], [4, 6]],
    ),
}


@pytest.mark.parametrize("name", FLOWS)
def test_workflows(name: str, cast: Cast) -> None:
    call, wanted = FLOWS[name]
    task = cast.send(f"({call}).apply_async()")
    assert cast.client.get(task) == wanted


@pytest.mark.parametrize(
    "call",
    [
        f"package.chord({FAILING}, t.total.s().set(queue=a))",
        f"package.chord({FAILING}, t.total.s().set(queue=b) | t.add.s(1).set(queue=a))",
        "package.chord([t.add.s(1, 1).set(queue=a), t.fails.s('custom').set(queue=b) | "
        "t.add.s(1).set(queue=a)], t.total.s().set(queue=b))",
    ],
    ids=["member", "body of a chain", "chain in the header"],
)
def test_chords_that_fail(call: str, cast: Cast) -> None:
    """The body fails without having run, so that who waits for it hears of it."""
    failure = cast.client.failure(cast.send(f"({call}).apply_async()"))
    assert (failure.state, failure.cls) == ("FAILURE", "ChordError")
    assert "CustomError" in str(failure.args)


def test_errbacks_of_chords(cast: Cast, tmp_path: Path) -> None:
    path = tmp_path / "failed"
    call = (
        f"package.chord({FAILING}, t.total.s().set(queue=a)"
        ".on_error(t.failed_id.s(path=path).set(queue=b))).apply_async()"
    )
    task = cast.send(call, path=str(path))
    assert cast.client.failure(task).state == "FAILURE"
    wait_until(lambda: lines(path), 30)
    assert [line.split()[1] for line in lines(path)] == [task]


@pytest.mark.parametrize("side", SIDES)
def test_chords_that_both_serve(
    side: str, clients: dict[str, Client], standing: list[WorkerProcess], tmp_path: Path
) -> None:
    """Each body is called once, whoever counts the last member."""
    path = tmp_path / "bodies"
    call = (
        "package.chord([t.works.s(path, n).set(queue='both') for n in range(10)], "
        "t.notes.s(bodies).set(queue='both')).apply_async()"
    )
    client = clients[side]
    names = {"path": str(tmp_path / "members"), "bodies": str(path)}
    tasks = [client.send(call, **names) for _ in range(20)]
    assert [client.get(task) for task in tasks] == [45] * 20
    assert sorted(line.split()[1] for line in lines(path)) == sorted(tasks)
    assert {line.split()[0] for line in lines(tmp_path / "members")} == set(SIDES)


@pytest.mark.parametrize("side", SIDES)
def test_chords_survive_a_killed_worker(
    side: str, clients: dict[str, Client], workers: Workers, tmp_path: Path
) -> None:
    """A worker of Chervil's dies among them; another one and Celery's go on."""
    path, bodies = tmp_path / "members", tmp_path / "bodies"
    workers.start("celery", "killed")
    victim = workers.start("chervil", "killed", pool="prefork", worker_lease=2)
    workers.ready(*workers.started)
    call = (
        "package.chord([t.works.s(path, n).set(queue='killed') for n in range(10)], "
        "t.notes.s(bodies).set(queue='killed')).apply_async()"
    )
    client = clients[side]
    names = {"path": str(path), "bodies": str(bodies)}
    tasks = [client.send(call, **names) for _ in range(30)]
    wait_until(lambda: len(lines(bodies)) > 3 and any("chervil" in x for x in lines(path)), 30)
    victim.kill_node()
    workers.run("chervil", "killed", worker_lease=2)
    assert [client.get(task) for task in tasks] == [45] * 30
    assert {line.split()[1] for line in lines(bodies)} == set(tasks)
