"""Signatures, and what is made of them: chains, groups, chords, maps."""

from __future__ import annotations

from chervil.canvas.maps import chunks, xmap, xstarmap
from chervil.canvas.primitives import chain, chord, group
from chervil.canvas.signature import Signature, maybe_signature, signature, subtask
from chervil.canvas.stamping import StampingVisitor

#: Celery's names of the classes behind ``chain`` and ``chord``.
_chain, _chord = chain, chord

__all__ = [
    "Signature",
    "StampingVisitor",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
]
