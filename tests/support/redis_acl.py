"""The user with the least rights that the documentation gives."""

from __future__ import annotations

from pathlib import Path

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "brokers" / "redis.md"


def documented() -> list[str]:
    """``ACL SETUSER``, the user's name, and the rules."""
    lines = _PAGE.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("ACL SETUSER"))
    stop = lines.index("```", start)
    return " ".join(lines[start:stop]).split()


def with_prefix(user: str, prefix: str) -> list[str]:
    """The same for a user whose keys begin with a prefix."""
    rules = [rule for rule in documented()[3:] if rule[0] not in "~&"]
    return [
        "ACL",
        "SETUSER",
        user,
        *rules,
        f"~{prefix}*",
        f"&{prefix}*",
        "&__redis__:invalidate",
    ]
