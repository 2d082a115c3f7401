"""What a signature carries along: callbacks, errbacks and stamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chervil.canvas import stamping
from chervil.canvas.shape import listed

if TYPE_CHECKING:
    from typing import Self

    from chervil.canvas.signature import Signature
    from chervil.canvas.stamping import StampingVisitor


class Linking:
    """Part of :class:`chervil.canvas.signature.Signature`."""

    if TYPE_CHECKING:

        def __getitem__(self, name: str) -> Any: ...
        def as_signature(self, other: Any) -> Signature[Any]: ...
        def set(self, immutable: bool | None = None, **options: Any) -> Self: ...

    def link(self, callback: Signature[Any]) -> Signature[Any]:
        """Have a signature sent with the result when the task succeeds.

        :returns: the callback.
        """
        return self._append("link", callback)

    def link_error(self, errback: Signature[Any]) -> Signature[Any]:
        """Have a signature sent when the task fails.

        :returns: the errback.
        """
        return self._append("link_error", errback)

    def on_error(self, errback: Signature[Any]) -> Self:
        """:meth:`link_error`, but returns this signature."""
        self.link_error(errback)
        return self

    def _append(self, key: str, value: Signature[Any]) -> Signature[Any]:
        items = self["options"].get(key)
        if items is None:
            items = self["options"][key] = []
        elif not isinstance(items, list):
            items = self["options"][key] = [items]
        if value not in items:
            items.append(value)
        return value

    def stamp(
        self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any
    ) -> Self:
        """Give it stamps: headers of its message, of those of its parts, and of what is linked.

        The body of a chord gets only what ``on_chord_body`` of a visitor says.

        :param visitor: says what the stamps are.
        :param append_stamps: two values of one name become a list.
        :param headers: stamps.
        """
        stamping.stamp(self, visitor, append_stamps, headers)  # type: ignore[arg-type]
        return self

    def stamp_links(
        self, visitor: StampingVisitor | None = None, append_stamps: bool = False, **headers: Any
    ) -> None:
        """:meth:`stamp` only for what is linked to it."""
        stamping.stamp_links(self, visitor, append_stamps, headers)  # type: ignore[arg-type]

    def flatten_links(self) -> list[Signature[Any]]:
        """This signature and all that is linked to it, and to that, and so on."""
        found: list[Signature[Any]] = [self]  # type: ignore[list-item]
        for link in listed(self["options"].get("link")):
            found += self.as_signature(link).flatten_links()
        return found
