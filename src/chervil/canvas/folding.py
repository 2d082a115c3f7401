"""``a | b | c``: what a chain is made of, by Celery's rules.

Steps of a chain that follow a group make it a chord; what follows a chord becomes part
of its body; a group of one is its member, an empty group is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chervil.canvas.shape import CHAIN, CHORD, GROUP, kind_of, spread, tasks_of
from chervil.canvas.signature import Signature, maybe_signature, type_of


def unrolled(sig: Any) -> Any:
    """A group of one is its member."""
    return sig["kwargs"]["tasks"][0] if kind_of(sig) == GROUP and len(tasks_of(sig)) == 1 else sig


def is_several(value: Any) -> bool:
    """Whether it is an iterable of signatures."""
    return isinstance(value, Iterable) and not isinstance(value, (Mapping, str))


def spread_out(sig: Any) -> list[Any]:
    """The steps of a chain as signatures."""
    return [sig.as_signature(task) for task in spread(sig)]


def folded(cls: Any, tasks: Iterable[Any]) -> Any:
    """``a | b | c`` in one pass."""
    whole: Any = None
    steps: list[Any] = []
    for task in tasks:
        task = maybe_signature(task)
        if not isinstance(task, Signature):
            raise TypeError(f"a chain is made of signatures, such as task.s(1), not {task!r:.100}")
        if whole is not None:
            whole = whole | task
        elif kind_of(task) == GROUP and not steps and len(tasks_of(task)) > 1:
            whole = task  # which has an operator of its own
        elif kind_of(task) == CHAIN:
            for step in spread_out(task):
                _add(steps, step)
        else:
            _add(steps, task)
    return cls._of(steps, steps[0]._app if steps else None) if whole is None else whole


def extended(chain: Any, other: Any) -> Any:
    """``chain | other``."""
    steps = spread_out(chain)
    if not steps and kind_of(other) == GROUP:
        return other
    for step in spread_out(other) if kind_of(other) == CHAIN else [other]:
        _add(steps, step)
    return type(chain)._of(steps, chain._app)


def _add(steps: list[Any], other: Any) -> None:
    """Put a signature behind the steps of a chain; the steps are not changed themselves."""
    if kind_of(other) == GROUP and not tasks_of(other):
        return
    other = unrolled(other)
    last: Any = steps[-1] if steps else {}
    if kind_of(last) == GROUP:
        steps[-1] = type_of(CHORD)(last, other)
    elif kind_of(last) == CHORD != kind_of(other) and last.body is not None:
        steps[-1] = last._like_me({"body": last.body | other})
    else:
        steps.append(other)
