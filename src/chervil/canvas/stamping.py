"""Stamps: headers that a workflow gives to all of its tasks.

A visitor says what each part is stamped with (source: celery/celery
``celery/canvas.py``, ``StampingVisitor``). Stamps travel as options: ``stamped_headers``
names them, and each is an option of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chervil.canvas.shape import CHAIN, CHORD, GROUP, kind_of, listed

if TYPE_CHECKING:
    from chervil.canvas.signature import Signature

Stamps = dict[str, Any]


class StampingVisitor(ABC):
    """Says what signatures are stamped with; each method returns a dict of stamps.

    A stamp is given to the tasks as it is, but if the dict has a key
    ``stamped_headers``, only those that it names count.
    """

    def on_group_start(self, group: Signature[Any], **headers: Any) -> Stamps | None:
        """For all members of a group."""
        return {}

    def on_group_end(self, group: Signature[Any], **headers: Any) -> None:  # noqa: B027
        """A group's members have been visited."""

    def on_chain_start(self, chain: Signature[Any], **headers: Any) -> Stamps | None:
        """For all steps of a chain."""
        return {}

    def on_chain_end(self, chain: Signature[Any], **headers: Any) -> None:  # noqa: B027
        """A chain's steps have been visited."""

    @abstractmethod
    def on_signature(self, sig: Signature[Any], **headers: Any) -> Stamps | None:
        """For one task."""

    def on_chord_header_start(self, sig: Signature[Any], **header: Any) -> Stamps | None:
        """For the header of a chord; unless said otherwise, as for a group."""
        tasks = sig["kwargs"]["header"]
        if isinstance(tasks, Mapping):
            return self.on_group_start(tasks, **header)  # type: ignore[arg-type]
        return {}

    def on_chord_header_end(self, sig: Signature[Any], **header: Any) -> None:
        """A chord's header has been visited."""
        tasks = sig["kwargs"]["header"]
        if isinstance(tasks, Mapping):
            self.on_group_end(tasks, **header)  # type: ignore[arg-type]

    def on_chord_body(self, sig: Signature[Any], **header: Any) -> Stamps | None:
        """For the body of a chord."""
        return {}

    def on_callback(self, callback: Signature[Any], **header: Any) -> Stamps | None:
        """For what is linked to a task."""
        return {}

    def on_errback(self, errback: Signature[Any], **header: Any) -> Stamps | None:
        """For what is linked to a task's failure."""
        return {}


def gathered(
    given: Mapping[str, Any],
    visited: Mapping[str, Any] | None,
    own: Mapping[str, Any] | None,
    append: bool,
) -> Stamps:
    """Stamps from what was given, what the visitor said and what the signature has.

    :param append: two values of one name become a list; otherwise the first of a
        visitor's, a given one and one of the signature's own counts.
    """
    stamps = _named(given)
    for more in (visited, own):
        for name, value in _named(more or {}).items():
            if name not in stamps:
                stamps[name] = value
            elif append and stamps[name] != value:
                stamps[name] = [*_many(stamps[name]), *_many(value)]
            elif more is visited:
                stamps[name] = value
    return {**stamps, "stamped_headers": list(stamps)}


def _named(values: Mapping[str, Any]) -> Stamps:
    names = values.get("stamped_headers")
    if names is None:
        return {name: value for name, value in values.items() if name != "stamped_headers"}
    return {name: values[name] for name in names if name in values}


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


def own_stamps(sig: Mapping[str, Any]) -> Stamps:
    """The stamps that a signature has."""
    options = sig["options"]
    return {name: options[name] for name in options.get("stamped_headers") or () if name in options}


def stamp_links(
    sig: Signature[Any], visitor: StampingVisitor | None, append: bool, headers: Mapping[str, Any]
) -> None:
    """Stamp what is linked to a signature."""
    options = sig["options"]
    for name in ("link", "link_error"):
        if not options.get(name):
            continue
        links = [sig.as_signature(link) for link in listed(options[name])]
        for link in links:
            visited = None
            if visitor is not None:
                ask = visitor.on_callback if name == "link" else visitor.on_errback
                visited = ask(link, **headers)
            link.stamp(visitor, append, **gathered(headers, visited, None, append))
        options[name] = links


def stamp(
    sig: Signature[Any], visitor: StampingVisitor | None, append: bool, headers: Mapping[str, Any]
) -> None:
    """Stamp a signature, what is linked to it and what it is made of."""
    kind = kind_of(sig)
    if kind not in (CHAIN, GROUP, CHORD):
        stamp_links(sig, visitor, append, headers)
        visited = visitor.on_signature(sig, **headers) if visitor is not None else None
        sig.set(**gathered(headers, visited, own_stamps(sig), append))
        return
    visited = None
    if visitor is not None:
        if kind == CHAIN:
            visited = visitor.on_chain_start(sig, **headers)
        elif kind == GROUP:
            visited = visitor.on_group_start(sig, **headers)
        else:
            visited = visitor.on_chord_header_start(sig, **headers)
    headers = gathered(headers, visited, own_stamps(sig), append)
    stamp_links(sig, visitor, append, headers)
    for part in _parts(sig, kind):
        part.stamp(visitor, append, **headers)
    if visitor is None:
        return
    if kind == CHAIN:
        visitor.on_chain_end(sig, **headers)
    elif kind == GROUP:
        visitor.on_group_end(sig, **headers)
    else:
        visitor.on_chord_header_end(sig, **headers)
        body = sig["kwargs"].get("body")
        if body:
            visited = visitor.on_chord_body(sig, **headers)
            body.stamp(visitor, append, **gathered(headers, visited, None, append))


def _parts(sig: Signature[Any], kind: str) -> list[Signature[Any]]:
    """The signatures in it, which are made of dicts where they still are such."""
    where, name = sig["kwargs"], "header" if kind == CHORD else "tasks"
    if isinstance(where[name], Mapping):
        where, name = where[name]["kwargs"], "tasks"
    where[name] = parts = [sig.as_signature(part) for part in where[name]]
    return parts
