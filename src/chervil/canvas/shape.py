"""What a tree of signatures means, before ids and messages: steps, members, sizes.

Works on the dicts that travel in messages as on the classes that users make, and
changes neither. The rules are Celery's (celery/celery ``celery/canvas.py``): chains in
chains and groups in groups are flattened, a group of one among the steps of a chain is
its member, an empty group or chain is nothing, and a group with something behind it is
a chord.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chervil.exceptions import ImproperlyConfigured

#: A signature of any class, or a dict like one.
Sig = Mapping[str, Any]

CHAIN, GROUP, CHORD, CHUNKS = "chain", "group", "chord", "chunks"
#: The task of Celery's that returns its arguments; makes one value of a group's.
ACCUMULATE = "celery.accumulate"


def kind_of(sig: Sig) -> str | None:
    """Chain, group, chord or chunks; None for a single task."""
    own: str | None = getattr(sig, "kind", None)  # of a class that users derived
    if own is not None:
        return own
    kind = sig.get("subtask_type")
    if kind in (CHAIN, GROUP, CHORD):
        return str(kind)
    return CHUNKS if sig.get("task") == "celery.chunks" else None


def leaf(task: str, *args: Any, **options: Any) -> dict[str, Any]:
    """A signature of one task."""
    return _sig(task, args, {}, options, None)


def chain_of(tasks: Iterable[Sig], options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A signature of a chain."""
    return _sig("celery.chain", (), {"tasks": list(tasks)}, dict(options or {}), CHAIN)


def group_of(tasks: Iterable[Sig], options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A signature of a group."""
    return _sig("celery.group", (), {"tasks": list(tasks)}, dict(options or {}), GROUP)


def chord_of(
    header: Sig, body: Sig | None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A signature of a chord."""
    kwargs = {"kwargs": {}, "header": header, "body": body}
    return _sig("celery.chord", (), kwargs, dict(options or {}), CHORD)


def _sig(
    task: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any], kind: Any
) -> dict[str, Any]:
    return {
        "task": task,
        "args": args,
        "kwargs": kwargs,
        "options": options,
        "subtask_type": kind,
        "immutable": False,
    }


def options_of(sig: Sig) -> Mapping[str, Any]:
    """Its options; a signature in a message may have none."""
    return sig.get("options") or {}


def listed(value: Any) -> list[Any]:
    """One, several or no signatures as a list."""
    if not value:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def joined_links(first: Any, more: Any) -> list[Any]:
    """Callbacks of two places, each once."""
    found = listed(first)
    return found + [link for link in listed(more) if link not in found]


def checked(sig: Any, where: str) -> Sig:
    """A signature, if it is one.

    :raises ImproperlyConfigured: it is not.
    """
    if not isinstance(sig, Mapping) or not isinstance(sig.get("task"), str):
        raise ImproperlyConfigured(
            f"{where} holds {sig!r:.100}, which is no signature such as task.s(1)"
        )
    return sig


def tasks_of(sig: Sig) -> Sequence[Any]:
    """The signatures in a chain or group, or in a chord's header."""
    kwargs = sig.get("kwargs") or {}
    if kind_of(sig) == CHORD:
        header = kwargs.get("header") or ()
        if isinstance(header, Mapping):
            return tasks_of(header) if kind_of(header) in (GROUP, CHAIN) else [header]
        return header if isinstance(header, Sequence) else list(header)
    tasks = kwargs.get("tasks") or ()
    return tasks if isinstance(tasks, Sequence) else list(tasks)


def body_of(chord: Sig) -> Sig:
    """The body of a chord.

    :raises ImproperlyConfigured: it has none.
    """
    body = (chord.get("kwargs") or {}).get("body")
    if not body:
        raise ImproperlyConfigured("a chord needs a body: chord(header)(body)")
    return checked(body, "the body of a chord")


# --- chains ---------------------------------------------------------------------------


def steps_of(tasks: Iterable[Any]) -> list[Sig]:
    """The steps of a chain: single tasks and chords, and perhaps a group as the last one."""
    steps: list[Sig] = []
    empty: Sig | None = None
    todo = [iter(tasks)]
    while todo:
        task = next(todo[-1], None)
        if task is None:
            todo.pop()
            continue
        task = checked(task, "a chain")
        kind = kind_of(task)
        if kind == CHUNKS:
            task, kind = parts_of(task), GROUP
        if kind == CHAIN:
            todo.append(iter(spread(task)))
        elif kind == GROUP:
            members = members_of(tasks_of(task))
            if not members:
                empty = empty or task
            elif len(members) == 1:
                todo.append(iter((_with_defaults(members[0], task),)))
            else:
                add_step(steps, task)
        else:
            add_step(steps, task)
    return steps or ([empty] if empty is not None else [])


def add_step(steps: list[Sig], task: Sig) -> None:
    """Put a step behind others; a group that has something behind it becomes a chord."""
    if steps and ends_in_group(steps[-1]):
        steps[-1] = followed(steps[-1], task)
    else:
        steps.append(task)


def ends_in_group(sig: Sig) -> bool:
    """Whether its result is that of a group, so that what follows has to wait for many."""
    while True:
        kind = kind_of(sig)
        if kind == CHAIN:
            steps = steps_of(tasks_of(sig))
            if not steps:
                return False
            sig = steps[-1]
        elif kind == CHORD:
            sig = body_of(sig)
        else:
            return kind in (GROUP, CHUNKS)


def followed(sig: Sig, task: Sig) -> Sig:
    """A signature that ends in a group, with a task behind it."""
    kind = kind_of(sig)
    if kind == CHAIN:
        *steps, last = steps_of(spread(sig))
        return {**sig, "kwargs": {**sig["kwargs"], "tasks": [*steps, followed(last, task)]}}
    if kind == CHORD:
        return with_body(sig, followed(body_of(sig), task))
    return chord_of(parts_of(sig) if kind == CHUNKS else sig, task)


def spread(chain: Sig) -> list[Sig]:
    """The tasks of a chain, with what the chain itself has linked."""
    tasks = [checked(task, "a chain") for task in tasks_of(chain)]
    options = options_of(chain)
    errbacks, callbacks = listed(options.get("link_error")), listed(options.get("link"))
    if errbacks:
        tasks = [with_options(task, link_error=errbacks) for task in tasks]
    if callbacks and tasks:
        tasks[-1] = with_options(tasks[-1], link=callbacks)
    return tasks


# --- groups ---------------------------------------------------------------------------


def members_of(tasks: Iterable[Any]) -> list[Sig]:
    """The members of a group in their order: groups in it are flattened, nothing is left out
    but what is empty."""
    members: list[Sig] = []
    todo = [iter(tasks)]
    while todo:
        task = next(todo[-1], None)
        if task is None:
            todo.pop()
            continue
        task = checked(task, "a group")
        kind = kind_of(task)
        if kind == CHUNKS:
            task, kind = parts_of(task), GROUP
        if kind == GROUP:
            todo.append(iter([_with_defaults(member, task) for member in tasks_of(task)]))
        elif kind == CHAIN:
            steps = steps_of(tasks_of(task))
            if len(steps) == 1 and kind_of(steps[0]) == GROUP:
                todo.append(iter(tasks_of(steps[0])))
            elif steps:
                members.append(task)
        else:
            members.append(task)
    return members


def parts_of(chunks: Sig) -> dict[str, Any]:
    """The group of star maps that chunks stand for."""
    kwargs = chunks["kwargs"]
    items, size = list(kwargs["it"]), int(kwargs["n"])
    if size < 1:
        raise ImproperlyConfigured(f"chunks of {size}: each needs at least one item")
    parts = []
    for start in range(0, len(items), size):
        part = leaf("celery.starmap")
        part["kwargs"] = {"task": kwargs["task"], "it": items[start : start + size]}
        part["immutable"] = True
        parts.append(part)
    return group_of(parts, options_of(chunks))


# --- copies with something changed ------------------------------------------------------


def with_options(sig: Sig, **more: Any) -> dict[str, Any]:
    """A copy with more options; callbacks are added to those that it has."""
    options = dict(options_of(sig))
    for name, value in more.items():
        if name in ("link", "link_error"):
            value = joined_links(options.get(name), value)
        options[name] = value
    return {**sig, "options": options}


def with_body(chord: Sig, body: Sig) -> dict[str, Any]:
    """A copy of a chord with another body."""
    return {**chord, "kwargs": {**chord["kwargs"], "body": body}}


#: Options that a group has for itself.
_OWN = frozenset({"task_id", "group_id", "group_index", "root_id", "parent_id", "chord"})


def _with_defaults(member: Any, group: Sig) -> Sig:
    """A member of an inner group, which the outer one takes in, with the inner one's options."""
    member = checked(member, "a group")
    given = {name: value for name, value in options_of(group).items() if name not in _OWN}
    return {**member, "options": {**given, **options_of(member)}} if given else member
