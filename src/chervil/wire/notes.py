"""What is told to everybody, and answered to one, in kombu's envelope.

Remote control and events are such notes. (Source of the form: celery/kombu
``kombu/pidbox.py`` and ``kombu/transport/virtual/base.py``.)
"""

from __future__ import annotations

import base64
import uuid
from typing import Any

import msgspec

from chervil.exceptions import DecodeError
from chervil.wire import envelope, jsoncodec, serializers


class Note(msgspec.Struct):
    """One of these, as drivers carry it; they read nothing of it."""

    body: bytes
    headers: dict[str, Any] = {}
    content_type: str = "application/json"
    content_encoding: str = "utf-8"

    @classmethod
    def of(cls, value: Any, serializer: str = "json", **headers: Any) -> Note:
        """The note with that content.

        :param serializer: name or content type.
        :raises EncodeError: it cannot be serialized.
        """
        content_type, encoding, body = serializers.dumps(value, serializer)
        return cls(body, headers, content_type, encoding)

    def value(self, accept: frozenset[str]) -> Any:
        """What it says.

        :param accept: content types that may be read.
        :raises DecodeError: it is of another type, or cannot be read.
        """
        return serializers.loads(self.body, self.content_type, self.content_encoding, accept)


def encode_note(note: Note, exchange: str, key: str, delivery_mode: int) -> bytes:
    """Kombu's envelope of a note.

    :param delivery_mode: 2 in what kombu sends to all, 1 in answers and events.
    """
    return jsoncodec.dumps(
        {
            "body": base64.b64encode(note.body).decode("ascii"),
            "content-encoding": note.content_encoding,
            "content-type": note.content_type,
            "headers": note.headers,
            "properties": {
                "delivery_mode": delivery_mode,
                "delivery_info": {"exchange": exchange, "routing_key": key},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def decode_note(data: bytes) -> Note:
    """The note of an envelope.

    :raises DecodeError: it is none.
    """
    try:
        found = envelope.decode(data)
    except DecodeError:
        raise
    except Exception as exc:  # whatever a stranger wrote
        raise DecodeError(f"not a message: {exc}; it starts with {data[:80]!r}") from exc
    return Note(found.body, found.headers, found.content_type, found.content_encoding)
