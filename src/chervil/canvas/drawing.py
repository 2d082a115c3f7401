"""A tree of signatures as a picture, in the languages of Mermaid and Graphviz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chervil.canvas.shape import (
    CHAIN,
    CHORD,
    CHUNKS,
    GROUP,
    Sig,
    body_of,
    kind_of,
    listed,
    members_of,
    options_of,
    parts_of,
    spread,
    steps_of,
    tasks_of,
    with_options,
)
from chervil.exceptions import ImproperlyConfigured

#: Characters of the arguments that are shown.
_SHOWN = 40


class Drawing:
    """What is to be drawn: nodes by number, and what leads from one to another.

    :param most: members of a group that are drawn one by one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        #: Label, and whether it stands for a task.
        self.nodes: list[tuple[str, bool]] = []
        #: From, to, and whether only after a failure.
        self.edges: list[tuple[int, int, bool]] = []

    def add(self, sig: Sig, before: Sequence[int] = (), failed: bool = False) -> list[int]:
        """Draw a signature behind these nodes; the nodes with which it ends."""
        kind = kind_of(sig)
        if kind == CHAIN:
            ends = list(before)
            for step in steps_of(spread(sig)):
                ends, failed = self.add(step, ends, failed), False
            return ends
        if kind == CHORD:
            ends = self._members(members_of(tasks_of(sig)), before, failed)
            options = options_of(sig)
            links = {name: options[name] for name in ("link", "link_error") if options.get(name)}
            return self.add(with_options(body_of(sig), **links), self._join(ends, before))
        if kind in (GROUP, CHUNKS):
            whole = parts_of(sig) if kind == CHUNKS else sig
            return self._members(members_of(tasks_of(whole)), before, failed)
        return [self._task(sig, before, failed)]

    def _task(self, sig: Sig, before: Sequence[int], failed: bool) -> int:
        number = self._node(label_of(sig), True, before, failed)
        options = options_of(sig)
        for callback in listed(options.get("link")):
            self.add(callback, [number])
        for errback in listed(options.get("link_error")):
            self.add(errback, [number], True)
        return number

    def _members(self, members: Sequence[Sig], before: Sequence[int], failed: bool) -> list[int]:
        shown = members if len(members) <= self._most else members[: self._most - 1]
        ends = [end for member in shown for end in self.add(member, before, failed)]
        if len(shown) < len(members):
            text = f"{len(members) - len(shown)} more"
            ends.append(self._node(text, True, before, failed))
        return ends

    def _join(self, ends: Sequence[int], before: Sequence[int]) -> list[int]:
        """All that a body waits for; an empty header is nothing."""
        return [self._node("all", False, ends, False)] if ends else list(before)

    def _node(self, label: str, task: bool, before: Sequence[int], failed: bool) -> int:
        number = len(self.nodes)
        self.nodes.append((label, task))
        self.edges += [(one, number, failed) for one in before]
        return number

    # --- languages

    def mermaid(self) -> str:
        """For Mermaid (https://mermaid.js.org)."""
        lines = ["flowchart LR"]
        for number, (label, task) in enumerate(self.nodes):
            text = "".join(_MERMAID.get(c, c) for c in label)
            lines.append(f'    n{number}["{text}"]' if task else f'    n{number}(("{text}"))')
        for one, other, failed in self.edges:
            lines.append(f"    n{one} {'-. fails .->' if failed else '-->'} n{other}")
        return "\n".join(lines) + "\n"

    def dot(self) -> str:
        """For Graphviz (https://graphviz.org)."""
        lines = ["digraph {", "    rankdir=LR"]
        for number, (label, task) in enumerate(self.nodes):
            text = label.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'    n{number} [label="{text}", shape={"box" if task else "circle"}]')
        for one, other, failed in self.edges:
            style = ' [label="fails", style=dashed]' if failed else ""
            lines.append(f"    n{one} -> n{other}{style}")
        return "\n".join([*lines, "}"]) + "\n"


#: What has a meaning within Mermaid's quotes, as its entity codes.
_MERMAID = {'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"}


def draw(sig: Sig, language: str, most: int) -> str:
    """A signature as a picture.

    :raises ImproperlyConfigured: the language is not known, or a part is no signature.
    """
    drawing = Drawing(max(2, most))
    drawing.add(sig)
    if language == "mermaid":
        return drawing.mermaid()
    if language == "dot":
        return drawing.dot()
    raise ImproperlyConfigured(f"{language!r} is no language to draw in: mermaid or dot")


def label_of(sig: Sig) -> str:
    """A task with its arguments, on one line."""
    kwargs: Mapping[str, Any] = sig.get("kwargs") or {}
    if sig["task"] in ("celery.map", "celery.starmap") and isinstance(kwargs.get("task"), Mapping):
        return f"{kwargs['task']['task']}, {len(kwargs.get('it') or ())} items"
    shown = [repr(value) for value in sig.get("args") or ()]
    shown += [f"{name}={value!r}" for name, value in kwargs.items()]
    text = ", ".join(shown)
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 3] + "..."
    return " ".join(f"{sig['task']}({text})".split())
