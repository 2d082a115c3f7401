"""From a tree of signatures to messages: which are sent now, and what they carry along.

Nothing here sends anything. :class:`Planner` gives every task its id, puts what comes
later into the options ``chain``, ``chord``, ``link`` and ``link_error`` of what comes
first, exactly as Celery writes it (celery/celery ``celery/canvas.py``), and says which
results there will be. Each task is visited once, and what several messages carry is
one object that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from chervil.canvas.freezing import ORIGIN, Freezer, Node, Options, accumulated, header_of
from chervil.canvas.shape import (
    CHAIN,
    CHORD,
    CHUNKS,
    Sig,
    body_of,
    chain_of,
    chord_of,
    joined_links,
    kind_of,
    listed,
    members_of,
    options_of,
    parts_of,
    steps_of,
    tasks_of,
    with_options,
)

#: Where a signature has its place in a workflow; given once, kept when it is sent.
_PLACE = ("task_id", "group_id", "group_index", "chord", "chain", "link", "link_error")
#: Of a chord's options those that delay only its header.
_HEADER_ONLY = ("countdown", "eta", "parent_id")


class Call(msgspec.Struct, gc=False):
    """One task that is to be sent."""

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Options


class Planner(Freezer):
    """Plans one workflow.

    :param new_id: makes ids.
    :param reply_to: the address that waits for the results.
    :param header_errbacks: ``task_allow_error_cb_on_chord_header``.
    """

    def __init__(
        self, new_id: Callable[[], str], reply_to: str = "", header_errbacks: bool = False
    ) -> None:
        super().__init__(new_id, reply_to, header_errbacks)
        #: What is to be sent now, in this order.
        self.calls: list[Call] = []
        #: Ids of chords that are begun with these calls, and how many members they have.
        self.joins: dict[str, int] = {}
        #: What the calls are to their sender: the first task, or the first group.
        self.first: Node | None = None

    def plan(
        self,
        sig: Sig,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Node | None:
        """Plan a signature; what its result is, None when there is nothing to run.

        :param args: put before its own arguments.
        :param options: of ``apply_async``; ``chain`` and ``chord`` say what follows it.
        """
        given = {name: value for name, value in (options or {}).items() if value is not None}
        return self._emit(sig, tuple(args), dict(kwargs or {}), given)

    # --- what is sent now

    def _emit(
        self, sig: Sig, args: tuple[Any, ...], kwargs: Options, given: Options
    ) -> Node | None:
        kind = kind_of(sig)
        if kind is None:
            return self._emit_task(sig, args, kwargs, given)
        if sig.get("immutable"):
            args, kwargs = (), {}
        if kind == CHAIN:
            return self._emit_chain(sig, args, kwargs, given)
        if kind == CHORD:
            return self._emit_chord(sig, args, kwargs, given)
        return self._emit_group(parts_of(sig) if kind == CHUNKS else sig, args, kwargs, given)

    def _emit_task(self, sig: Sig, args: tuple[Any, ...], kwargs: Options, given: Options) -> Node:
        own = options_of(sig)
        options = merged(own, given)
        task_id = options.get("task_id")
        if task_id is None:
            task_id = options["task_id"] = self._new_id()
        if "reply_to" not in options:
            options["reply_to"] = self._reply_to
        own_args, own_kwargs = tuple(sig.get("args") or ()), sig.get("kwargs") or {}
        if sig.get("immutable"):
            args, kwargs = own_args, dict(own_kwargs)
        else:
            args, kwargs = args + own_args, {**own_kwargs, **kwargs}
        self.calls.append(Call(sig["task"], args, kwargs, options))
        node = Node(task_id, sig["task"])
        if self.first is None:
            self.first = node
        return node

    def _emit_chain(
        self, sig: Sig, args: tuple[Any, ...], kwargs: Options, given: Options
    ) -> Node | None:
        options = merged(options_of(sig), given)
        place = {name: options.pop(name) for name in _PLACE if name in options}
        later = listed(place.pop("chain", None))
        link_error = place.pop("link_error", None)
        steps = steps_of(tasks_of(sig))
        args += tuple(sig.get("args") or ())
        if not steps:
            return self._emit_next(later, args, kwargs, {**options, **place})
        first, *rest = steps
        if link_error:
            options["link_error"] = link_error
        if not rest:
            return self._emit(first, args, kwargs, {**options, **place, "chain": later})
        frozen, nodes = self._freeze_steps(rest, place, link_error)
        options["chain"] = later + frozen[::-1]
        node = self._emit(first, args, kwargs, options)
        for following in nodes:
            following.top().parent = node
            node = following
        return node

    def _emit_next(
        self, later: list[Any], args: tuple[Any, ...], kwargs: Options, given: Options
    ) -> Node | None:
        """Go on behind a chain that was empty."""
        if not later:
            return None
        *later, following = later
        return self._emit(following, args, kwargs, {**given, "chain": later})

    def _emit_group(
        self, sig: Sig, args: tuple[Any, ...], kwargs: Options, given: Options
    ) -> Node | None:
        options = merged(options_of(sig), given)
        if options.get("chain") or options.get("link") or given.get("chord"):
            given = {k: v for k, v in given.items() if k not in ("chain", "task_id")}
            return self._emit_chord(_with_body(sig, options), args, kwargs, given)
        options.pop("chain", None)
        group_id = options.pop("task_id", None) or self._new_id()
        node = Node(group_id, members=[])
        if self.first is None:
            self.first = node
        if options.get("chord"):  # its own: Celery counts each member of a group that ends a chain
            group_id = options.get("group_id") or group_id
        node.members = self._emit_members(sig, group_id, args, kwargs, options)
        return node

    def _emit_members(
        self, sig: Sig, group_id: str, args: tuple[Any, ...], kwargs: Options, options: Options
    ) -> list[Node]:
        nodes = []
        args += tuple(sig.get("args") or ())
        for index, member in enumerate(members_of(tasks_of(sig))):
            place = {**options, "group_id": group_id, "group_index": index}
            node = self._emit(member, args, kwargs, place)
            if node is not None:
                nodes.append(node)
        return nodes

    def _emit_chord(
        self, sig: Sig, args: tuple[Any, ...], kwargs: Options, given: Options
    ) -> Node | None:
        own = dict(options_of(sig))
        header = header_of(sig)
        group_id = options_of(header).get("task_id") or own.get("task_id") or self._new_id()
        own.pop("task_id", None)
        options = merged(own, given)
        place = {name: options.pop(name) for name in _PLACE if name in options}
        body_id = place.pop("task_id", None)
        later, link = place.pop("chain", None), place.pop("link", None)
        link_error = place.pop("link_error", None)
        place.setdefault("group_id", group_id)
        members = members_of(tasks_of(header))
        inherited = {k: v for k, v in options.items() if k not in _HEADER_ONLY}
        body: Any = body_of(sig)
        if inherited:
            body = {**body, "options": {**options_of(body), **inherited}}
        if later:  # not None: Celery writes an empty list when nothing follows
            body = with_options(body, chain=later)
        if not members:
            return self._emit_body(body, group_id, body_id, place, link, link_error)
        if link_error and self._header_errbacks:
            options["link_error"] = [{**errback, "immutable": True} for errback in link_error]
        frozen, node = self._freeze(body, body_id, place, link, link_error)
        frozen["chord_size"] = self.joins[group_id] = len(members)
        above = Node(group_id, members=[])
        if self.first is None:
            self.first = above
        for name in ("group_id", "group_index", "chord"):
            options.pop(name, None)
        args += tuple(sig.get("args") or ())
        kwargs = {**((sig.get("kwargs") or {}).get("kwargs") or {}), **kwargs}
        header = with_options(header)
        for name in (*_PLACE, *ORIGIN):
            header["options"].pop(name, None)
        options = {**header["options"], **options, "chord": frozen}
        above.members = self._emit_members(header, group_id, args, kwargs, options)
        node.top().parent = above
        return node

    def _emit_body(
        self, body: Sig, group_id: str, body_id: Any, place: Options, link: Any, link_error: Any
    ) -> Node | None:
        """The body of a chord without members gets an empty list at once."""
        if place["group_id"] == group_id:
            del place["group_id"]
        place.update(task_id=body_id, link=link, link_error=link_error)
        node = self._emit(body, ([],), {}, {k: v for k, v in place.items() if v is not None})
        if node is not None:
            node.top().parent = Node(group_id, members=[])
        return node


def _with_body(group: Sig, options: Options) -> Sig:
    """A group that something follows, as the chord that it means."""
    later = listed(options.get("chain"))
    if len(later) > 1:
        body: Sig = chain_of(later[::-1])
    else:
        body = later[0] if later else accumulated()
    return chord_of(group, body, {"task_id": options.get("task_id")})


def merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> Options:
    """A signature's options with those that it is sent with.

    What is given counts, except for the group that it has; callbacks are added.
    """
    options = {**own, **given}
    for name in ("link", "link_error"):
        if own.get(name) and given.get(name):
            options[name] = joined_links(own[name], given[name])
    for name in ("group_id", "stamped_headers"):
        if own.get(name) is not None:
            options[name] = own[name]
    return options
