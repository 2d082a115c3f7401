"""What comes after a task: retries, callbacks, the next steps of chains.

Here the worker of one side goes on with what a worker of the other has begun.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import Broker, Pair
from tests.interop.sides import SIDES, WAIT, Client
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until

# --- retries


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("way", [("celery", "chervil"), ("chervil", "celery"), SIDES * 2], ids=str)
def test_retried_here_and_run_there(
    way: tuple[str, ...], side: str, clients: dict[str, Client], standing: list[WorkerProcess]
) -> None:
    """Each retry goes to a queue that only the next worker of the way serves."""
    queues = [f"{each}-only" for each in way]
    call = "t.goes_on.apply_async(([], rest), queue=first)"
    found = clients[side].run(call, first=queues[0], rest=queues[1:])
    assert found == [list(way), len(way) - 1]


@pytest.mark.parametrize("side", SIDES)
def test_retries_on_a_queue_that_both_serve(
    side: str, clients: dict[str, Client], standing: list[WorkerProcess]
) -> None:
    client = clients[side]
    tasks = [client.send("t.roams.apply_async(([],), queue='both')") for _ in range(20)]
    ways = [client.get(task) for task in tasks]
    assert [len(way) for way in ways] == [5] * 20
    assert any(len(set(way)) == 2 for way in ways)


def test_automatic_retries(pair: Pair) -> None:
    assert pair.client.run("t.retries_by_itself.apply_async((2,), queue=q)", q=pair.queue) == 2


def test_automatic_retries_exhausted(pair: Pair) -> None:
    call = "t.retries_by_itself.apply_async((9,), queue=q)"
    failure = pair.client.failure(pair.client.send(call, q=pair.queue))
    assert (failure.state, failure.cls, failure.args) == ("FAILURE", "CustomError", (3, "not yet"))


def test_retries_exhausted_with_a_reason(pair: Pair) -> None:
    failure = pair.client.failure(pair.client.send("t.gives_up.apply_async(queue=q)", q=pair.queue))
    assert (failure.state, failure.cls) == ("FAILURE", "CustomError")


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
def test_retries_keep_serializer_and_headers(pair: Pair, serializer: str) -> None:
    """The message of a retry is written by the worker, and read by the other one."""
    options = {"serializer": serializer, "headers": {"x-mine": "kept"}, "compression": "zlib"}
    call = "t.goes_on.apply_async(([], [other]), queue=q, **o)"
    sides = pair.client.run(call, q=pair.queue, other=pair.other_queue, o=options)[0]
    assert sides[0] == pair.to
    assert sides[1] != pair.to


# --- callbacks


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_callbacks(pair: Pair, serializer: str, broker: Broker) -> None:
    """The callback runs on the other side; the client finds it among the children."""
    if broker.results == "rpc://" and pair.to == "celery":
        pytest.skip("Celery's workers have the results of callbacks sent to themselves")
    if serializer == "yaml" and pair.client.side == "celery":
        pytest.skip("Celery's clients cannot write signatures in YAML")
    call = "t.add.apply_async((1, 2), queue=q, serializer=s, link=t.add.s(10).set(queue=other))"
    task = pair.client.send(call, q=pair.queue, other=pair.other_queue, s=serializer)
    assert pair.client.get(task) == 3
    child = f"sent[id].children[0].get(timeout={WAIT})"
    wait_until(lambda: pair.client("len(sent[id].children or ())", id=task), WAIT)
    assert pair.client(child, id=task) == 13


def test_immutable_callbacks_and_several(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    call = (
        "t.add.apply_async((1, 2), queue=q, link=[t.record.si(path, 'one').set(queue=other), "
        "t.record.si(path, 'two').set(queue=q)])"
    )
    pair.client.run(call, q=pair.queue, other=pair.other_queue, path=str(path))
    wait_until(lambda: len(lines(path)) == 2, WAIT)
    other = SIDES[1 - SIDES.index(pair.to)]
    assert sorted(lines(path)) == sorted([f"{other} one", f"{pair.to} two"])


def test_errbacks_that_get_the_id(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    call = (
        "t.fails.apply_async(('custom',), queue=q, "
        "link_error=t.failed_id.s(path=path).set(queue=other))"
    )
    task = pair.client.send(call, q=pair.queue, other=pair.other_queue, path=str(path))
    wait_until(lambda: lines(path), WAIT)
    other = SIDES[1 - SIDES.index(pair.to)]
    assert lines(path) == [f"{other} {task}"]


def test_errbacks_that_get_the_error(pair: Pair, tmp_path: Path) -> None:
    """They run within the worker that saw the failure."""
    path = tmp_path / "ran"
    call = "t.fails.apply_async(('custom',), queue=q, link_error=t.failed_how.s(path))"
    task = pair.client.send(call, q=pair.queue, path=str(path))
    wait_until(lambda: lines(path), WAIT)
    assert lines(path) == [f"{pair.to} {task} CustomError 42"]


def test_callbacks_are_not_called_after_a_failure(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    call = "t.fails.apply_async(('builtin',), queue=q, link=t.record.si(path, 1).set(queue=q))"
    task = pair.client.send(call, q=pair.queue, path=str(path))
    assert pair.client.failure(task).state == "FAILURE"
    pair.client.run("t.add.apply_async((1, 2), queue=q)", q=pair.queue)
    assert not lines(path)


# --- workflows that are in the messages alone

STEPS = (
    "t.add.s(1, 2).set(queue=a)",
    "t.add.s(10).set(queue=b)",
    "t.add.s(100).set(queue=a)",
    "t.add.s(1000).set(queue=b)",
)


@pytest.mark.parametrize("turn", [0, 1], ids=SIDES)
def test_chains_from_celery(
    turn: int, clients: dict[str, Client], standing: list[WorkerProcess]
) -> None:
    """Each step on the other side than the one before."""
    queues = [f"{side}-only" for side in SIDES]
    call = f"({' | '.join(STEPS)}).apply_async()"
    found = clients["celery"].run(call, a=queues[turn], b=queues[1 - turn])
    assert found == 1113


@pytest.mark.parametrize("side", SIDES)
def test_the_request_of_a_step(
    side: str, clients: dict[str, Client], standing: list[WorkerProcess]
) -> None:
    other = SIDES[1 - SIDES.index(side)]
    call = "(t.add.s(1, 2).set(queue=a) | t.request.si().set(queue=b)).apply_async()"
    client = clients["celery"]
    task = client.send(call, a=f"{side}-only", b=f"{other}-only")
    found = client.get(task)
    parent = client("sent[id].parent.id", id=task)
    assert (found["root_id"], found["parent_id"], found["id"]) == (parent, parent, task)


@pytest.mark.parametrize("side", SIDES)
def test_a_chain_that_fails(
    side: str, clients: dict[str, Client], standing: list[WorkerProcess], broker: Broker
) -> None:
    """All later steps end with the same failure, so that who waits for the last hears of it."""
    if broker.results == "rpc://" and side == "celery":
        pytest.skip("both are Celery's, and by rpc its client does not see it in that time")
    other = SIDES[1 - SIDES.index(side)]
    call = (
        "(t.fails.s('custom').set(queue=a) | t.add.s(1).set(queue=b) | "
        "t.add.s(2).set(queue=a)).apply_async()"
    )
    client = clients["celery"]
    task = client.send(call, a=f"{side}-only", b=f"{other}-only")
    first = "(sent[id].parent.parent.get(timeout=20, propagate=False), sent[id].state)[1]"
    if broker.results != "rpc://":  # there Celery's client sees no state without a get()
        wait_until(lambda: client(first, id=task) == "FAILURE", WAIT)
    failure = client.failure(task)
    assert (failure.state, failure.cls) == ("FAILURE", "CustomError")


def test_groups_from_celery(clients: dict[str, Client], standing: list[WorkerProcess]) -> None:
    """Half of the members for each side; their results are read one by one."""
    call = (
        "package.group([t.add.s(n, n).set(queue=f'{s}-only') for n in range(4) "
        f"for s in {SIDES}]).apply_async().get(timeout={WAIT})"
    )
    assert clients["celery"](call) == [0, 0, 2, 2, 4, 4, 6, 6]
