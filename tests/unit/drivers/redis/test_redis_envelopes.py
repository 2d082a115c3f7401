from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.drivers.contracts import Queue
from chervil.drivers.redis import outcomes, sending
from chervil.drivers.redis.location import Location
from chervil.drivers.redis.names import Names, result_prefix
from chervil.exceptions import ImproperlyConfigured
from chervil.testing.harness import make_message
from chervil.wire.envelope import decode, encode_head
from chervil.wire.message import Outcome

_headers = st.dictionaries(st.text(), st.none() | st.integers(-9, 9) | st.text(), max_size=4)


@given(st.binary(), _headers, st.booleans(), st.integers(0, 12), st.text())
def test_envelopes_can_be_taken_apart(
    body: bytes, headers: dict[str, Any], prepared: bool, priority: int, reply_to: str
) -> None:
    message = make_message("q", body, priority=priority, reply_to=reply_to)
    message.headers = {**headers, **message.headers}
    head = encode_head(message)
    if prepared:
        message.head = head
    data = sending.envelope(message, 0.0)
    if not message.headers.get("retries"):
        assert sending.parts(data) == (head, body)
    whole, apart = decode(data), decode(*sending.parts(data))
    assert whole == apart
    assert whole.body == body
    assert whole.headers == message.headers
    properties = json.loads(data)["properties"]
    assert properties["body_encoding"] == "base64"
    assert properties["delivery_info"] == {"exchange": "", "routing_key": "q"}
    assert properties["priority"] == priority
    assert json.loads(sending.envelope(message, 0.0))["properties"]["delivery_tag"] not in (
        "",
        properties["delivery_tag"],
    )


@given(st.binary())
def test_what_is_no_envelope_of_ours_stays_as_it_is(data: bytes) -> None:
    assert sending.parts(data) == (data, None)
    odd = b'{"body":"' + data
    head, body = sending.parts(odd)
    assert (head, body) == (odd, None)


def test_bodies_that_are_not_base64_stay_in_their_envelope() -> None:
    data = sending.envelope(make_message("q"), 0.0)
    broken = data.replace(b'{"body":"', b'{"body":"A')
    assert sending.parts(broken) == (broken, None)


def test_messages_older_than_themselves_say_when_they_were_sent() -> None:
    message = make_message("q")
    message.headers["retries"] = 2
    data = sending.envelope(message, 1700000000.5)
    assert json.loads(data)["chervil"] == [0, 1700000000500]
    assert decode(data).headers == message.headers


@pytest.mark.parametrize(
    ("priority", "key"),
    [
        (-1, b"q"),
        (0, b"q"),
        (1, b"q"),
        (2, b"q"),
        (3, b"q\x06\x163"),
        (5, b"q\x06\x163"),
        (6, b"q\x06\x166"),
        (8, b"q\x06\x166"),
        (9, b"q\x06\x169"),
        (12, b"q\x06\x169"),
    ],
)
def test_priorities_choose_the_list_as_in_kombu(priority: int, key: bytes) -> None:
    assert Names(Location()).list_of("q", priority) == key


def test_steps_separators_and_prefixes() -> None:
    names = Names(Location(priority_steps=(0, 5), sep=":", global_keyprefix="p-"))
    assert names.lists_of("q") == [b"p-q:chervil", b"p-q", b"p-q:5"]
    assert names.list_of("q", 4) == b"p-q"
    assert names.list_of("q", 7) == b"p-q:5"
    for queue in ("", "\ud800"):
        with pytest.raises(ImproperlyConfigured, match="name of a queue"):
            names.list_of(queue, 0)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("", "celery-task-meta-"), ("res", "res_celery-task-meta-"), ("a:", "a:celery-task-meta-")],
)
def test_prefixes_of_results_are_celerys(prefix: str, expected: str) -> None:
    assert result_prefix(Location(global_keyprefix=prefix)) == expected.encode()


def test_bindings_are_kombus() -> None:
    names = Names(Location())
    queues = [
        Queue("plain"),
        Queue("celery", "celery", "direct", "celery"),
        Queue("tq", "ex", "topic", "a.#"),
        Queue("short", "ex", "topic", "*.b-c", queue_arguments={"x-expires": 9}),
        Queue("all", "f", "fanout"),
    ]
    both = [b"_kombu.binding.%b", b"_kombu.binding_permanent.%b"]
    assert names.bindings(queues) == [
        *(("SADD", table % b"celery", "celery\x06\x16\x06\x16celery") for table in both),
        *(("SADD", table % b"ex", "a.#\x06\x16^a\\..*?$\x06\x16tq") for table in both),
        ("SADD", b"_kombu.binding.ex", "*.b-c\x06\x16^.*?[^\\.]\\.b\\-c$\x06\x16short"),
    ]


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b'{"status":"SUCCESS","result":1}', "SUCCESS"),
        (b'{"status": "RETRY", "result": null}', "RETRY"),
        (b'{"status":"a\\u00e4"}', None),
        (b'{"result":1,"status":"SUCCESS"}', None),
        (b"{}", None),
        (b"\x80\x04\x95", None),
        (b"", None),
    ],
)
def test_statuses_are_read_from_the_beginning(payload: bytes, status: str | None) -> None:
    assert outcomes.status_in(payload) == status
    (task_id, life, mark, address, stored) = outcomes.arguments(
        [Outcome("i", "SUCCESS", payload, reply_to="me")], 0.0
    )
    assert (task_id, life, address, stored) == ("i", b"", "me", payload)
    assert (mark == b"") == (status == "SUCCESS")
