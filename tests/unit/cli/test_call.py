from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chervil import Chervil
from chervil.drivers.contracts import Settlement
from chervil.wire import envelope, outcomes
from chervil.wire.celery_v2 import decode_body
from chervil.wire.message import Message, Outcome
from tests.unit.cli.conftest import Cli

JSON_ONLY = frozenset({"application/json"})


def sent(app: Chervil, queue: str = "celery") -> Message:
    """The one message in a queue."""
    app.broker.declare(app.router.select([queue], None))
    consumer = app.broker.consumer(app.router.select([queue], None), "test@here")
    try:
        deliveries = consumer.exchange([], 10)
        assert len(deliveries) == 1
        message = envelope.decode(deliveries[0].head, deliveries[0].body)
        consumer.exchange([Settlement(deliveries[0])], 0)
        return message
    finally:
        consumer.close()


def arguments(message: Message) -> tuple[Any, Any]:
    args, kwargs, _ = decode_body(
        message.body, message.content_type, message.content_encoding, None, JSON_ONLY
    )
    return list(args), dict(kwargs)


def test_call_prints_the_id_and_sends(run: Cli, app: Chervil) -> None:
    done = run("call", "shop.add", "-a", "[1]", "-k", '{"y": 2}')
    assert done.exit_code == 0, done.output
    message = sent(app)
    assert done.stdout.strip() == message.id
    assert message.headers["task"] == "shop.add"
    assert arguments(message) == ([1], {"y": 2})


def test_options_of_the_call(run: Cli, app: Chervil) -> None:
    done = run(
        "call", "shop.add", "-a", "[1]", "--queue", "mail", "--priority", "3",
        "--task-id", "my-id", "--expires", "2030-01-01T00:00:00+00:00",
    )  # fmt: skip
    assert done.stdout.strip() == "my-id"
    message = sent(app, "mail")
    assert message.priority == 3
    expires = dt.datetime.fromisoformat(message.headers["expires"])
    assert expires == dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("option", [["--countdown", "600"], ["--eta", "2999-01-01T00:00:00Z"]])
def test_later(run: Cli, app: Chervil, option: list[str]) -> None:
    run("call", "shop.add", "-a", "[1]", *option)
    assert app.broker.depths(["celery"])["celery"].delayed == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["shop.ad"], "Did you mean shop.add"),
        (["add"], "Did you mean shop.add"),
        (["zzzzz"], "It has: "),
        (["shop.add", "-a", "[1"], "not JSON"),
        (["shop.add", "-a", "{}"], "must be an array"),
        (["shop.add", "-k", "[]"], "must be an object"),
        (["shop.add", "--eta", "tomorrow"], "2030-01-31"),
        (["shop.add", "--expires", "soon"], "number of seconds or"),
        (["shop.add", "--eta", "2999-01-01", "--countdown", "1"], "both say when"),
    ],
)
def test_wrong_calls(run: Cli, app: Chervil, args: list[str], says: str) -> None:
    done = run("call", *args)
    assert done.exit_code == 2, done.output
    assert says in " ".join(done.output.split())
    assert sum(d.ready + d.delayed for d in app.broker.depths().values()) == 0


def test_wrong_arguments_are_refused_before_sending(run: Cli, app: Chervil) -> None:
    done = run("call", "shop.add", "-a", "[1, 2, 3]")
    assert done.exit_code == 1
    assert "shop.add" in done.output
    assert sum(d.ready for d in app.broker.depths().values()) == 0


def test_force_sends_a_name_that_is_not_known(run: Cli, app: Chervil) -> None:
    assert run("call", "else.where", "--force").exit_code == 0
    assert sent(app).headers["task"] == "else.where"


@contextmanager
def answering(app: Chervil, status: str, result: Any, **more: Any) -> Iterator[None]:
    """Stands for a worker: answers the first message."""

    def work() -> None:
        consumer = app.broker.consumer(app.router.select(None, None), "w@here")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for delivery in consumer.exchange([], 1):
                message = envelope.decode(delivery.head, delivery.body)
                payload = outcomes.encode(task_id=message.id, status=status, result=result, **more)
                outcome = Outcome(message.id, status, payload, 0, message.reply_to)
                app.backend.put([outcome])
                consumer.exchange([Settlement(delivery)], 0)
                consumer.close()
                return
            time.sleep(0.005)
        consumer.close()

    app.broker.declare(app.router.select(None, None))
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_wait_prints_the_result(run: Cli, app: Chervil) -> None:
    with answering(app, "SUCCESS", {"sum": 3}):
        done = run("call", "shop.add", "-a", "[1, 2]", "--wait", "--timeout", "20")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"sum": 3}
    assert "waiting" in done.stderr


def test_wait_shows_the_failure(run: Cli, app: Chervil) -> None:
    with answering(app, "FAILURE", ValueError("no such luck"), traceback="Traceback: here"):
        done = run("call", "shop.fail", "--timeout", "20")
    assert done.exit_code == 64
    assert done.stdout == ""
    assert "Traceback: here" in done.stderr
    assert "ValueError: no such luck" in done.stderr


def test_wait_times_out(run: Cli) -> None:
    done = run("call", "shop.add", "-a", "[1]", "--timeout", "0.05")
    assert done.exit_code == 65
    assert "No result within 0.05 s; the task is PENDING" in done.stderr


def test_without_an_app_or_broker_it_asks_for_one(run: Cli) -> None:
    done = run("call", "shop.add", app=False)
    assert done.exit_code == 2
    assert "No app given" in done.output


def test_a_broker_alone_is_enough(run: Cli, app: Chervil, sqlite_url: str) -> None:
    done = run("-b", sqlite_url, "call", "shop.other", "-a", "[1]", app=False)
    assert done.exit_code == 0, done.output
    assert app.broker.depths()["celery"].ready == 1
