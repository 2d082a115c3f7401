"""The names of keys, against those that Celery and kombu had made."""

from __future__ import annotations

from chervil.drivers.contracts import Queue
from chervil.drivers.redis.location import parse
from chervil.drivers.redis.names import Names, result_prefix
from tests.wire.recorded import load, unwrap


def names(**options: object) -> Names:
    return Names(parse("redis://localhost", options))


def test_lists_with_other_separators_and_steps() -> None:
    """As ``call`` in the fixture says: three options, and priority 7."""
    (entry,) = load("redis-001-keyprefix-sep-steps")["entries"]
    found = names(global_keyprefix="pfx:", sep=":", priority_steps=[0, 5])
    assert found.list_of("celery", 7) == unwrap(entry["redis_key"])


def test_bindings() -> None:
    keys = load("redis-011-worker-startup-keys")["keys"]
    for queue in ("celery", "hipri"):
        for command, key, member in names().bindings([Queue(queue, queue, "direct", queue)]):
            assert command == "SADD"
            assert isinstance(key, bytes)
            recorded = keys[key.decode()]
            assert recorded["type"] == "set"
            assert member in [unwrap(each).decode() for each in recorded["value"]]


def test_prefixes() -> None:
    recorded = load("redis-017-global-keyprefix")["keys"]
    found = names(global_keyprefix="pfx:")
    (binding, _) = found.bindings([Queue("celery", "celery", "direct", "celery")])
    assert isinstance(binding[1], bytes)
    assert binding[1].decode() in recorded["db0"]
    (result,) = recorded["db1"]
    prefix = result_prefix(parse("redis://localhost", {"global_keyprefix": "res"}))
    assert result.startswith(prefix.decode())
