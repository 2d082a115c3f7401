"""Compression under Celery's names."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chervil.exceptions import DecodeError, EncodeError, MissingDependency
from chervil.wire import compression

NAMES = {
    "zlib": "application/x-gzip",
    "gzip": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "brotli": "application/x-brotli",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
}
every = pytest.mark.parametrize("name", NAMES)
one_each = pytest.mark.parametrize("name", ["zlib", "bzip2", "lzma", "brotli", "zstd"])


def test_names() -> None:
    assert compression.names() == sorted(NAMES)


@every
@settings(max_examples=30)
@given(data=st.binary(max_size=200), factor=st.integers(1, 50))
def test_round_trip(name: str, data: bytes, factor: int) -> None:
    data *= factor
    packed, content_type = compression.compress(data, name)
    assert content_type == NAMES[name]
    assert compression.compress(data, content_type)[1] == content_type
    for how in (name, content_type):
        assert compression.decompress(packed, how) == data
        assert compression.decompress(packed, how, limit=len(data)) == data
        if data:
            with pytest.raises(DecodeError, match=f"larger than {len(data) - 1} bytes"):
                compression.decompress(packed, how, limit=len(data) - 1)


@one_each
def test_a_bomb_is_not_unpacked(name: str) -> None:
    packed, content_type = compression.compress(bytes(50_000_000), name)
    assert len(packed) < 100_000
    with pytest.raises(DecodeError, match="larger than 1000000 bytes"):
        compression.decompress(packed, content_type, limit=1_000_000)


@one_each
@settings(max_examples=60)
@given(data=st.binary(max_size=60))
def test_junk(name: str, data: bytes) -> None:
    for limit in (None, 100):
        try:
            compression.decompress(data, name, limit)
        except DecodeError:
            continue
        # Rarely it is not junk; then both names of the form read it alike.
        assert compression.decompress(data, NAMES[name], limit) is not None


@one_each
@pytest.mark.parametrize("limit", [None, 100_000])
def test_truncated_data_is_refused(name: str, limit: int | None) -> None:
    packed, content_type = compression.compress(b"".join(b"%d " % n for n in range(5000)), name)
    for size in range(0, len(packed), max(1, len(packed) // 20)):
        with pytest.raises(DecodeError):
            compression.decompress(packed[:size], content_type, limit)


def test_real_gzip_files_and_several_streams() -> None:
    assert compression.decompress(gzip.compress(b"abc"), "application/x-gzip") == b"abc"
    assert compression.decompress(bz2.compress(b"a") + bz2.compress(b"b"), "bzip2") == b"ab"
    assert compression.decompress(lzma.compress(b"a") + lzma.compress(b"b"), "lzma", 2) == b"ab"


def test_forms_on_the_wire() -> None:
    assert zlib.decompress(compression.compress(b"abc", "gzip")[0]) == b"abc"
    assert compression.compress(b"abc", "lzma")[0].startswith(b"\xfd7zXZ\0")
    assert compression.compress(b"abc", "zstd")[0].startswith(b"\x28\xb5\x2f\xfd")


def test_unknown_names() -> None:
    with pytest.raises(EncodeError, match="'rar' is not known; known: brotli"):
        compression.compress(b"", "rar")
    with pytest.raises(DecodeError, match=r"'application/x-rar' is not known; known: application"):
        compression.decompress(b"", "application/x-rar")


@pytest.mark.parametrize(("name", "module"), [("brotli", "brotli"), ("zstd", "backports.zstd")])
def test_missing_library(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info >= (3, 14) and name == "zstd":
        module = "compression.zstd"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"chervil\[{name}\]") as caught:
        compression.compress(b"", name)
    assert not isinstance(caught.value, DecodeError)
    with pytest.raises(MissingDependency, match=rf"chervil\[{name}\]") as caught:
        compression.decompress(b"x", name)
    assert isinstance(caught.value, DecodeError)


def test_compression_of_ones_own() -> None:
    def reverse(data: bytes, limit: int | None) -> bytes:
        return data[::-1]

    compression.register("rev", lambda data: data[::-1], reverse, "application/x-rev", ("ver",))
    try:
        assert compression.compress(b"ab", "ver") == (b"ba", "application/x-rev")
        assert compression.decompress(b"ba", "application/x-rev") == b"ab"
        with pytest.raises(DecodeError, match="larger than 1 bytes"):
            compression.decompress(b"ba", "rev", limit=1)
    finally:
        compression.unregister("rev")
    assert compression.names() == sorted(NAMES)
    compression.unregister("rev")


def test_errors_of_a_compressor_are_named() -> None:
    def fail(*_: Any) -> bytes:
        raise ZeroDivisionError("inside")

    compression.register("bad", fail, fail, "application/x-bad")
    try:
        with pytest.raises(EncodeError, match="'bad' failed: inside"):
            compression.compress(b"", "bad")
        with pytest.raises(DecodeError, match="inside"):
            compression.decompress(b"", "bad")
    finally:
        compression.unregister("bad")
