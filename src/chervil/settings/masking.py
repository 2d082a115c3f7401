"""Showing settings without showing what is secret in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "********"

# Compiled when they are first used, which most processes never do.
_SECRET = r"(?i)passw(or)?d|passphrase|secret|token|api_?key|private_?key|credential"
_URL_PASSWORD = r"([\w+.-]+://[^/@:\s]*:)[^/\s]*(?=@)"
_QUERY_SECRET = r"(?i)([?&][^=&\s]*(?:passw(?:or)?d|secret|token|api_?key)[^=&\s]*=)[^&\s]*"


def masked(value: Any, name: str = "") -> Any:
    """The value with passwords and the like replaced, at any depth.

    :param name: what the value is called where it stands.
    """
    if name and value and re.search(_SECRET, name):
        return MASK
    if isinstance(value, str):
        return mask_url(value)
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, tuple):
        return tuple(masked(item) for item in value)
    return value


def mask_url(text: str) -> str:
    """A text with the passwords of the URLs in it replaced."""
    if "://" not in text:
        return text
    text = re.sub(_URL_PASSWORD, rf"\1{MASK}", text)
    return re.sub(_QUERY_SECRET, rf"\1{MASK}", text)
