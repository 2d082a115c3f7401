"""Bounded texts of values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.wire.saferepr import saferepr

small = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.just(set())
        | st.frozensets(st.integers(), max_size=3)
        | st.sets(st.integers(), min_size=1, max_size=1)
    ),
    max_leaves=5,
)


@given(st.lists(small, max_size=2))
def test_small_values_look_as_in_source(value: Any) -> None:
    assert saferepr(value, 10**6) == repr(value)
    assert saferepr(tuple(value), 10**6) == repr(tuple(value))


@given(
    st.recursive(
        st.text(max_size=300) | st.binary(max_size=300) | st.integers(),
        lambda i: st.lists(i) | st.dictionaries(st.text(), i),
        max_leaves=40,
    ),
    st.integers(1, 200),
)
def test_length_is_bounded(value: Any, limit: int) -> None:
    # Escapes make up to ten characters of one, in the last string only.
    assert len(saferepr(value, limit)) <= 11 * limit + 64


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (("x" * 5000,), "('" + "x" * 1023 + "...',)"),
        ("x" * 5000, "'" + "x" * 1024 + "...'"),
        (b"x" * 5000, "b'" + "x" * 1024 + "...'"),
        ([[[[[1]]]]], "[[[[[...]]]]]"),
        ({"a": (1,)}, "{'a': (1,)}"),
    ],
)
def test_cuts(value: Any, text: str) -> None:
    assert saferepr(value) == text


def test_many_items() -> None:
    text = saferepr(list(range(1_000_000)), 50)
    assert text == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ...]"
    assert saferepr(dict.fromkeys(range(100_000)), 20) == "{0: None, 1: None, 2: ..., ...}"


class Bad:
    def __repr__(self) -> str:
        raise ZeroDivisionError


class Worse(Bad):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError


class Wordy:
    def __repr__(self) -> str:
        return "w" * 100_000


def test_objects_that_cannot_describe_themselves() -> None:
    assert "Bad object, repr() raised ZeroDivisionError" in saferepr([Bad(), 1])
    assert saferepr([Bad(), 1]).endswith(", 1]")
    assert "Worse" in saferepr(Worse())
    assert len(saferepr(Wordy())) < 1100
    assert "int" in saferepr([10**5000])


def test_ring() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert saferepr(ring).startswith("[1, [1, [1, [1, [...]")
