"""Every recorded result: read it, write the same outcome ourselves, compare."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml

from chervil import exceptions
from chervil.exceptions import DecodeError, SecurityError, TaskError
from chervil.wire import outcomes
from chervil.wire.failures import RemoteError
from tests.wire.recorded import Sample, ids, load, results, same, unwrap

RESULTS = results()
BASE = ("status", "result", "traceback", "children", "date_done", "group_id", "parent_id")


def written_again(recorded: dict[str, Any], meta: dict[str, Any], **how: Any) -> bytes:
    """Our own document for the outcome that was read."""
    rest = {key: value for key, value in meta.items() if key not in (*BASE, "task_id")}
    names = rest.pop("stamped_headers", None)
    stamps = {name: rest.pop(name) for name in names} if names else None
    return outcomes.encode(
        task_id=meta["task_id"],
        status=meta["status"],
        result=meta["result"],
        traceback=meta["traceback"],
        children=meta["children"],
        date_done=meta["date_done"],
        group_id=meta.get("group_id"),
        parent_id=meta.get("parent_id"),
        extended=rest or None,
        stamps=stamps,
        **how,
    )


def test_there_are_results() -> None:
    assert len(RESULTS) > 70


@pytest.mark.parametrize("sample", RESULTS, ids=ids(RESULTS))
def test_result(sample: Sample) -> None:
    recorded = json.loads(sample.raw)
    meta = outcomes.decode(sample.raw)
    foreign = sample.name.startswith("foreign")
    for key, value in recorded.items():
        if key == "result" and recorded["status"] == "RETRY" and value is None:
            assert meta[key] is None
        elif key == "result" and recorded["status"] in ("FAILURE", "RETRY", "REVOKED"):
            check_exception(meta["result"], value)
        elif foreign and key == "traceback":
            assert meta[key] is None
        elif not (key == "result" and sample.name == "result-009-typed-json"):
            assert meta[key] == value
    if not foreign:
        assert same(json.loads(written_again(recorded, meta)), recorded)


def check_exception(found: Any, recorded: Any) -> None:
    assert isinstance(found, BaseException)
    if recorded is None:
        assert isinstance(found, TaskError)
        return
    assert type(found).__name__ == recorded["exc_type"].rpartition(".")[2]
    assert list(found.args) == recorded["exc_message"]
    if recorded["exc_module"] in ("celery.exceptions", "billiard.exceptions"):
        assert type(found) is getattr(exceptions, recorded["exc_type"])
    elif recorded["exc_module"] == "wire_app":
        assert isinstance(found, RemoteError)
        assert found.exc_module == "wire_app"


def test_typed_result() -> None:
    recorded = unwrap(load("result-009-typed-json")["result_raw"])
    meta = outcomes.decode(recorded)
    assert "__type__" not in repr(meta)
    assert json.loads(written_again({}, meta)) == json.loads(recorded)


class CustomError(Exception):
    """The class that the recorded pickles and failures name."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class Outer:
    class NestedError(Exception):
        pass


@pytest.fixture
def wire_app() -> Iterator[types.ModuleType]:
    """The module in which the recorded tasks were."""
    module = types.ModuleType("wire_app")
    module.CustomError = CustomError  # type: ignore[attr-defined]
    module.Outer = Outer  # type: ignore[attr-defined]
    sys.modules["wire_app"] = module
    CustomError.__module__ = Outer.NestedError.__module__ = "wire_app"
    CustomError.__qualname__, Outer.NestedError.__qualname__ = "CustomError", "Outer.NestedError"
    yield module
    del sys.modules["wire_app"]


def test_original_class_where_it_can_be_found(wire_app: types.ModuleType) -> None:
    failure = outcomes.decode(unwrap(load("result-004-failure-custom-exc")["result_raw"]))
    assert type(failure["result"]) is CustomError
    assert failure["result"].code == 42
    nested = outcomes.decode(unwrap(load("result-005-failure-nested-class")["result_raw"]))
    assert type(nested["result"]) is Outer.NestedError


@pytest.mark.parametrize("name", ["result-050-msgpackres", "result-054-msgpackres-failure"])
def test_msgpack(name: str) -> None:
    recorded = unwrap(load(name)["result_raw"])
    meta = outcomes.decode(recorded, "msgpack")
    again = written_again({}, meta, serializer="msgpack")
    assert msgspec.msgpack.decode(again) == msgspec.msgpack.decode(recorded)


@pytest.mark.parametrize("name", ["result-052-yamlres", "result-056-yamlres-failure"])
def test_yaml(name: str) -> None:
    recorded = unwrap(load(name)["result_raw"])
    meta = outcomes.decode(recorded, "yaml")
    again = written_again({}, meta, serializer="yaml")
    assert yaml.safe_load(again) == yaml.safe_load(recorded)


@pytest.mark.parametrize("name", ["result-053-compres", "result-057-compres-failure"])
def test_compressed(name: str) -> None:
    recorded = unwrap(load(name)["result_raw"])
    assert recorded.startswith(b"\0celery-compressed\0application/x-gzip\0x")
    meta = outcomes.decode(recorded)
    again = written_again({}, meta, compression="zlib")
    assert again.startswith(b"\0celery-compressed\0application/x-gzip\0x")
    assert repr(outcomes.decode(again)) == repr(meta)
    if "failure" in name:
        assert meta["result"].args == (42, "custom failure")
    else:
        assert meta["result"] == 5


def test_pickle() -> None:
    meta = outcomes.decode(unwrap(load("result-051-pickleres")["result_raw"]), "pickle")
    assert (meta["status"], meta["result"]) == ("SUCCESS", 5)
    again = outcomes.decode(written_again({}, meta, serializer="pickle"), "pickle")
    assert again == meta


def test_pickled_exception(wire_app: types.ModuleType) -> None:
    meta = outcomes.decode(unwrap(load("result-055-pickleres-failure")["result_raw"]), "pickle")
    assert type(meta["result"]) is CustomError
    assert meta["result"].args == (42, "custom failure")
    again = outcomes.decode(written_again({}, meta, serializer="pickle"), "pickle")
    assert type(again["result"]) is CustomError
    assert again["result"].code == 42


def test_pickled_exception_of_a_module_that_is_not_there() -> None:
    """Only the reader of a pickle knows what went wrong; it must not be a crash."""
    with pytest.raises(DecodeError, match="wire_app"):
        outcomes.decode(unwrap(load("result-055-pickleres-failure")["result_raw"]), "pickle")


PROBES = {name: case["meta"] for name, case in load("probe-002-hand-made-results")["cases"].items()}


@pytest.mark.parametrize("name", PROBES)
def test_hand_made_results_never_crash_the_reader(name: str) -> None:
    meta = outcomes.decode(json.dumps(PROBES[name]).encode())
    assert {"status", "result", "traceback", "children", "date_done", "task_id"} <= set(meta)
    if meta["status"] == "SUCCESS":
        assert not isinstance(meta["result"], BaseException)
    else:
        with pytest.raises(type(meta["result"])):
            raise meta["result"]


def probe(name: str) -> Any:
    return outcomes.decode(json.dumps(PROBES[name]).encode())["result"]


def test_hand_made_exceptions() -> None:
    assert repr(probe("exc list args")) == "ValueError('a', 2)"
    assert repr(probe("exc message string")) == "ValueError('plain')"
    assert repr(probe("exc known module not imported")) == "Error('m')"
    for name, module in (("exc without module", None), ("exc unknown module", "no.such.mod")):
        found = probe(name)
        assert isinstance(found, RemoteError)
        assert repr(found) == "MyErr('m')"
        assert found.exc_module == module
    assert type(probe("exc not an exception class")) is SecurityError
    assert "os.system" in str(probe("exc not an exception class"))
    assert type(probe("exc celery class")) is exceptions.TaskRevokedError
    assert type(probe("exc missing exc_type")) is TaskError
    assert "['m']" in str(probe("exc missing exc_type"))
    assert type(probe("exc result null")) is TaskError
    assert "does not say" in str(probe("exc result null"))
    assert str(probe("exc result string")) == "just text"


def test_celery_node_worker() -> None:
    raw = [
        unwrap(each)
        for each in load("foreign-002-celery-node-worker-results")["result_keys"].values()
    ]
    metas = {meta["status"]: meta for meta in map(outcomes.decode, raw)}
    assert metas["SUCCESS"]["result"] == 5
    assert metas["SUCCESS"]["traceback"] is None
    assert isinstance(metas["FAILURE"]["result"], TaskError)
    assert metas["FAILURE"]["traceback"] is None
