"""The registry, and the serializers other than JSON."""

from __future__ import annotations

import builtins
import datetime as dt
import enum
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil import exceptions
from chervil.canvas.signature import Signature
from chervil.exceptions import (
    ContentDisallowed,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    MissingDependency,
)
from chervil.wire import celery_v2, jsoncodec, outcomes, serializers

msgpack = pytest.importorskip("msgpack")

TYPES = {
    "json": "application/json",
    "pickle": "application/x-python-serialize",
    "yaml": "application/x-yaml",
    "msgpack": "application/x-msgpack",
}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("name", TYPES)
@given(value=values)
def test_round_trip(name: str, value: Any) -> None:
    content_type, encoding, data = serializers.dumps(value, name)
    assert content_type == TYPES[name]
    assert encoding == ("utf-8" if name in ("json", "yaml") else "binary")
    assert serializers.loads(data, content_type, encoding, frozenset({content_type})) == value
    assert serializers.dumps(value, content_type)[2] == data


@pytest.mark.parametrize("name", TYPES)
@given(data=st.binary(max_size=60))
def test_junk_is_refused_and_nothing_else(name: str, data: bytes) -> None:
    if name == "pickle":
        data = b"\x80\x04" + bytes(byte for byte in data if byte not in b"cioR\x93\x81\x92")
    try:
        serializers.loads(data, TYPES[name], "utf-8")
    except DecodeError:
        pass


@given(values | st.binary(max_size=20) | st.dictionaries(st.integers(0, 9), st.binary(max_size=3)))
def test_msgpack_is_what_the_msgpack_library_writes_and_reads(value: Any) -> None:
    data = serializers.dumps(value, "msgpack")[2]
    assert data == msgpack.packb(value, use_bin_type=True)
    assert serializers.loads(data, TYPES["msgpack"]) == value
    assert msgpack.unpackb(data, strict_map_key=False) == value


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    def __str__(self) -> str:
        return "not the text"


def test_msgpack_of_subclasses() -> None:
    value = {"c": Colour.RED, "w": Word("w"), "t": (1, 2), "f": float("inf"), "b": bytearray(b"x")}
    data = serializers.dumps(value, "msgpack")[2]
    assert data == msgpack.packb(value, use_bin_type=True)


@pytest.mark.parametrize(
    "value",
    [{1, 2}, dt.datetime.now(), dt.date.today(), object(), 2**64, "\ud800", {"a": [object()]}],
)
def test_msgpack_refuses_what_the_msgpack_library_refuses(value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        msgpack.packb(value, use_bin_type=True)
    with pytest.raises(EncodeError, match="msgpack cannot serialize"):
        serializers.dumps(value, "msgpack")


def test_yaml_knows_dates_and_refuses_objects() -> None:
    value = {"d": dt.datetime(2030, 1, 2, 3, 4, 5), "b": b"\xff"}
    data = serializers.dumps(value, "yaml")[2]
    assert serializers.loads(data, TYPES["yaml"]) == value
    with pytest.raises(EncodeError, match="yaml cannot serialize"):
        serializers.dumps(object(), "yaml")
    with pytest.raises(DecodeError):
        serializers.loads(b"!!python/object/apply:os.system ['true']", TYPES["yaml"])


def test_pickle_names_what_it_cannot_serialize() -> None:
    with pytest.raises(EncodeError, match=r"pickle cannot serialize.*lambda"):
        serializers.dumps([lambda: 1], "pickle")


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_signatures_are_written_as_maps(serializer: str) -> None:
    """Celery's workers read them, and have no class of ours."""
    signature = Signature("add", (1,), {"y": 2}, link=[Signature("after")])
    embed = {"callbacks": [signature], "errbacks": None, "chain": None, "chord": None}
    content_type, encoding, data = serializers.dumps(((), {}, embed), serializer)
    assert b"chervil" not in data
    found = serializers.loads(data, content_type, encoding)[2]["callbacks"][0]
    assert type(found) is type(found["options"]["link"][0]) is dict
    assert (found["task"], found["options"]["link"][0]["task"]) == ("add", "after")
    assert set(found) == set(signature)


def _as_celery_pickles(module: str, name: str, argument: bytes) -> bytes:
    """A call of a function that need not exist here, in pickle's own words."""
    return b"".join((b"c", module.encode(), b"\n", name.encode(), b"\n(", argument, b"tR."))


def test_pickles_of_celery_need_no_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("celery", "celery.canvas", "celery.exceptions", "billiard"):
        monkeypatch.setitem(sys.modules, module, None)
    kind = "application/x-python-serialize"
    data = _as_celery_pickles("celery.canvas", "signature", b"(dVtask\nVadd\ns")
    assert serializers.loads(data, kind, "binary") == {"task": "add"}
    data = _as_celery_pickles("celery.exceptions", "NotRegistered", b"Vadd\n")
    error = serializers.loads(data, kind, "binary")
    assert type(error) is exceptions.NotRegistered
    assert error.args == ("add",)
    data = _as_celery_pickles("celery.canvas", "something", b"")
    with pytest.raises(DecodeError, match="celery"):
        serializers.loads(data, kind, "binary")


def test_yaml_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingDependency, match=r"chervil\[yaml\]") as caught:
        serializers.dumps(1, "yaml")
    assert not isinstance(caught.value, DecodeError)
    with pytest.raises(MissingDependency, match=r"chervil\[yaml\]") as caught:
        serializers.loads(b"1", TYPES["yaml"])
    assert isinstance(caught.value, DecodeError)


def test_only_accepted_content_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(builtins, "print", called.append)
    evil = b"cbuiltins\nprint\n(S'run'\ntR."
    with pytest.raises(ContentDisallowed, match=r"x-python-serialize.*allows application/json"):
        serializers.loads(evil, TYPES["pickle"], "binary", serializers.accept_types(["json"]))
    with pytest.raises(ContentDisallowed, match="allows nothing"):
        serializers.loads(evil, TYPES["pickle"], "binary", frozenset())
    assert called == []
    serializers.loads(evil, TYPES["pickle"], "binary", serializers.accept_types(["pickle"]))
    assert called == ["run"]


def test_accept_types() -> None:
    assert serializers.accept_types(["json", "application/x-yaml"]) == {
        TYPES["json"],
        TYPES["yaml"],
    }
    assert serializers.accept_types([]) == frozenset()
    with pytest.raises(
        ImproperlyConfigured, match="'jsno' is not registered; known: json, msgpack"
    ):
        serializers.accept_types(["jsno"])
    with pytest.raises(ImproperlyConfigured, match="application/x-foo"):
        serializers.accept_types(["application/x-foo"])
    with pytest.raises(ImproperlyConfigured, match=r"\['json'\]"):
        serializers.accept_types("json")


def test_unknown_names() -> None:
    with pytest.raises(EncodeError, match="'jsno' is not registered"):
        serializers.dumps(1, "jsno")
    with pytest.raises(DecodeError, match="application/x-foo"):
        serializers.loads(b"1", "application/x-foo")


def test_other_charsets() -> None:
    assert serializers.loads('["żółć"]'.encode("iso-8859-2"), TYPES["json"], "iso-8859-2") == [
        "żółć"
    ]
    assert serializers.loads(b"[1]", TYPES["json"], "Utf_8") == [1]
    with pytest.raises(DecodeError, match="no-such-charset"):
        serializers.loads(b"[1]", TYPES["json"], "no-such-charset")


def test_serializer_of_ones_own() -> None:
    serializers.register(
        "rot", lambda v: repr(v)[::-1], lambda d: d.decode()[::-1], "application/x-rot"
    )
    try:
        assert serializers.dumps(12, "rot") == ("application/x-rot", "utf-8", b"21")
        assert serializers.loads(b"21", "application/x-rot") == "12"
        assert "rot" in serializers.names()
        body = celery_v2.encode_body((1,), {}, None, "rot")
        assert body.content_type == "application/x-rot"
    finally:
        serializers.unregister("rot")
    assert "rot" not in serializers.names()
    serializers.unregister("rot")


def test_json_can_be_replaced() -> None:
    """Short cuts for JSON must not go past somebody's own encoder."""
    serializers.register("json", lambda v: b'"mine"', lambda d: {"status": "MINE"}, TYPES["json"])
    try:
        assert celery_v2.encode_body((1,), {}, None).data == b'"mine"'
        assert outcomes.encode(task_id="i", status="SUCCESS", result=1) == b'"mine"'
        assert outcomes.decode(b"{}")["status"] == "MINE"
    finally:
        serializers.register("json", jsoncodec.dumps, jsoncodec.loads, TYPES["json"])
    assert celery_v2.encode_body((1,), {}, None).data.startswith(b"[[1],{},")
    assert not serializers.json_replaced
