"""What the table says about one setting."""

from __future__ import annotations

from typing import Any

from chervil.settings.kinds import Kind

#: Celery has no such setting.
OURS = "ours"
#: Celery's default is ours.
SAME = "same"


class Setting:
    """One setting: its name, what it takes, and what it does.

    :param doc: meaning, unit and consequences, in Markdown.
    :param celery: Celery's default as text, ``OURS`` or ``SAME``.
    """

    __slots__ = ("celery", "default", "doc", "group", "kind", "name")

    def __init__(self, name: str, kind: Kind, default: Any, doc: str, celery: str = SAME) -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.doc = doc
        self.celery = celery
        #: Heading under which the documentation has it.
        self.group = ""

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return f"CHERVIL_{self.name.upper()}"

    def fresh_default(self) -> Any:
        """The default, for one owner to keep and change."""
        return self.default.copy() if isinstance(self.default, (list, dict)) else self.default


def group(title: str, *settings: Setting) -> tuple[Setting, ...]:
    """These settings under one heading."""
    for setting in settings:
        setting.group = title
    return settings
