"""How tasks end, written by the workers of one side and read by the clients of the other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Broker, Pair
from tests.interop.sides import SIDES, WAIT, Client, Raised, Workers
from tests.support.waiting import lines, wait_until

TASKS = "tests.apps.interop.tasks"


# --- failures


@pytest.mark.parametrize(
    ("kind", "cls", "args"),
    [
        ("builtin", "ValueError", ("no good", 7)),
        ("custom", "CustomError", (42, "custom \u017c")),
        ("nested", "Outer.NestedError", ("within",)),
        ("argument", "RuntimeError", ("cannot be written", "{1, 2}")),
        ("not-importable", "Lost", ("who", 1)),
        ("cause", "CustomError", (1, "outer")),
    ],
)
def test_failures(pair: Pair, kind: str, cls: str, args: Any) -> None:
    task = pair.client.send("t.fails.apply_async((kind,), queue=q)", q=pair.queue, kind=kind)
    failure = pair.client.failure(task)
    if kind == "not-importable" and pair.to == "celery":
        # Its pool hands exceptions from process to process, and wraps what it cannot.
        cls, args = "UnpickleableExceptionWrapper", failure.args
    assert (failure.state, failure.cls, failure.args) == ("FAILURE", cls, args)
    if cls in ("CustomError", "Outer.NestedError"):
        assert failure.module == TASKS, "the class that `except` clauses know"
    assert failure.traceback
    assert "in fails" in failure.traceback
    if kind == "cause":
        assert "KeyError: 'missing'" in failure.traceback
    with pytest.raises(Raised) as raised:
        pair.client.get(task)
    assert raised.value.name == cls


@pytest.mark.parametrize("task", ["rejects", "gives_up_without_reason"])
def test_errors_of_the_library(pair: Pair, task: str) -> None:
    failure = pair.client.failure(pair.client.send(f"t.{task}.apply_async(queue=q)", q=pair.queue))
    expected = {"rejects": "Reject", "gives_up_without_reason": "MaxRetriesExceededError"}[task]
    assert (failure.state, failure.cls) == ("FAILURE", expected)
    if pair.client.side == "celery":
        assert failure.module == "celery.exceptions"
    else:
        assert failure.module == "chervil.exceptions"


def test_wrong_arguments(pair: Pair) -> None:
    call = "app.send_task('interop.add', (1, 2, 3), queue=q)"
    failure = pair.client.failure(pair.client.send(call, q=pair.queue))
    assert (failure.state, failure.cls) == ("FAILURE", "TypeError")


@pytest.mark.parametrize("limit", ["soft_time_limit", "time_limit"])
def test_time_limits(pair: Pair, limit: str) -> None:
    call = f"t.naps.apply_async((60,), queue=q, {limit}=0.4)"
    failure = pair.client.failure(pair.client.send(call, q=pair.queue))
    expected = "SoftTimeLimitExceeded" if limit == "soft_time_limit" else "TimeLimitExceeded"
    assert (failure.state, failure.cls) == ("FAILURE", expected)
    if pair.client.side == "celery":
        assert failure.module == "billiard.exceptions"


def test_a_soft_limit_that_the_task_handles(pair: Pair) -> None:
    call = "t.stops_softly.apply_async(queue=q, soft_time_limit=0.4)"
    assert pair.client.run(call, q=pair.queue) == "stopped"


# --- states


@pytest.fixture
def stateful(pair: Pair, broker: Broker) -> None:
    """The client can ask for the state of a task by its id."""
    if broker.results == "rpc://" and pair.client.side == "celery":
        pytest.skip("Celery's own client sees no such states by rpc, of its own workers either")


@pytest.mark.usefixtures("stateful")
def test_none_and_success(pair: Pair) -> None:
    task = pair.client.send("t.same.apply_async((None,), queue=q)", q=pair.queue)
    assert pair.client.get(task) is None
    assert pair.client.state(task) == "SUCCESS"
    assert pair.client("sent[id].successful(), sent[id].failed()", id=task) == (True, False)
    assert "datetime" in pair.client("sent[id].date_done", id=task)


@pytest.mark.usefixtures("stateful")
def test_custom_states_and_progress(pair: Pair, tmp_path: Path) -> None:
    go = tmp_path / "go"
    client = pair.client
    task = client.send("t.progress.apply_async((go,), queue=q)", q=pair.queue, go=str(go))
    wait_until(lambda: client.state(task) == "PROGRESS", WAIT)
    assert client("sent[id].info", id=task) == {"done": 3, "of": 7}
    go.touch()
    assert client.get(task) == "done"
    assert client.state(task) == "SUCCESS"


@pytest.mark.usefixtures("stateful")
def test_started(pair: Pair, tmp_path: Path) -> None:
    go = tmp_path / "go"
    client = pair.client
    task = client.send("t.tracked.apply_async((go,), queue=q)", q=pair.queue, go=str(go))
    wait_until(lambda: client.state(task) == "STARTED", WAIT)
    info = client("sent[id].info", id=task)
    assert set(info) == {"pid", "hostname"}
    assert info["hostname"].startswith(pair.to)
    go.touch()
    assert client.get(task) == "done"


@pytest.mark.usefixtures("stateful")
def test_retry_state(pair: Pair) -> None:
    client = pair.client
    task = client.send("t.waits_for_retry.apply_async(queue=q)", q=pair.queue)
    wait_until(lambda: client.state(task) == "RETRY", WAIT)
    assert client("type(sent[id].info).__name__, sent[id].info.args", id=task) == (
        "CustomError",
        (5, "later"),
    )


def test_messages_of_each_state_are_heard(pair: Pair, tmp_path: Path) -> None:
    """Not only read: a client that waits hears of them."""
    go = tmp_path / "go"
    go.touch()
    task = pair.client.send("t.progress.apply_async((go,), queue=q)", q=pair.queue, go=str(go))
    # Celery's clients hear of their other tasks, too.
    heard = pair.client(
        f"[seen := [], sent[id].get(timeout={WAIT}, on_message=lambda m: "
        "seen.append(m['status']) if m['task_id'] == id else None)]",
        id=task,
    )
    assert heard[1] == "done"
    assert set(heard[0]) <= {"PROGRESS", "SUCCESS"}


def test_unknown_ids_are_pending(clients: dict[str, Client]) -> None:
    assert {clients[side].state("never-sent") for side in SIDES} == {"PENDING"}


def test_forget(pair: Pair) -> None:
    task = pair.client.send("t.add.apply_async((1, 2), queue=q)", q=pair.queue)
    assert pair.client.get(task) == 3
    pair.client("app.AsyncResult(id).forget()", id=task)
    assert pair.client.state(task) == "PENDING"


# --- results that nobody wants


@pytest.mark.parametrize("how", ["task", "call", "raise"])
def test_ignored_results(pair: Pair, how: str, tmp_path: Path, broker: Broker) -> None:
    path = tmp_path / "ran"
    call = {
        "task": "t.quiet.apply_async((path,), queue=q)",
        "call": "t.record.apply_async((path, 1), queue=q, ignore_result=True)",
        "raise": "t.ignores.apply_async(queue=q)",
    }[how]
    client = pair.client
    task = client.send(call, q=pair.queue, path=str(path))
    if how != "raise":
        wait_until(lambda: lines(path), WAIT)
        assert client.get(task) is None, "at once"
    for _ in range(4):  # both processes of the worker have gone on to others
        client.run("t.add.apply_async((1, 2), queue=q)", q=pair.queue)
    assert client.state(task) == "PENDING"


def test_a_task_whose_result_is_ignored_can_be_asked_for_it(pair: Pair, tmp_path: Path) -> None:
    call = "t.quiet.apply_async((path,), queue=q, ignore_result=False)"
    found = pair.client.run(call, q=pair.queue, path=str(tmp_path / "ran"))
    assert found == "nobody reads this"


# --- what is stored, by serializer and compression

FORMS: dict[str, dict[str, Any]] = {
    "json": {},
    "pickle": {"result_serializer": "pickle"},
    "yaml": {"result_serializer": "yaml"},
    "msgpack": {"result_serializer": "msgpack"},
    "zlib": {"result_compression": "zlib"},
    "zstd-pickle": {"result_compression": "zstd", "result_serializer": "pickle"},
}
EXTENDED = {"result_extended": True, "result_accept_content": ["json", "pickle", "yaml", "msgpack"]}


@pytest.fixture(scope="module")
def forms(conf: dict[str, Any], directory: Path) -> Iterator[dict[tuple[str, str], str]]:
    """A queue for each side and form, served by a worker that writes results so."""
    (directory / "forms").mkdir()
    workers = Workers(conf, directory / "forms", "forms")
    queues = {}
    for name, form in FORMS.items():
        for side in SIDES:
            queue = queues[side, name] = f"{side}-{name}"
            workers.start(side, queue, **EXTENDED, **form)
    workers.ready(*workers.started)
    yield queues
    assert not workers.close()


@pytest.fixture(params=[("celery", "chervil"), ("chervil", "celery")], ids="-from-".join)
def reading(request: pytest.FixtureRequest, clients: dict[str, Client]) -> tuple[Client, str]:
    """Who reads, and who wrote."""
    reader, writer = request.param
    return clients[reader], writer


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_results(
    reading: tuple[Client, str], form: str, forms: dict[tuple[str, str], str]
) -> None:
    client, writer = reading
    made = f"on(**{ {**EXTENDED, **FORMS[form]}!r})"
    queue = forms[writer, form]
    call = f"{made}.t.same.apply_async(({{'a': [1, 'zw\u00f6', None]}},), queue=q)"
    assert client.run(call, q=queue) == {"a": [1, "zw\u00f6", None]}
    failing = client.send(f"{made}.t.fails.apply_async(('custom',), queue=q)", q=queue)
    failure = client.failure(failing)
    assert failure[:4] == ("FAILURE", "CustomError", TASKS, (42, "custom \u017c"))


@pytest.mark.parametrize("form", ["json", "pickle", "msgpack"])
def test_extended_results(
    reading: tuple[Client, str], form: str, forms: dict[tuple[str, str], str]
) -> None:
    client, writer = reading
    made = f"on(**{ {**EXTENDED, **FORMS[form]}!r})"
    queue = forms[writer, form]
    task = client.send(f"{made}.t.shown.apply_async((1, 'x'), {{'k': [2]}}, queue=q)", q=queue)
    client.get(task)
    fields = "(r.name, list(r.args), r.kwargs, r.retries, r.queue, r.worker)"
    found = client(f"[{fields} for r in [sent[id]]][0]", id=task)
    assert found[:5] == ("interop.shown", [1, "x"], {"k": [2]}, 0, queue)
    assert found[5].startswith(writer)


def test_results_have_the_same_fields(
    reading: tuple[Client, str], clients: dict[str, Client], broker: Broker
) -> None:
    """Document by document, as they lie in the store."""
    if broker.kind != "redis":
        pytest.skip("looks into Redis")
    found = {}
    for side in SIDES:
        client = clients[side]
        task = client.send("t.add.apply_async((1, 2), queue=q)", q=f"{side}-only")
        client.get(task)
        raw = broker.call("GET", f"celery-task-meta-{task}")
        assert isinstance(raw, bytes)
        document = ast.literal_eval(raw.decode().replace("null", "None"))
        document.pop("task_id")
        document.pop("date_done")
        found[side] = document
        assert 86000 < broker.call("TTL", f"celery-task-meta-{task}") <= 86400
    assert found["celery"] == found["chervil"]
