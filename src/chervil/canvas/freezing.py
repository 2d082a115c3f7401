"""Giving every task of a tree its id, as a copy in the form that travels in messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from chervil.canvas.shape import (
    ACCUMULATE,
    CHAIN,
    CHORD,
    CHUNKS,
    GROUP,
    Sig,
    body_of,
    chord_of,
    joined_links,
    kind_of,
    leaf,
    members_of,
    options_of,
    parts_of,
    steps_of,
    tasks_of,
)

Options = dict[str, Any]

#: What says where a task comes from.
ORIGIN = ("root_id", "parent_id")


class Node(msgspec.Struct):
    """A result that there will be: of a task, or of a group when it has members."""

    id: str
    task: str | None = None
    parent: Node | None = None
    members: list[Node] | None = None

    def top(self) -> Node:
        """The first of the steps that lead to this result."""
        node = self
        while node.parent is not None:
            node = node.parent
        return node


class Freezer:
    """Makes the part of a workflow that comes later.

    :param new_id: makes ids.
    :param reply_to: the address that waits for the results.
    :param header_errbacks: ``task_allow_error_cb_on_chord_header``.
    """

    def __init__(
        self, new_id: Callable[[], str], reply_to: str = "", header_errbacks: bool = False
    ) -> None:
        self._new_id = new_id
        self._reply_to = reply_to
        self._header_errbacks = header_errbacks

    def freeze(self, sig: Sig, **place: Any) -> tuple[dict[str, Any], Node]:
        """A copy in which every task has its id, and the result that there will be.

        :param place: ``task_id``, ``group_id``, ``group_index``, ``chord``, ``root_id``,
            ``parent_id``.
        """
        place = {name: value for name, value in place.items() if value is not None}
        return self._freeze(sig, place.pop("task_id", None), place)

    def _freeze(
        self,
        sig: Sig,
        task_id: str | None,
        place: Options,
        link: Any = None,
        link_error: Any = None,
    ) -> tuple[dict[str, Any], Node]:
        kind = kind_of(sig)
        if kind is None:
            return self._freeze_task(sig, task_id, place, link, link_error)
        if kind == CHAIN:
            return self._freeze_chain(sig, task_id, place, link, link_error)
        if kind == CHORD:
            return self._freeze_chord(sig, task_id, place, link, link_error)
        if kind == CHUNKS:
            sig = parts_of(sig)
        if place.get("chord") or link:
            whole = chord_of(sig, accumulated())
            return self._freeze_chord(whole, task_id, place, link, link_error)
        return self._freeze_group(sig, task_id, place, link_error)

    def _freeze_task(
        self, sig: Sig, task_id: str | None, place: Options, link: Any, link_error: Any
    ) -> tuple[dict[str, Any], Node]:
        options = dict(options_of(sig))
        found = options.get("task_id")
        if found is None:
            found = options["task_id"] = task_id or self._new_id()
        options.setdefault("reply_to", self._reply_to)
        _put(options, place)
        if link:
            options["link"] = joined_links(options.get("link"), link)
        if link_error:
            options["link_error"] = joined_links(options.get("link_error"), link_error)
        return {**sig, "options": options}, Node(found, sig["task"])

    def _freeze_chain(
        self, sig: Sig, task_id: str | None, place: Options, link: Any, link_error: Any
    ) -> tuple[dict[str, Any], Node]:
        options = dict(options_of(sig))
        link = joined_links(options.pop("link", None), link)
        link_error = joined_links(options.pop("link_error", None), link_error)
        steps = steps_of(tasks_of(sig)) or [accumulated()]
        last = {"task_id": options.get("task_id") or task_id, "link": link, **place}
        frozen, nodes = self._freeze_steps(steps, last, link_error)
        node = nodes[0]
        for following in nodes[1:]:
            following.top().parent = node
            node = following
        options["task_id"] = node.id
        return {**sig, "kwargs": {**sig["kwargs"], "tasks": frozen}, "options": options}, node

    def _freeze_steps(
        self, steps: Sequence[Sig], last: Options, link_error: Any
    ) -> tuple[list[Sig], list[Node]]:
        """Steps one after the other; ``last`` is the place of the last one."""
        frozen: list[Sig] = []
        nodes: list[Node] = []
        last = dict(last)
        task_id, link = last.pop("task_id", None), last.pop("link", None)
        origin = {name: last[name] for name in ORIGIN if name in last}
        for step in steps[:-1]:
            found, node = self._freeze(step, None, dict(origin), None, link_error)
            frozen.append(found)
            nodes.append(node)
        found, node = self._freeze(steps[-1], task_id, last, link, link_error)
        return [*frozen, found], [*nodes, node]

    def _freeze_group(
        self, sig: Sig, task_id: str | None, place: Options, link_error: Any = None
    ) -> tuple[dict[str, Any], Node]:
        options = dict(options_of(sig))
        found = options["task_id"] = options.get("task_id") or task_id or self._new_id()
        members, nodes = [], []
        inner = {name: place[name] for name in ("group_id", *ORIGIN) if name in place}
        for index, member in enumerate(members_of(tasks_of(sig))):
            frozen, node = self._freeze(
                member, None, {**inner, "group_index": index}, None, link_error
            )
            members.append(frozen)
            nodes.append(node)
        options.setdefault("root_id", None)
        options.setdefault("parent_id", None)
        _put(options, place)
        kwargs = {**sig["kwargs"], "tasks": members}
        return {**sig, "kwargs": kwargs, "options": options}, Node(found, members=nodes)

    def _freeze_chord(
        self, sig: Sig, task_id: str | None, place: Options, link: Any, link_error: Any
    ) -> tuple[dict[str, Any], Node]:
        options = dict(options_of(sig))
        link = joined_links(options.pop("link", None), link)
        link_error = joined_links(options.pop("link_error", None), link_error)
        header, above = self._freeze_group(
            header_of(sig),
            options.get("task_id"),
            {name: place[name] for name in ORIGIN if name in place},
            [{**e, "immutable": True} for e in link_error] if self._header_errbacks else None,
        )
        body, node = self._freeze(body_of(sig), task_id, place, link, link_error)
        options["task_id"] = above.id
        node.top().parent = above
        kwargs = {"kwargs": {}, **sig["kwargs"], "header": header, "body": body}
        return {**sig, "kwargs": kwargs, "options": options}, node


def header_of(chord: Sig) -> Sig:
    """The header of a chord as a group."""
    header = (chord.get("kwargs") or {}).get("header")
    if isinstance(header, Mapping) and kind_of(header) == GROUP:
        return header
    return {**_EMPTY_GROUP, "kwargs": {"tasks": tasks_of(chord)}}


_EMPTY_GROUP = {
    "task": "celery.group",
    "args": (),
    "kwargs": {"tasks": ()},
    "options": {},
    "subtask_type": GROUP,
    "immutable": False,
}


def accumulated() -> dict[str, Any]:
    """A task that returns what it is given: the list of a group's results, as one value."""
    sig = leaf(ACCUMULATE)
    sig["kwargs"] = {"index": 0}
    return sig


def _put(options: Options, place: Options) -> None:
    """Give a signature its place; what it has already, it keeps."""
    for name, value in place.items():
        if name == "group_id" and options.get(name) is not None:
            continue
        options[name] = value
