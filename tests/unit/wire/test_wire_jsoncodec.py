"""Typed JSON against a slow, obvious oracle: the json module with Celery's hooks."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chervil.exceptions import DecodeError, EncodeError
from chervil.wire import jsoncodec


def oracle_default(value: Any) -> Any:
    if hasattr(value, "__json__"):
        return value.__json__()
    for cls, marker, encoder in (
        (dt.datetime, "datetime", lambda v: v.isoformat()),
        (dt.date, "date", lambda v: v.isoformat()),
        (dt.time, "time", lambda v: v.isoformat()),
        (decimal.Decimal, "decimal", str),
        (uuid.UUID, "uuid", lambda v: {"hex": v.hex}),
    ):
        if isinstance(value, cls):
            return {"__type__": marker, "__value__": encoder(value)}
    if isinstance(value, bytes):
        try:
            return {"__type__": "bytes", "__value__": value.decode()}
        except UnicodeDecodeError:
            return {"__type__": "base64", "__value__": base64.b64encode(value).decode()}
    raise TypeError(value)


def oracle_hook(found: dict[str, Any]) -> Any:
    if set(found) != {"__type__", "__value__"}:
        return found
    value = found["__value__"]
    return {
        "datetime": dt.datetime.fromisoformat,
        "date": dt.date.fromisoformat,
        "time": dt.time.fromisoformat,
        "decimal": decimal.Decimal,
        "uuid": lambda v: uuid.UUID(**v),
        "bytes": lambda v: v.encode(),
        "base64": base64.b64decode,
    }[found["__type__"]](value)


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    def __str__(self) -> str:
        return "not the text"


class Number(int):
    def __repr__(self) -> str:
        return "not the number"


class Ratio(float):
    pass


class Speaks:
    def __json__(self) -> Any:
        return {"speaks": [1, b"x"]}


Pair = namedtuple("Pair", "a b")
texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=12)
plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.integers(-(10**40), 10**40)
)
special = st.one_of(
    st.datetimes(timezones=st.none() | st.just(dt.UTC)),
    st.dates(),
    st.times(),
    st.decimals(),
    st.uuids(),
    st.binary(max_size=8),
    st.just(Colour.RED),
    st.builds(Word, texts),
    st.builds(Number, st.integers()),
    st.builds(Ratio, st.floats()),
    st.builds(Speaks),
    st.just(Pair(1, "b")),
    st.just(OrderedDict(z=1, a=2)),
)
keys = st.one_of(texts, st.integers(), st.booleans(), st.none(), st.floats(), st.just(Word("k")))


def nested(leaves: st.SearchStrategy[Any], names: st.SearchStrategy[Any]) -> Any:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(names, inner, max_size=4),
        ),
        max_leaves=12,
    )


@settings(max_examples=400)
@given(st.one_of(nested(plain, texts), nested(plain | special, keys)))
@example(float("nan"))
@example([1.5, -math.inf])
@example({"a": [{"b": (1, "\ud800")}]})
@example({1: 2, "1": 3})
@example({True: 1, None: 2})
@example([[[[[[[[[[[[1]]]]]]]]]]]])
@example(2**64)
def test_means_the_same_as_the_oracle(value: Any) -> None:
    expected = json.dumps(value, default=oracle_default)
    written = jsoncodec.dumps(value)
    assert json.dumps(json.loads(written)) == json.dumps(json.loads(expected))
    read = jsoncodec.loads(written)
    assert repr(read) == repr(json.loads(expected, object_hook=oracle_hook))
    assert repr(jsoncodec.loads(expected)) == repr(jsoncodec.loads(expected.encode())) == repr(read)


@settings(max_examples=400)
@given(
    st.one_of(
        st.binary(max_size=40), st.text(alphabet='[]{}",:0123456789.eE-+ntfNI\\u_y', max_size=30)
    )
)
@example(b"\xef\xbb\xbf1")
@example('{"__type__": []}')
@example('{"__type__": [], "__value__": 1}')
@example('{"__type__": "uuid", "__value__": null}')
@example('{"__type__": "decimal", "__value__": "x"}')
@example('"\\ud800"')
@example("1e400")
@example("[" * 100_000)
@example("9" * 5000)
@example('{"__type__": 1, "__value__": ' + "[" * 100_000)
def test_any_bytes_are_read_like_the_oracle_or_refused(data: Any) -> None:
    try:
        expected = json.loads(
            data.decode() if isinstance(data, bytes) else data, object_hook=oracle_hook
        )
    except Exception:
        with pytest.raises(DecodeError):
            jsoncodec.loads(data)
    else:
        assert repr(jsoncodec.loads(data)) == repr(expected)


@given(nested(plain | special, keys))
def test_fast_path_is_taken_only_for_what_it_writes_alike(value: Any) -> None:
    if jsoncodec.is_plain(value):
        try:
            fast = jsoncodec.fast_encode(value)
        except UnicodeEncodeError:
            return
        assert repr(json.loads(fast)) == repr(json.loads(json.dumps(value)))


def test_fast_path_is_taken() -> None:
    for value in (1, "x", None, True, 1.5, [1, "x"], (1,), {"a": 1}, {"a": [{"b": (1.5, {})}]}):
        assert jsoncodec.is_plain(value), value
    for value in (
        math.nan,
        b"x",
        {1: 2},
        [dt.date.today()],
        [[math.inf]],
        {"a": {1: 2}},
        {1},
        Colour.RED,
    ):
        assert not jsoncodec.is_plain(value), value


def test_value_that_contains_itself() -> None:
    ring: list[Any] = []
    ring.extend([ring] * 10)
    with pytest.raises(EncodeError, match="Circular"):
        jsoncodec.dumps(ring)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1, 2}, r"\{1, 2\} of type builtins\.set.*__json__"),
        ([object], "builtins.type"),
        ({"k": object()}, "object object"),
        ({(1, 2): 3}, "keys must be"),
        (Speaks, "Speaks"),
        (10**5000, "4300"),
    ],
    ids=["set", "class", "object", "key", "class with __json__", "digits"],
)
def test_refused_values_are_named(value: Any, text: str) -> None:
    with pytest.raises(EncodeError, match=text):
        jsoncodec.dumps(value)


class Broken:
    def __json__(self) -> Any:
        raise ZeroDivisionError("inside")

    def __repr__(self) -> str:
        raise ZeroDivisionError("inside repr")


def test_errors_in_user_code_become_encode_errors() -> None:
    with pytest.raises(EncodeError, match="inside"):
        jsoncodec.dumps([Broken()])


@pytest.mark.parametrize(
    "data",
    [
        '{"__type__": "foo", "__value__": 1}',
        '{"__type__": null, "__value__": 1}',
        '{"__type__": "datetime", "__value__": 5}',
        '{"__type__": "base64", "__value__": "a"}',
    ],
)
def test_markers_that_make_no_sense(data: str) -> None:
    with pytest.raises(DecodeError, match="type marker"):
        jsoncodec.loads(data)


def test_marker_with_more_or_fewer_keys_is_left_alone() -> None:
    for data in ('{"__type__": "foo"}', '{"__type__": "foo", "__value__": 1, "z": 2}'):
        assert jsoncodec.loads(data) == json.loads(data)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


class Point3(Point):
    pass


def test_types_of_ones_own() -> None:
    jsoncodec.register_type(Point, "point", lambda p: [p.x], lambda v: Point(v[0]))
    try:
        data = jsoncodec.dumps({"p": Point3(4)})
        assert json.loads(data) == {"p": {"__type__": "point", "__value__": [4]}}
        assert jsoncodec.loads(data)["p"].x == 4
    finally:
        jsoncodec.unregister_type(Point)
    with pytest.raises(EncodeError):
        jsoncodec.dumps(Point(1))
    with pytest.raises(DecodeError):
        jsoncodec.loads(data)


def test_types_without_a_marker() -> None:
    jsoncodec.register_type(Point, None, lambda p: p.x)
    try:
        assert jsoncodec.dumps([Point(4)]) == b"[4]"
    finally:
        jsoncodec.unregister_type(Point)
    with pytest.raises(EncodeError, match="decoder"):
        jsoncodec.register_type(Point, "point", lambda p: p.x)
