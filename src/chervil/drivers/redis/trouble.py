"""What a server's refusals mean, for who reads the log."""

from __future__ import annotations

from typing import Final

#: What is said of a server in cluster mode, whenever that is found out.
CLUSTER: Final = (
    "is part of a Redis Cluster, which spreads keys over servers, while each of Chervil's steps "
    "needs its keys together; use a server that is not in cluster mode (cluster-enabled no), "
    "with replicas and Sentinel if it must not fail"
)

_RIGHTS: Final = "does not let this user do that: see its ACL"
#: How that is said of a command in a script, somewhere in the answer of 6.2, and of later ones.
_RIGHTS_IN_SCRIPTS: Final = ("The user executing the script", "ACL failure in script")
#: How answers begin, and what they mean.
_MEANINGS: Final = (
    ("WRONGPASS", "refused the user name or password of the URL"),
    ("NOAUTH", "wants a password: redis://user:password@host:port/db"),
    ("NOPERM", _RIGHTS),
    ("OOM", "is out of memory (maxmemory), nothing was stored: raise it, or delete what is old"),
    ("READONLY", "is a read-only replica: give the URL of the primary"),
    ("MISCONF", "cannot save to its disk and takes no writes: see its log"),
    ("LOADING", "is still loading its data"),
    ("BUSY", "is busy with a script"),
    ("MASTERDOWN", "is a replica that lost its primary"),
    ("NOREPLICAS", "has too few replicas to take writes (min-replicas-to-write)"),
    ("DENIED", "is in protected mode: give it a password, or have it listen elsewhere"),
    ("ERR max number of clients", "has too many connections (maxclients)"),
    ("MOVED", CLUSTER),
    ("CROSSSLOT", CLUSTER),
    ("CLUSTERDOWN", CLUSTER),
    ("WRONGTYPE", "has something of another type under a key that is ours"),
    ("ERR unknown command", "lacks a command; it must be Redis 6.2 or newer, or Valkey"),
    ("ERR DB index", "has no database of that number"),
)

#: A server that says so has changed its role or its mind: another connection may be to
#: another server, or be let in.
_PASSING: Final = ("READONLY", "MASTERDOWN", "LOADING", "NOAUTH")


def explain(answer: str) -> str:
    """An error of a server in words, with its own in brackets."""
    if any(words in answer for words in _RIGHTS_IN_SCRIPTS):
        return f"{_RIGHTS} ({answer})"
    for start, meaning in _MEANINGS:
        if says(answer, start):
            return f"{meaning} ({answer})"
    return f"refused a command: {answer}"


def says(answer: str, start: str) -> bool:
    """Whether it is that error; those of commands inside a script come behind other words."""
    return answer.startswith(start) or f" -{start} " in answer


def is_passing(answer: str) -> bool:
    """Whether the connection is of no more use, and a new one may be."""
    return any(says(answer, start) for start in _PASSING)
