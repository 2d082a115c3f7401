"""Bodies of task messages: what we write, and whatever may arrive."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chervil.exceptions import ContentDisallowed, DecodeError, EncodeError
from chervil.wire import celery_v1, celery_v2, compression, serializers
from chervil.wire.message import Message

NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
SIGNATURE = {
    "task": "t",
    "args": [1],
    "kwargs": {},
    "options": {},
    "subtask_type": None,
    "immutable": False,
}
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
values = plain | st.dates() | st.binary(max_size=5) | st.uuids() | st.decimals(allow_nan=False)
signatures = st.lists(st.just(SIGNATURE), max_size=2)
embeds = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "callbacks": st.none() | signatures,
        "errbacks": signatures,
        "chain": signatures,
        "chord": st.none() | st.just(SIGNATURE),
    },
)


def complete(embed: Any) -> dict[str, Any]:
    return {**NOTHING, **(embed or {})}


@settings(max_examples=200)
@given(
    args=st.lists(values, max_size=4),
    kwargs=st.dictionaries(st.text(max_size=5), values, max_size=3),
    embed=embeds,
    how=st.sampled_from([None, "zlib", "zstd"]),
)
def test_round_trip_of_json(args: Any, kwargs: Any, embed: Any, how: str | None) -> None:
    for given_args in (args, tuple(args)):
        body = celery_v2.encode_body(given_args, kwargs, embed, "json", how)
        assert (body.content_type, body.content_encoding) == ("application/json", "utf-8")
        found = celery_v2.decode_body(*body, accept=frozenset({"application/json"}))
        assert found == (args, kwargs, complete(embed))


@given(
    args=st.lists(plain, max_size=4),
    kwargs=st.dictionaries(st.text(max_size=5), plain, max_size=3),
    embed=embeds,
    serializer=st.sampled_from(["pickle", "msgpack"]),
)
def test_round_trip_of_others(args: Any, kwargs: Any, embed: Any, serializer: str) -> None:
    body = celery_v2.encode_body(tuple(args), kwargs, embed, serializer)
    assert celery_v2.decode_body(*body) == (args, kwargs, complete(embed))


@given(plain, st.text())
def test_what_is_written_is_what_celery_writes(value: Any, key: str) -> None:
    body = celery_v2.encode_body((value,), {key: value}, None)
    assert json.loads(body.data) == [[value], {key: value}, NOTHING]
    args, kwargs, embed = pickle.loads(celery_v2.encode_body([value], {}, None, "pickle").data)
    assert (args, kwargs, embed) == ((value,), {}, NOTHING)


def test_lone_surrogates_and_other_oddities_survive() -> None:
    for args in (["\ud800"], [float("inf")], [2**70], [{"a": ["\udfff"]}], [dt.date(2030, 1, 1)]):
        body = celery_v2.encode_body(args, {}, None)
        assert celery_v2.decode_body(*body) == (args, {}, NOTHING)


def test_refused_arguments_are_named() -> None:
    with pytest.raises(EncodeError, match=r"json cannot serialize \{1\} of type builtins\.set"):
        celery_v2.encode_body(({1},), {}, None)
    with pytest.raises(EncodeError, match="no-such"):
        celery_v2.encode_body((), {}, None, "no-such")
    with pytest.raises(EncodeError, match="no-such"):
        celery_v2.encode_body((), {}, None, "json", "no-such")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[[1], {}, {}]", ([1], {}, {})),
        ("[[1], {}, null]", ([1], {}, {})),
        ("[[1], {}]", ([1], {}, {})),
        ("[null, null, null]", ([], {}, {})),
        ('{"args": [1], "kwargs": {"a": 2}}', ([1], {"a": 2}, NOTHING)),
        ('{"args": [1], "chord": {"task": "t"}}', ([1], {}, {**NOTHING, "chord": {"task": "t"}})),
        ('[[1], {}, {"chain": [], "x": 5}]', ([1], {}, {"chain": [], "x": 5})),
    ],
)
def test_forms_that_are_understood(body: str, expected: Any) -> None:
    assert celery_v2.decode_body(body.encode(), "application/json") == expected


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("[]", r"a body is \[args, kwargs, embed\], this is \[\]"),
        ("[[1]]", "a body is"),
        ("[[1], {}, {}, 4]", "a body is"),
        ("5", "this is 5"),
        ('"text"', "this is 'text'"),
        ("null", "this is None"),
        ("[5, {}, {}]", "args of a body are a list, these are 5"),
        ('["ab", {}, {}]', "these are 'ab'"),
        ("[[], [1], {}]", r"kwargs of a body.*\[1\]"),
        ("[[], {}, [1]]", r"embed of a body is a map, this is \[1\]"),
        ('[[], {}, {"chain": 5}]', "chain is a list of signatures, this is 5"),
        ('[[], {}, {"callbacks": [5]}]', "callbacks is a list of signatures"),
        ('[[], {}, {"chord": []}]', r"chord is a signature, this is \[\]"),
        ("{}", "needs args and kwargs"),
        ('{"args": 5}', "args of a body"),
        ("", "not valid JSON"),
        ("[[1], {}, {}", "not valid JSON"),
    ],
)
def test_what_is_no_body(body: str, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        celery_v2.decode_body(body.encode(), "application/json")


def test_names_of_arguments_are_text() -> None:
    data = pickle.dumps(((), {1: 2}, None))
    with pytest.raises(DecodeError, match=r"names as keys, these are \{1: 2\}"):
        celery_v2.decode_body(data, "application/x-python-serialize", "binary")


junk = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["args", "kwargs", "callbacks", "chord", "chain", "__type__", "__value__", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    value=junk,
    serializer=st.sampled_from(["json", "yaml", "msgpack", "pickle"]),
    how=st.sampled_from([None, "zlib", "bzip2", "no/such", "brotli"]),
    declared=st.sampled_from([None, "application/json", "application/x-yaml", "x/y", ""]),
    charset=st.sampled_from(["utf-8", "binary", "latin-1", "utf-16", "nonsense", ""]),
    damage=st.binary(max_size=4),
)
@example([[], {}, {}], "json", None, None, "utf-8", b"\xff")
def test_nothing_but_decode_errors(
    value: Any, serializer: str, how: str | None, declared: str | None, charset: str, damage: bytes
) -> None:
    try:
        content_type, _, data = serializers.dumps(value, serializer)
    except EncodeError:
        return
    if how in ("zlib", "bzip2"):
        data, how = compression.compress(data, how)
    try:
        args, kwargs, embed = celery_v2.decode_body(
            data + damage, declared or content_type, charset, how
        )
    except DecodeError:
        return
    assert type(args) is list
    assert all(isinstance(key, str) for key in kwargs)
    assert isinstance(embed, dict)


def test_compressed_bodies_are_not_unpacked_before_they_are_accepted() -> None:
    with pytest.raises(ContentDisallowed):
        celery_v2.decode_body(b"no zlib", "x/y", "utf-8", "application/x-gzip", frozenset({"a/b"}))


# --- protocol 1 ------------------------------------------------------------------------------


def v1(body: Any, **headers: Any) -> Message:
    return Message(headers, json.dumps(body).encode(), "application/json", "utf-8", "q")


def test_protocol_1_minimum() -> None:
    new = celery_v1.upgrade(v1({"task": "t", "id": "i", "args": [1], "kwargs": {"a": 2}}, x=5))
    assert new.headers["x"] == 5
    assert (new.headers["task"], new.id, new.queue) == ("t", "i", "q")
    assert new.headers["argsrepr"] == "(1,)"
    assert new.headers["kwargsrepr"] == "{'a': 2}"
    assert celery_v2.decode_body(new.body, new.content_type) == ([1], {"a": 2}, NOTHING)


@pytest.mark.parametrize(
    ("eta", "utc", "expected"),
    [
        ("2030-01-02T03:04:05", True, "2030-01-02T03:04:05+00:00"),
        ("2030-01-02T03:04:05", False, "2030-01-02T03:04:05"),
        ("2030-01-02T03:04:05-02:00", True, "2030-01-02T03:04:05-02:00"),
        ("2030-01-02T03:04:05Z", True, "2030-01-02T03:04:05Z"),
        (None, True, None),
    ],
)
def test_protocol_1_times(eta: str | None, utc: bool, expected: str | None) -> None:
    body = {"task": "t", "id": "i", "args": [], "kwargs": {}, "eta": eta, "utc": utc}
    assert celery_v1.upgrade(v1(body)).headers["eta"] == expected


def test_protocol_1_group_and_compression() -> None:
    message = v1({"task": "t", "id": "i", "args": [], "kwargs": {}, "taskset": "g"})
    message.body, how = compression.compress(message.body, "zlib")
    message.headers["compression"] = how
    new = celery_v1.upgrade(message)
    assert new.headers["group"] == "g"
    assert new.headers["compression"] == how
    assert celery_v2.decode_body(new.body, new.content_type, "utf-8", how) == ([], {}, NOTHING)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([[], {}, {}], "headers name no task"),
        ({"id": "i", "args": [], "kwargs": {}}, "without task"),
        ({"task": "t", "args": [], "kwargs": {}}, "without id"),
        ({"task": "", "id": "i", "args": []}, "without task"),
        ({"task": "t", "id": 5, "args": []}, "without id"),
        ({"task": "t", "id": "i"}, "needs args and kwargs"),
        (5, "headers name no task"),
    ],
)
def test_what_is_no_protocol_1(body: Any, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        celery_v1.upgrade(v1(body))


@given(junk.filter(lambda value: b"x" not in repr(value).encode()))
def test_protocol_1_nothing_but_decode_errors(value: Any) -> None:
    try:
        data = serializers.dumps(value, "json")[2]
    except EncodeError:
        return
    for compressed in (None, 5, [], "x/y"):
        message = Message({"compression": compressed}, data, "application/json", "utf-8", "q")
        with pytest.raises(DecodeError):
            celery_v1.upgrade(message)
