"""A directory of the node's own for frames too large for a datagram.

In memory (``/dev/shm``) where there is such a thing. A node that is killed
cannot remove its directory, so the next one does: each holds a lock on its
directory for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time

_PREFIX = "chervil-node-"
_MEMORY = "/dev/shm"
#: A directory younger than this may not have been locked by its owner yet.
_GRACE_SECONDS = 60.0


def roots() -> list[str]:
    """Where such directories can be, the fastest first. Containers often have little
    room in ``/dev/shm``, so there is a second."""
    found = [_MEMORY] if os.access(_MEMORY, os.W_OK) else []
    return [*found, tempfile.gettempdir()]


class PrivateDirectory:
    """Made at once; removed by ``close`` or by a later node of the same user.

    :param root: where to make it.
    """

    def __init__(self, root: str) -> None:
        _remove_left_over(root)
        self.path = tempfile.mkdtemp(prefix=_PREFIX, dir=root)
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_left_over(root: str) -> None:
    with os.scandir(root) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in found:
        with contextlib.suppress(OSError):
            facts = os.stat(path)
            if (
                facts.st_uid == os.getuid()
                and time.time() - facts.st_mtime > _GRACE_SECONDS
                and _is_free(path)
            ):
                shutil.rmtree(path, ignore_errors=True)


def _is_free(path: str) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
