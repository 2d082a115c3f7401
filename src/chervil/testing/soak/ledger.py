"""What was sent and what ran, written down outside of the broker.

Every process appends lines to a file of its own, each with one ``write``: a line is
there, whole, as soon as that returned, whatever happens to the process. Times are
monotonic seconds, which are the same for all processes of a machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import msgspec

#: The environment variable that names the directory.
DIRECTORY = "CHERVIL_SOAK_DIRECTORY"
#: The fault that alone has nothing run again; it delays what other faults may hit.
STOP_EXECUTOR = "stop executor"


class Entry(msgspec.Struct, array_like=True, omit_defaults=True):
    """One line."""

    #: ``want`` and ``sent`` (a client is about to send, has sent), ``failed`` (it could
    #: not), ``begin``, ``end``, ``dying`` (a task ends its own process), ``fault``.
    what: str
    at: float
    task_id: str = ""
    #: Of the task; of the fault.
    name: str = ""
    #: The attempt of a task that retries.
    retries: int = 0
    pid: int = 0
    node: str = ""
    #: Ids of the tasks that follow this one; ids of the processes that a fault hit.
    others: tuple[str, ...] = ()
    #: When a fault was over.
    until: float = 0.0


class Ledger:
    """Appends to the file of this process.

    :param directory: where all files are.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._pid = 0
        self._file = -1

    def write(
        self, what: str, task_id: str = "", name: str = "", *, at: float = 0.0, **fields: object
    ) -> None:
        """Append an entry; it is stored when this returns.

        :param at: when it was; 0: now.
        """
        entry = Entry(what, at or monotonic(), task_id, name, **fields)  # type: ignore[arg-type]
        os.write(self._open(), msgspec.json.encode(entry) + b"\n")

    def _open(self) -> int:
        pid = os.getpid()
        if pid != self._pid:  # also in a child: its lines are its own
            path = os.path.join(self._directory, f"{pid}-{os.urandom(3).hex()}.jsonl")
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._pid = pid
        return self._file


def read(directory: str) -> Iterator[Entry]:
    """All entries, in the order of time."""
    decoder = msgspec.json.Decoder(Entry)
    found: list[Entry] = []
    for path in Path(directory).glob("*.jsonl"):
        lines = path.read_bytes().split(b"\n")
        found.extend(decoder.decode(line) for line in lines[:-1])
    return iter(sorted(found, key=lambda entry: entry.at))
