"""Workers of both kinds on the same queues: order, load, and what becomes of what they held."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Broker
from tests.interop.sides import SIDES, WAIT, Client, Workers
from tests.support.waiting import lines, wait_until
from tests.wire.recorded import load, unwrap

#: What Celery claims it holds in a table of its own. A Celery worker puts back what has been
#: there for longer than this, be its holder dead or only slow; nobody else does.
VISIBILITY = {
    "visibility_timeout": 2,
    "unacked_restore_interval": 0.5,
    "unacked_restore_throttle": 1,
}


def numbers(path: Path) -> Counter[int]:
    """How often each task of ``works`` ran."""
    return Counter(int(line.split()[1]) for line in lines(path))


def sides(path: Path) -> Counter[str]:
    """How often each side ran something."""
    return Counter(line.split()[0] for line in lines(path))


# --- priorities


def test_priorities(
    broker: Broker, clients: dict[str, Client], workers: Workers, tmp_path: Path
) -> None:
    """Sent by each side while no worker is there, then served by each side."""
    sent = [9, 0, 4, 6, 3, 0, 9, 2]
    call = (
        "[t.record.apply_async((path, p), queue=q, priority=p, ignore_result=True).id and p "
        "for p in sent]"
    )
    paths = {(sender, to): tmp_path / f"{sender}-{to}" for sender in SIDES for to in SIDES}
    for (sender, to), path in paths.items():
        queue = f"priorities-{sender}-{to}"
        assert clients[sender](call, path=str(path), q=queue, sent=sent) == sent
    for to in SIDES:
        # One thread that takes one message after the other. (Celery's solo pool takes
        # seconds for each on RabbitMQ.)
        workers.start(to, *(f"priorities-{sender}-{to}" for sender in SIDES), pool="threads")
    expected = sorted(sent, key=step_of(broker))
    for (_, to), path in paths.items():
        wait_until(lambda path=path: len(lines(path)) == len(sent), WAIT)
        assert [int(line.split()[1]) for line in lines(path)] == expected
        assert set(sides(path)) == {to}


def step_of(broker: Broker) -> Any:
    """What a broker orders by: kombu's four lists on Redis, the smallest first."""
    if broker.small_first:
        return lambda priority: priority // 3
    return lambda priority: -priority


# --- exchanges

QUEUES = {
    f"{side}-{kind}": {
        "exchange": f"{side}-{kind}-exchange",
        "exchange_type": kind,
        "routing_key": key,
    }
    for side in SIDES
    for kind, key in (("topic", "news.#"), ("direct", "bulletin"))
}


def test_exchanges_and_routing_keys(clients: dict[str, Client], workers: Workers) -> None:
    """The worker says which messages of an exchange go to its queues. Clients name the
    queue, from which Celery's learn the type of its exchange, or the exchange itself."""
    workers.ready(
        *[
            workers.start(
                side,
                *(name for name in QUEUES if name.startswith(side)),
                task_queues={k: v for k, v in QUEUES.items() if k.startswith(side)},
            )
            for side in SIDES
        ]
    )
    app = f"on(task_queues={QUEUES!r})"
    for sender in SIDES:
        for to in SIDES:
            for kind, key in (("topic", "news.of.today"), ("direct", "bulletin")):
                for option in ("queue", "exchange"):
                    name = f"{to}-{kind}" if option == "queue" else f"{to}-{kind}-exchange"
                    call = f"{app}.t.request.apply_async({option}=name, routing_key=key)"
                    found = clients[sender].run(call, name=name, key=key)
                    assert found["routing_key"] in (key, f"{to}-{kind}")


# --- one queue


def test_load_is_shared(clients: dict[str, Client], workers: Workers, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    queue = "shared-load"
    workers.ready(*[workers.start(side, queue, pool="prefork") for side in SIDES])
    call = (
        "len([t.works.apply_async((path, n), queue=q, ignore_result=True) "
        "for n in range(first, first + 100)])"
    )
    for number, side in enumerate(SIDES):
        clients[side](call, path=str(path), q=queue, first=number * 100)
    wait_until(lambda: len(lines(path)) >= 200, WAIT)
    assert numbers(path) == Counter(range(200)), "each once"
    assert min(sides(path)[side] for side in SIDES) >= 20


@pytest.mark.parametrize("victim", SIDES)
def test_nothing_is_lost_when_one_is_killed(
    victim: str, clients: dict[str, Client], workers: Workers, tmp_path: Path
) -> None:
    """``kill -9`` of a whole node that is in the middle of its tasks.

    What a killed Celery worker held, a Celery worker puts back, after the visibility
    timeout; what a killed Chervil node held, another one takes back when its lease has
    run out. Either may then run it.
    """
    queue = f"killed-{victim}"
    path, go = tmp_path / "ran", tmp_path / "go"
    own = {"celery": {"broker_transport_options": VISIBILITY}, "chervil": {"worker_lease": 2}}
    doomed = workers.run(victim, queue, pool="prefork", **own[victim])
    client = clients[victim]
    call = "t.holds.apply_async((path, go, side), queue=q)"
    held = [client.send(call, path=str(path), go=str(go), side=victim, q=queue) for _ in range(2)]
    wait_until(lambda: len(lines(path)) == 2, WAIT, "both of its processes hold one")
    rest = [client.send(call, path=str(path), go=str(go), side=victim, q=queue) for _ in range(8)]
    doomed.kill_node()
    go.touch()
    workers.ready(*[workers.start(side, queue, **own[side]) for side in SIDES])
    assert {client.get(task) for task in (*held, *rest)} <= set(SIDES)
    assert len(lines(path)) >= 12, "the two that were held ran again"


# --- tasks that are not due


def test_a_stopped_celery_worker_gives_back_what_is_not_due(
    broker: Broker, clients: dict[str, Client], workers: Workers
) -> None:
    """It holds such messages in its memory; they come back when it stops, and wait here.

    On RabbitMQ, those of Chervil's clients wait in the broker from the beginning.
    """
    queue = "held-by-celery"
    holder = workers.run("celery", queue)
    due = time.time() + 8
    call = "t.when.apply_async(queue=q, eta=dt.datetime.fromtimestamp(at, dt.UTC))"
    # There, Celery's solo pool asks for the next one only when it is woken.
    senders = [*SIDES] * 3 if broker.kind == "redis" else ["celery"]
    tasks = [(side, clients[side].send(call, q=queue, at=due)) for side in senders]
    for _, task in tasks:
        holder.wait_for_log(rf"{task}\] received", WAIT)
    assert holder.stop(WAIT) == 0
    workers.run("chervil", queue)
    assert min(clients[side].get(task) for side, task in tasks) >= due - 0.001
    assert "succeeded" not in holder.log()


def test_a_stopped_chervil_worker_leaves_what_is_not_due(
    clients: dict[str, Client], workers: Workers
) -> None:
    """Delayed messages wait in the broker, where other Chervil workers find them."""
    queue = "held-by-chervil"
    first = workers.run("chervil", queue)
    due = time.time() + 2
    call = "t.when.apply_async(queue=q, eta=dt.datetime.fromtimestamp(at, dt.UTC))"
    tasks = [(side, clients[side].send(call, q=queue, at=due)) for side in SIDES]
    assert first.stop(WAIT) == 0
    workers.run("chervil", queue)
    assert min(clients[side].get(task) for side, task in tasks) >= due - 0.001


def test_what_a_chervil_worker_cannot_read_is_kept(
    broker: Broker, clients: dict[str, Client], workers: Workers
) -> None:
    """A Celery worker would drop it: content that is not accepted, and signed content."""
    queue = "not-for-us"
    workers.run("chervil", queue, accept_content=["json"])
    client = clients["celery"]
    client.send("t.add.apply_async((1, 2), queue=q, serializer='pickle')", q=queue)
    expected = {"application/x-python-serialize"}
    if broker.kind == "redis":
        signed = unwrap(load("serializer-auth")["raw"])  # its headers are not
        broker.call("LPUSH", queue, signed.replace(b"wire.add", b"interop.add"))
        expected.add("application/data")
    dead = f"[letter.reason for letter in app.broker.dead('{queue}')]"
    wait_until(lambda: len(clients["chervil"](dead)) == len(expected), WAIT)
    found = clients["chervil"](dead)
    assert {reason.split("'")[1] for reason in found} == expected


# --- the same, under a prefix


def test_key_prefix(broker: Broker, conf: dict[str, Any], directory: Path, tmp_path: Path) -> None:
    if broker.kind != "redis":
        pytest.skip("an option of Redis")
    prefix = {"global_keyprefix": "pre:"}
    own = {
        **conf,
        "broker_transport_options": prefix,
        "result_backend_transport_options": prefix,
    }
    workers = Workers(own, tmp_path)
    made = {side: Client(side, own, tmp_path / f"client-{side}.log") for side in SIDES}
    try:
        workers.ready(*[workers.start(side, f"prefixed-{side}") for side in SIDES])
        for sender in SIDES:
            for to in SIDES:
                call = "t.add.apply_async((1, 2), queue=q, countdown=0.1)"
                assert made[sender].run(call, q=f"prefixed-{to}") == 3
    finally:
        for client in made.values():
            client.close()
        left = workers.close()
    assert not left
    keys = broker.call("KEYS", "*prefixed*")
    assert isinstance(keys, list)
    assert all(key.startswith(b"pre:") for key in keys)
    assert broker.call("KEYS", "pre:celery-task-meta-*")
