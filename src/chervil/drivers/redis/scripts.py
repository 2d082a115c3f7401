"""The Lua scripts: read once, known to the server by their digest.

A script file may begin with lines ``-- include NAME.lua``; the files named are put
in their place.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Final, NamedTuple

_INCLUDE: Final = re.compile(r"^-- include (\S+)\n", re.MULTILINE)
#: Comments are for readers of the file; the server need not keep them.
_COMMENT: Final = re.compile(r"^\s*--.*\n|^\s*\n", re.MULTILINE)


class Script(NamedTuple):
    """A script and the name that the server gives it."""

    source: bytes
    digest: bytes


def _read(name: str) -> str:
    text = (resources.files(__package__) / name).read_text("utf-8")
    return _INCLUDE.sub(lambda found: _read(found[1]), text)


def load(name: str) -> Script:
    """Read a script of this folder."""
    source = _COMMENT.sub("", _read(name)).encode()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())
