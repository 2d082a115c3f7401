"""Who this process is, as messages say it; right again in a child after a fork."""

from __future__ import annotations

import os

_origin: str | None = None


def host_name() -> str:
    """This machine's name."""
    if hasattr(os, "uname"):
        return os.uname().nodename
    return os.environ.get("COMPUTERNAME", "localhost")


def origin() -> str:
    """Celery's name of a sender: ``gen<process id>@<machine>``."""
    global _origin
    if _origin is None:
        _origin = f"gen{os.getpid()}@{host_name()}"
    return _origin


def new_address() -> str:
    """An address that nobody else has, in the form of the UUIDs that Celery uses for it."""
    digits = os.urandom(16).hex()
    # Version 3, as the addresses of Celery's clients are.
    return f"{digits[:8]}-{digits[8:12]}-3{digits[13:16]}-9{digits[17:20]}-{digits[20:]}"


def _forget() -> None:
    global _origin
    _origin = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
