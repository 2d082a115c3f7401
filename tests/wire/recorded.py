"""What Celery and others wrote, as it was captured (see ``fixtures/README.md``)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FIXTURES = Path(__file__).parent / "fixtures"


class Sample(NamedTuple):
    """One message or result, and the fixture it is from."""

    name: str
    raw: bytes


def load(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def unwrap(value: Any) -> bytes:
    """The bytes behind ``{"utf8": ...}``, ``{"base64": ...}`` or a plain string."""
    if isinstance(value, dict):
        if "base64" in value:
            return base64.b64decode(value["base64"])
        value = value["utf8"]
    return value.encode("utf-8", "surrogatepass")


def _byte_strings(value: Any) -> Iterator[bytes]:
    """All byte strings anywhere in a fixture, also the ones inside recorded commands."""
    if isinstance(value, dict):
        if set(value) in ({"utf8"}, {"base64"}):
            yield unwrap(value)
            return
        for key, item in value.items():
            if key not in ("decoded", "result_decoded", "events"):
                yield from _byte_strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _byte_strings(item)
    elif isinstance(value, str):
        if value.startswith(("db0 ", "db1 ")) and " {" in value:
            value = value[value.index(" {") + 1 :]
        yield value.encode("utf-8", "surrogatepass")


def _json_objects(kind: str) -> Iterator[Sample]:
    for path in sorted(FIXTURES.glob("*.json")):
        seen = set()
        for raw in _byte_strings(json.loads(path.read_text())):
            try:
                found = json.loads(raw)
            except ValueError:
                continue
            if kind == "message" and isinstance(found, list) and len(found) == 3:
                # An entry of the ``unacked`` hash: [envelope, exchange, routing key].
                found = found[0]
                raw = json.dumps(found).encode()
            if isinstance(found, dict) and raw not in seen and _is(kind, found):
                seen.add(raw)
                yield Sample(path.stem, raw)


def _is(kind: str, found: dict[str, Any]) -> bool:
    if kind == "message":
        sent_to = found.get("properties", {}).get("delivery_info", {}).get("exchange", "")
        # Not events, remote control and its replies.
        return "body" in found and sent_to != "celeryev" and "pidbox" not in sent_to
    return "status" in found and "result" in found


def messages() -> list[Sample]:
    """Every kombu envelope of a task in the fixtures."""
    return list(_json_objects("message"))


def amqp_messages() -> list[tuple[str, dict[str, Any]]]:
    """Every task message that was read from RabbitMQ, with a name for each."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(FIXTURES.glob("amqp-*.json")):
        for number, message in enumerate(_amqp(json.loads(path.read_text())), 1):
            found.append((f"{path.stem}-{number}", message))
    return found


def _amqp(value: Any) -> Iterator[dict[str, Any]]:
    items = value
    if isinstance(value, dict):
        if "task" in (value.get("headers") or ()):
            yield value
            return
        items = value.values()
    if isinstance(value, (dict, list)):
        for item in items:
            yield from _amqp(item)


def results() -> list[Sample]:
    """Every JSON result document in the fixtures."""
    return list(_json_objects("result"))


def ids(samples: list[Sample]) -> list[str]:
    counts: dict[str, int] = {}
    made = []
    for sample in samples:
        number = counts[sample.name] = counts.get(sample.name, 0) + 1
        made.append(f"{sample.name}-{number}")
    return made


def same(left: Any, right: Any) -> bool:
    """Equality of decoded JSON in which NaN equals NaN."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
