"""Results, and the exceptions in them."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chervil import exceptions
from chervil.exceptions import DecodeError, EncodeError, SecurityError, TaskError
from chervil.states import FAILURE, RETRY, REVOKED, STARTED, SUCCESS
from chervil.wire import failures, outcomes, serializers
from chervil.wire.failures import RemoteError, exception_from_dict, exception_to_dict

SERIALIZERS = ["json", "pickle", "yaml", "msgpack"]
texts = st.text(alphabet=st.characters(exclude_categories=()), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def encode(result: Any, status: str = SUCCESS, **rest: Any) -> bytes:
    return outcomes.encode(task_id="i", status=status, result=result, **rest)


@settings(max_examples=200)
@given(
    task_id=texts,
    result=values,
    traceback=st.none() | st.text(max_size=5),
    children=st.lists(st.just([["c", None], None]), max_size=2),
    date_done=st.none() | st.just("2030-01-02T03:04:05+00:00"),
    group_id=st.none() | texts,
    parent_id=st.none() | texts,
    extended=st.none()
    | st.fixed_dictionaries({"name": texts, "args": st.lists(values, max_size=2)}),
    stamps=st.none() | st.dictionaries(st.just("tenant"), values),
    compression=st.sampled_from([None, "zlib", "zstd"]),
)
def test_round_trip(**given_: Any) -> None:
    compression = given_.pop("compression")
    payload = outcomes.encode(status=SUCCESS, compression=compression, **given_)
    assert payload.startswith(b"\0celery-compressed\0") == bool(compression)
    extended, stamps = given_.pop("extended") or {}, given_.pop("stamps") or {}
    expected = {**given_, "status": SUCCESS, **extended, **stamps}
    for key in ("group_id", "parent_id"):
        if expected[key] is None:
            del expected[key]
    if stamps:
        expected["stamped_headers"] = list(stamps)
    assert outcomes.decode(payload) == expected


@given(
    result=st.none()
    | st.integers(0, 9)
    | st.text(max_size=4)
    | st.lists(st.booleans(), max_size=2),
    serializer=st.sampled_from(SERIALIZERS),
    children=st.lists(st.just([["c", None], None]), max_size=2),
)
def test_all_serializers(result: Any, serializer: str, children: Any) -> None:
    payload = encode(result, serializer=serializer, children=tuple(children))
    meta = outcomes.decode(payload, serializer)
    assert meta == {
        "status": SUCCESS,
        "result": result,
        "traceback": None,
        "children": children,
        "date_done": None,
        "task_id": "i",
    }


def test_results_that_cannot_be_stored_are_named() -> None:
    with pytest.raises(EncodeError, match=r"result of the task i cannot be stored: json .*\{1\}"):
        encode({1})


def test_extended_fields_never_stand_in_the_way() -> None:
    """The arguments may have come with another serializer than the result's."""
    meta = outcomes.decode(encode(1, extended={"args": [{1}], "name": "n"}, stamps={"s": {2}}))
    assert (meta["args"], meta["name"], meta["s"]) == ("[{1}]", "n", "{2}")


def test_custom_states_keep_their_meta() -> None:
    for status, result in ((STARTED, {"pid": 5, "hostname": "h"}), ("PROGRESS", {"exc_type": "x"})):
        meta = outcomes.decode(encode(result, status))
        assert meta["result"] == result


# --- exceptions ------------------------------------------------------------------------------


class Shop:
    class CardRefused(Exception):
        def __init__(self, code: int, text: str = "refused") -> None:
            super().__init__(code, text)
            self.code = code


class Formatted(Exception):
    """Its args are not what its __init__ takes."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")


class NeedsKeyword(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Hostile(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__

    @property  # type: ignore[override]
    def args(self) -> Any:
        raise ZeroDivisionError


class BadRepr:
    def __repr__(self) -> str:
        raise ZeroDivisionError


def through(exc: BaseException, serializer: str = "json", status: str = FAILURE) -> Any:
    payload = encode(exc, status, serializer=serializer, traceback="Traceback \ud800")
    meta = outcomes.decode(payload, serializer)
    assert meta["traceback"].startswith("Traceback ")
    return meta["result"]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_original_classes_come_back(serializer: str) -> None:
    for exc in (
        ValueError("x", 1),
        KeyError("k"),
        KeyboardInterrupt(),
        SystemExit(3),
        FileNotFoundError(2, "No such file"),
        Formatted(5),
        Shop.CardRefused(5, "empty"),
        UnicodeDecodeError("utf-8", b"abc", 0, 1, "reason"),
        json.JSONDecodeError("bad", "doc", 0),
    ):
        back = through(exc, serializer)
        assert type(back) is type(exc)
        assert back.args == exc.args
        assert str(back) == str(exc)
    assert through(Shop.CardRefused(5), serializer).code == 5


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_every_exception_can_be_stored(serializer: str) -> None:
    hostile = through(Hostile("x"), serializer)
    assert type(hostile) in (Hostile, failures.stand_in(__name__, "Hostile"))
    bad = through(ValueError(BadRepr(), 1, {2: object}, "\ud800"), serializer)
    assert type(bad) is ValueError
    if serializer == "json":
        assert "BadRepr object, repr() raised" in bad.args[0]
        assert bad.args[1] == 1
    assert through(ValueError(lambda: 1), serializer).args[0].startswith("<function")
    nested = through(ExceptionGroup("several", [ValueError("a")]), serializer)
    assert type(nested).__name__ == "ExceptionGroup"
    assert nested.args[0] == "several"


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_class_that_does_not_take_its_own_args(serializer: str) -> None:
    back = through(NeedsKeyword(code=5), serializer)
    assert type(back) is NeedsKeyword
    assert str(back) == "code 5"


@given(st.lists(values | st.just(object()), max_size=3), st.sampled_from(SERIALIZERS))
def test_any_args(args: list[Any], serializer: str) -> None:
    back = through(ValueError(*args), serializer)
    assert type(back) is ValueError
    assert len(back.args) == len(args)


OURS = [
    exceptions.Ignore("x"),
    exceptions.Reject("why", True),
    exceptions.Retry("message", None, 5),
    exceptions.MaxRetriesExceededError("too often"),
    exceptions.TaskRevokedError("terminated"),
    exceptions.NotRegistered("no.such"),
    exceptions.ChordError("Dependency x raised"),
    exceptions.SoftTimeLimitExceeded(),
    exceptions.TimeLimitExceeded(1),
    exceptions.WorkerLostError("signal 9"),
    exceptions.Terminated("15"),
    exceptions.TimeoutError("slow"),
    exceptions.QueueNotFound("q"),
    exceptions.MessageTooLarge("5 MB"),
    exceptions.PublishError("not stored"),
]
BILLIARD = {"SoftTimeLimitExceeded", "TimeLimitExceeded", "WorkerLostError", "Terminated"}


@pytest.mark.parametrize("exc", OURS, ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_our_own_travel_under_celerys_names(exc: Exception, serializer: str) -> None:
    name = type(exc).__name__
    found = exception_to_dict(exc, serializer)
    assert found["exc_type"] == name
    if name in BILLIARD:
        assert found["exc_module"] == "billiard.exceptions"
    elif name not in ("MessageTooLarge", "PublishError"):
        assert found["exc_module"] == "celery.exceptions"
    else:
        assert found["exc_module"] == "chervil.exceptions"
    back = through(exc, serializer)
    assert type(back) is type(exc)
    assert str(back) == str(exc)
    assert (
        b"chervil" not in encode(exc, FAILURE, serializer="pickle")
        or "celery" not in found["exc_module"]
    )


def test_celerys_names_mean_ours_also_when_celery_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    celery = types.ModuleType("celery.exceptions")
    celery.TaskRevokedError = celery.Special = type("Special", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "celery.exceptions", celery)
    found = {
        "exc_type": "TaskRevokedError",
        "exc_message": ["x"],
        "exc_module": "celery.exceptions",
    }
    assert type(exception_from_dict(found)) is exceptions.TaskRevokedError
    assert type(exception_from_dict({**found, "exc_type": "Special"})) is celery.Special


def test_stand_ins() -> None:
    found = {"exc_type": "Outer.Refused", "exc_message": ["no", 5], "exc_module": "shop.no_such"}
    exc = exception_from_dict(found)
    assert isinstance(exc, RemoteError)
    assert isinstance(exc, exceptions.ChervilError)
    assert repr(exc) == "Refused('no', 5)"
    assert type(exc).__module__ == "chervil.exceptions"
    assert type(exception_from_dict(found)) is type(exc)
    assert exception_to_dict(exc) == found, "passed on, it keeps its name"
    for back in (pickle.loads(pickle.dumps(exc)), through(exc), through(exc, "pickle")):
        assert type(back) is type(exc)
        assert back.args == exc.args


MODULE = """
    class Odd(Exception):
        def __new__(cls, *args):
            return object.__new__(object) if args else super().__new__(cls)
    class Raises(Exception):
        def __init__(self, *args):
            raise ZeroDivisionError
    class Fine(Exception):
        pass
    class NoException:
        def __init__(self, *args):
            raise SystemExit("called")
    def function(*args):
        raise SystemExit("called")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that can be imported, and is not yet."""
    (tmp_path / "remote_shop.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "remote_exits.py").write_text("raise SystemExit")
    (tmp_path / "remote_broken.py").write_text("1 / 0")
    (tmp_path / "remote_program").mkdir()
    (tmp_path / "remote_program" / "__init__.py").write_text("")
    (tmp_path / "remote_program" / "__main__.py").write_text("print('the program runs')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(failures, "_failed", set())
    yield "remote_shop"
    sys.modules.pop("remote_shop", None)


def remote(name: str, module: str = "remote_shop", **how: Any) -> BaseException:
    return exception_from_dict(
        {"exc_type": name, "exc_message": ["m"], "exc_module": module}, **how
    )


def test_module_is_imported_if_allowed(module: str) -> None:
    assert isinstance(remote("Fine", import_modules=False), RemoteError)
    assert module not in sys.modules
    found = remote("Fine")
    assert type(found) is sys.modules[module].Fine
    assert type(remote("Fine", import_modules=False)) is type(found)


@pytest.mark.parametrize(
    "name", ["Fine.x", "NoSuch", "", ".", "Fine.__init__.x", "a b", "\0", "\ud800"]
)
def test_names_that_are_not_there(module: str, name: str) -> None:
    assert isinstance(remote(name), RemoteError)


@pytest.mark.parametrize(
    "name", ["function", "NoException", "__name__", "Fine.__init__", "__dict__"]
)
def test_only_exceptions_are_called(module: str, name: str) -> None:
    found = remote(name)
    assert type(found) is SecurityError
    assert f"remote_shop.{name}" in str(found)


def test_classes_that_make_trouble(module: str) -> None:
    assert isinstance(remote("Odd"), RemoteError)
    raises = remote("Raises")
    assert type(raises).__name__ == "Raises"
    assert raises.args == ("m",)


@pytest.mark.parametrize(
    "name",
    [
        "remote_exits",
        "remote_broken",
        "no.such",
        "__main__",
        "remote_program.__main__",
        "antigravity",
        "this",
        "",
        "..",
        "a b",
        "\ud800",
        "os.path.x",
    ],
)
def test_modules_that_cannot_be_imported(module: str, name: str, capfd: Any) -> None:
    for _ in range(2):
        assert isinstance(remote("NoSuch", name), RemoteError)
    assert capfd.readouterr().out == ""
    assert "antigravity" not in sys.modules


def test_failed_imports_are_remembered_within_bounds(module: str) -> None:
    for number in range(600):
        remote("X", f"no_such_{number}")
    assert len(failures._failed) <= 256


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["exc_type", "exc_message", "exc_module", "status", "result"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(junk)
def test_whatever_a_failure_holds_is_an_exception(found: Any) -> None:
    exc = exception_from_dict(found, import_modules=False)
    assert isinstance(exc, BaseException)
    payload = json.dumps({"status": FAILURE, "result": found}).encode()
    assert isinstance(outcomes.decode(payload)["result"], BaseException)


@given(junk | st.just({"status": SUCCESS}))
def test_documents_that_are_none(found: Any) -> None:
    payload = json.dumps(found).encode()
    if isinstance(found, dict) and isinstance(found.get("status"), str):
        assert "result" in outcomes.decode(payload)
    else:
        with pytest.raises(DecodeError, match="a map with a status"):
            outcomes.decode(payload)


@given(st.binary(max_size=30))
def test_bytes_that_are_no_document(data: bytes) -> None:
    for payload in (data, b"\0" + data, b"\0celery-compressed\0" + data):
        for serializer in ("json", "yaml", "msgpack"):
            with pytest.raises(DecodeError):
                outcomes.decode(payload, serializer)


def test_failures_without_an_exception() -> None:
    """Readers need one, whatever the task gave to update_state."""
    meta = json.loads(encode({"progress": 5}, FAILURE))
    assert meta["result"] == {
        "exc_type": "TaskError",
        "exc_message": [{"progress": 5}],
        "exc_module": "celery.exceptions",
    }
    assert type(outcomes.decode(encode(None, FAILURE))["result"]) is TaskError
    given_ = {"exc_type": "ValueError", "exc_message": ["x"], "exc_module": "builtins"}
    assert repr(outcomes.decode(encode(given_, FAILURE))["result"]) == "ValueError('x')"
    assert outcomes.decode(encode(None, RETRY))["result"] is None
    revoked = outcomes.decode(b'{"status": "REVOKED", "result": null}')["result"]
    assert repr(revoked) == "TaskRevokedError('revoked')"
    assert type(through(exceptions.TaskRevokedError("expired"), status=REVOKED)) is type(revoked)


def test_exception_in_another_state_is_stored_as_one() -> None:
    meta = json.loads(encode(ValueError("x"), "PROGRESS"))
    assert meta["result"]["exc_type"] == "ValueError"


def test_pickle_keeps_the_object_where_it_can() -> None:
    exc = Shop.CardRefused(5)
    exc.extra = dt.date(2030, 1, 1)  # type: ignore[attr-defined]
    assert through(exc, "pickle").extra == dt.date(2030, 1, 1)
    assert isinstance(failures.exception_for_pickle(NeedsKeyword(code=1)), dict)
    assert isinstance(failures.exception_for_pickle(ValueError(lambda: 1)), dict)


def test_serializer_that_is_not_known() -> None:
    with pytest.raises(EncodeError, match="no-such"):
        encode(1, serializer="no-such")
    with pytest.raises(exceptions.ImproperlyConfigured, match="no-such"):
        outcomes.decode(b"1", "no-such")
    assert serializers.names() == ["json", "msgpack", "pickle", "yaml"]
