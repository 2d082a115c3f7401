"""What a call says, sent by one side and understood by the other."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Broker, Pair
from tests.interop.sides import WAIT
from tests.support.waiting import lines, wait_until

SERIALIZERS = ("json", "pickle", "yaml", "msgpack")
COMPRESSIONS = ("zlib", "gzip", "bzip2", "lzma", "brotli", "zstd")


# --- arguments


CALLS: dict[str, tuple[str, Any]] = {
    "none": ("t.shown.apply_async(queue=q)", ((), {})),
    "args": (
        "t.shown.apply_async((1, 'two', None, [3.5, True]), queue=q)",
        ((1, "two", None, [3.5, True]), {}),
    ),
    "kwargs": (
        "t.shown.apply_async(kwargs={'x': 1, 'y': {'z': [None]}}, queue=q)",
        ((), {"x": 1, "y": {"z": [None]}}),
    ),
    "both": ("t.shown.apply_async((1,), {'x': 2}, queue=q)", ((1,), {"x": 2})),
    "signature": ("t.shown.s(1, x=2).set(queue=q).delay(0)", ((0, 1), {"x": 2})),
    "by-name": ("app.send_task('interop.shown', (1,), {'x': 2}, queue=q)", ((1,), {"x": 2})),
    "signature-by-name": (
        "app.signature('interop.shown', args=(1,), kwargs={'x': 2}, queue=q).apply_async()",
        ((1,), {"x": 2}),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments(pair: Pair, name: str) -> None:
    call, expected = CALLS[name]
    assert pair.client.run(call, q=pair.queue) == repr(expected)


TYPED = {
    "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC),
    "naive-datetime": dt.datetime(2026, 1, 2, 3, 4, 5),
    "zoned-datetime": dt.datetime(2026, 7, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "date": dt.date(2026, 1, 2),
    "time": dt.time(3, 4, 5, 6),
    "decimal": Decimal("1.10"),
    "uuid": uuid.UUID("12345678123456781234567812345678"),
    "bytes": b"abc",
    "binary": bytes(range(256)),
    "unicode": "\u017b\u00f3\u0142w \u2603 \U0001f40d \u202e \x00 \x7f",
    "large-number": 2**70,
    "empty": "",
    "infinity": float("inf"),
    "nested": {"when": [dt.date(2026, 1, 2), {"how": Decimal("0.30")}]},
}


@pytest.mark.parametrize("name", TYPED)
def test_typed_values_arrive_and_return(pair: Pair, name: str) -> None:
    """As an argument, and as a result."""
    value = TYPED[name]
    text = repr(value).replace("datetime.", "dt.")
    shown = pair.client.run(f"t.shown.apply_async(({text},), queue=q)", q=pair.queue)
    assert shown == repr(((value,), {}))
    back = pair.client.run(f"t.same.apply_async(({text},), queue=q)", q=pair.queue)
    assert back in (value, repr(value))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_large_messages(pair: Pair, compression: str | None) -> None:
    call = "t.size.apply_async(('\u00fc' * 2_500_000,), queue=q, compression=c)"
    assert pair.client.run(call, q=pair.queue, c=compression) == 2_500_000


def test_large_results(pair: Pair) -> None:
    task = pair.client.send("t.same.apply_async(('x' * 5_000_000,), queue=q)", q=pair.queue)
    assert pair.client(f"len(sent[id].get(timeout={WAIT}))", id=task) == 5_000_000


# --- serializers and compression


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_serializers(pair: Pair, serializer: str) -> None:
    call = "t.shown.apply_async((1, 'zw\u00f6', [None, 2.5]), {'k': {'n': -1}}, queue=q, **o)"
    shown = pair.client.run(call, q=pair.queue, o={"serializer": serializer})
    assert shown == repr(((1, "zw\u00f6", [None, 2.5]), {"k": {"n": -1}}))


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressions(pair: Pair, compression: str, serializer: str) -> None:
    options = {"serializer": serializer, "compression": compression}
    call = "t.size.apply_async(('long ' * 1000,), queue=q, **o)"
    assert pair.client.run(call, q=pair.queue, o=options) == 5000


@pytest.mark.parametrize(
    ("serializer", "text"),
    [
        ("pickle", "{1, 2}"),
        ("pickle", "dt.timedelta(seconds=3)"),
        ("yaml", "dt.date(2026, 1, 2)"),
        ("msgpack", "b'\\xff\\x00'"),
    ],
)
def test_what_only_one_serializer_can(pair: Pair, serializer: str, text: str) -> None:
    call = f"t.shown.apply_async(({text},), queue=q, serializer=s)"
    shown = pair.client.run(call, q=pair.queue, s=serializer)
    expected = eval(text, {"dt": dt})
    assert shown == repr(((expected,), {}))


# --- time

#: Seconds: long enough that a worker which does not wait is seen.
DELAY = 0.3


@pytest.mark.parametrize(
    "option",
    [
        f"countdown={DELAY}",
        "eta=dt.datetime.fromtimestamp(at, dt.UTC)",
        "eta=dt.datetime.fromtimestamp(at, dt.UTC).replace(tzinfo=None)",
        "eta=dt.datetime.fromtimestamp(at, ZoneInfo('Asia/Kolkata'))",
        "eta=dt.datetime.fromtimestamp(at, dt.timezone(dt.timedelta(hours=-9)))",
        "eta=dt.datetime.fromtimestamp(at, dt.UTC).isoformat()",
    ],
    ids=["countdown", "aware", "naive", "zone", "offset", "text"],
)
def test_eta(pair: Pair, option: str) -> None:
    if option.endswith("isoformat()") and pair.client.side == "celery":
        pytest.skip("only Chervil's clients take text")
    at = time.time() + DELAY
    ran = pair.client.run(f"t.when.apply_async(queue=q, {option})", q=pair.queue, at=at)
    assert ran >= at - 0.001


@pytest.mark.parametrize(
    "option", [f"countdown={DELAY}", "eta=dt.datetime.fromtimestamp(at, dt.UTC)"]
)
@pytest.mark.parametrize("utc", [True, False], ids=["utc", "local"])
def test_eta_from_a_client_in_another_zone(pair: Pair, option: str, utc: bool) -> None:
    call = f"on(timezone='Europe/Warsaw', enable_utc=utc).t.when.apply_async(queue=q, {option})"
    at = time.time() + DELAY
    assert pair.client.run(call, q=pair.queue, at=at, utc=utc) >= at - 0.001


@pytest.mark.parametrize(
    "option",
    ["expires=600", "expires=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)"],
    ids=["seconds", "datetime"],
)
def test_not_expired(pair: Pair, option: str) -> None:
    assert pair.client.run(f"t.add.apply_async((1, 2), queue=q, {option})", q=pair.queue) == 3


@pytest.mark.parametrize(
    "option",
    [
        "expires=-5",
        "expires=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)",
        "expires=dt.datetime.now(ZoneInfo('Asia/Kolkata')) - dt.timedelta(seconds=1)",
        "expires=0.1, countdown=0.3",
    ],
    ids=["seconds", "datetime", "zone", "while-waiting"],
)
def test_expired(pair: Pair, option: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    call = f"t.record.apply_async((path, 'x'), queue=q, {option})"
    task = pair.client.send(call, q=pair.queue, path=str(ran))
    failure = pair.client.failure(task)
    assert failure[:2] == ("REVOKED", "TaskRevokedError")
    assert failure.args == ("expired",)
    assert not ran.exists()


# --- what else a message carries


def test_request(pair: Pair, broker: Broker) -> None:
    options = {
        "task_id": str(uuid.uuid4()),
        "headers": {"x-mine": {"a": [1]}},
        "shadow": "another name",
        "argsrepr": "(secret)",
        "kwargsrepr": "{hidden}",
        "reply_to": "nobody",
        "root_id": "the-root",
        "parent_id": "the-parent",
        "time_limit": 300,
        "soft_time_limit": 200,
        "priority": 3,
    }
    if broker.results == "rpc://":
        del options["reply_to"]  # the result would not come here
    found = pair.client.run("t.request.apply_async(queue=q, **o)", q=pair.queue, o=options)
    same = {"argsrepr", "kwargsrepr", "shadow", "reply_to", "root_id", "parent_id", "priority"}
    same &= options.keys()
    assert {key: found[key] for key in same} == {key: options[key] for key in same}
    assert found["id"] == found["correlation_id"] == options["task_id"]
    assert found["x-mine"] == {"a": [1]}
    assert list(found["timelimit"]) == [300, 200]
    assert (found["task"], found["retries"], found["lang"]) == ("interop.request", 0, "py")
    assert found["routing_key"] == pair.queue
    assert found["origin"].startswith("gen")


def test_defaults_of_the_request(pair: Pair) -> None:
    found = pair.client.run("t.request.apply_async(queue=q)", q=pair.queue)
    assert found["root_id"] == found["id"]
    assert found["reply_to"]
    for name in ("parent_id", "group", "shadow", "x-mine"):
        assert found[name] is None
    assert found["argsrepr"] == "()"
    assert found["kwargsrepr"] == "{}"
    assert list(found["timelimit"]) == [None, None]


# --- the old format, routes


@pytest.mark.parametrize("option", ["", "countdown=0.3", "expires=600", "compression='zlib'"])
def test_protocol_1(pair: Pair, option: str) -> None:
    """Read by both sides; written by Celery only."""
    call = f"on(task_protocol=1).t.shown.apply_async((1,), {{'x': 2}}, queue=q, {option})"
    if pair.client.side == "chervil":
        with pytest.raises(Exception, match="task_protocol"):
            pair.client.send(call, q=pair.queue)
        return
    assert pair.client.run(call, q=pair.queue) == repr(((1,), {"x": 2}))


ROUTES: dict[str, Any] = {
    "name": {"interop.where": {"queue": "{q}"}},
    "glob": {"interop.w*": {"queue": "{q}"}},
    "list": [[("interop.where", {"queue": "{q}", "priority": 6})]],
}


@pytest.mark.parametrize("kind", ROUTES)
def test_routes(pair: Pair, kind: str) -> None:
    routes = repr(ROUTES[kind]).replace("{q}", pair.queue)
    assert pair.client.run(f"on(task_routes={routes}).t.where.delay()") == pair.to


def test_stamps(pair: Pair) -> None:
    options = {"stamped_headers": ["tenant"], "tenant": ["acme"]}
    found = pair.client.run("t.stamps.apply_async(queue=q, **o)", q=pair.queue, o=options)
    assert found == [["tenant"], {"tenant": ["acme"]}]


def test_default_queue(pair: Pair) -> None:
    assert pair.client.run("on(task_default_queue=q).t.where.delay()", q=pair.queue) == pair.to


def test_a_queue_that_both_serve(pair: Pair, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    call = "[t.works.apply_async((path, n), queue='both', ignore_result=True) for n in range(40)]"
    pair.client(f"len({call})", path=str(ran))
    wait_until(lambda: len(lines(ran)) >= 40, WAIT)
    found = [line.split() for line in lines(ran)]
    assert sorted(int(number) for _, number in found) == list(range(40))
