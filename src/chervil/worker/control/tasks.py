"""Commands about tasks: cancelling, limits, and what the node has of them."""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chervil import clock
from chervil.control.cancelling import REVOKES_KEPT, stamp_names
from chervil.exceptions import OperationalError
from chervil.wire.envelope import decode_head
from chervil.worker.control.info import describe
from chervil.worker.control.registry import control_command, inspect_command, nok, ok
from chervil.worker.revocations import is_task_id

if TYPE_CHECKING:
    from chervil.worker.control.state import State
    from chervil.worker.flight import Flight


# --- cancelling


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(
    state: State, task_id: Any, terminate: Any = False, signal: Any = None, **_kwargs: Any
) -> Any:
    """Keep tasks from being started, and with terminate=True end those that run."""
    ids = _texts(task_id)
    signum = _signum(signal) if terminate else 0
    state.revocations.add(ids)
    ended = _cancel(state, lambda flight: flight.task_id in ids, signum)
    if not state.stored:
        state.app.broker.revoke(ids, clock.now() + REVOKES_KEPT)
    if not terminate:
        return ok(f"tasks {ids} flagged as revoked")
    return ok(f"terminate: {', '.join(ended) or 'tasks unknown'}")


@control_command(
    variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]"
)
def terminate(state: State, signal: Any, task_id: Any, **kwargs: Any) -> Any:
    """End tasks by a signal, and keep those from being started that wait."""
    return revoke(state, task_id, terminate=True, signal=signal)


@control_command(variadic="headers", signature="[key1=value1 [key2=value2 [...]]]")
def revoke_by_stamped_headers(
    state: State, headers: Any, terminate: Any = False, signal: Any = None, **_kwargs: Any
) -> Any:
    """Keep tasks from being started that carry one of these values of a stamp."""
    wanted = _stamps(headers)
    signum = _signum(signal) if terminate else 0
    state.revocations.add_stamps(wanted)

    def chosen(flight: Flight) -> bool:
        return state.revocations.stamped(decode_head(flight.delivery.head), wanted)

    ended = _cancel(state, chosen, signum)
    if not state.stored:
        state.app.broker.revoke(stamp_names(wanted), clock.now() + REVOKES_KEPT)
    if not terminate:
        return ok(f"headers {wanted} flagged as revoked, but not terminated")
    if not ended:
        return ok(f"headers {wanted} were not terminated")
    return ok(f"headers {wanted} revoked, terminated: {', '.join(ended)}")


def _cancel(state: State, chosen: Callable[[Flight], bool], signum: int) -> list[str]:
    """Cancel what the node has of these; the ids of those that were there."""
    solo = [flight for flight in state.flights() if chosen(flight)]
    if signum:
        for flight in solo:  # the hub's own thread may be at it
            state.node.interrupt(flight, signum)
    try:
        return state.on_hub(lambda node: node.cancel(chosen, signum))
    except OperationalError:
        return [flight.task_id for flight in solo]


@control_command()
def hello(state: State, from_node: Any, revoked: Any = None, **_kwargs: Any) -> Any:
    """Exchange with a starting node what was revoked."""
    if from_node == state.hostname:
        return None
    known = _revoked(state)
    _store(state, _texts(revoked or []).difference(known))
    return {"revoked": _revoked(state), "clock": state.tick()}


def learn(state: State, replies: Iterable[Mapping[str, Any]], known: Iterable[str]) -> None:
    """Take over what other nodes have answered to ``hello``."""
    ids: set[str] = set()
    for reply in replies:
        for answer in reply.values():
            if isinstance(answer, dict):
                ids |= _texts(answer.get("revoked"))
                seen = answer.get("clock")
                state.tick(seen if isinstance(seen, int) else 0)
    _store(state, ids.difference(known))


def _store(state: State, ids: set[str]) -> None:
    if ids:
        state.revocations.add(ids)
        state.app.broker.revoke(ids, clock.now() + REVOKES_KEPT)


@inspect_command(alias="dump_revoked")
def revoked(state: State, **_kwargs: Any) -> Any:
    """The ids of revoked tasks."""
    return _revoked(state)


def _revoked(state: State, most: int = 10_000) -> list[str]:
    stored = [name for name in state.app.broker.revoked(most) if is_task_id(name)]
    return list(dict.fromkeys([*state.revocations.ids(), *stored]))[:most]


# --- limits


@control_command(
    args=[("task_name", str), ("soft", float), ("hard", float)],
    signature="<task_name> <soft_secs> [hard_secs]",
)
def time_limit(
    state: State, task_name: Any = None, hard: Any = None, soft: Any = None, **_kwargs: Any
) -> Any:
    """Change the time limits of a task, for what is taken from now on."""
    task = state.app.tasks.get(task_name)
    if task is None:
        return nok("unknown task")
    values = [None if value is None else float(value) for value in (soft, hard)]
    if any(value is not None and value < 0 for value in values):
        return nok(f"time limits are seconds, not {soft!r} and {hard!r}")
    task.soft_time_limit, task.time_limit = values
    state.on_hub(lambda node: node.options_changed())
    return ok("time limits set successfully")


@control_command(
    args=[("task_name", str), ("rate_limit", str)],
    signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
)
def rate_limit(state: State, task_name: Any, rate_limit: Any, **_kwargs: Any) -> Any:
    """Note the rate limit of a task (nodes do not enforce rate limits yet)."""
    try:
        _check_rate(rate_limit)
    except (ValueError, TypeError) as exc:
        return nok(f"Invalid rate limit string: {exc!r}")
    task = state.app.tasks.get(task_name)
    if task is None:
        return nok("unknown task")
    task.rate_limit = rate_limit
    if not rate_limit:
        return ok("rate limit disabled successfully")
    return ok("new rate limit set successfully")


def _check_rate(rate: Any) -> float:
    if not rate:
        return 0.0
    if not isinstance(rate, str):
        return float(rate)
    number, _, unit = rate.partition("/")
    if unit not in ("", "s", "m", "h"):
        raise ValueError(f"no unit of time: {unit!r} (known: s, m, h)")
    return float(number)


# --- what the node has


@inspect_command(alias="dump_active")
def active(state: State, safe: Any = False, **_kwargs: Any) -> Any:
    """The tasks that run."""
    places = state.node.running()
    return [
        describe(flight, state, places[flight.number], bool(safe))
        for flight in state.flights()
        if flight.number in places
    ]


@inspect_command(alias="dump_reserved")
def reserved(state: State, **_kwargs: Any) -> Any:
    """The tasks that were taken and have not begun."""
    places = state.node.running()
    return [
        describe(flight, state, None, False)
        for flight in state.flights()
        if flight.number not in places
    ]


@inspect_command(alias="dump_schedule")
def scheduled(state: State, **_kwargs: Any) -> Any:
    """Nothing: delayed tasks wait in the broker, not in nodes."""
    return []


@inspect_command(args=[("ids", str)], variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: State, ids: Any, **_kwargs: Any) -> Any:
    """What the node has of these tasks."""
    wanted = _texts(ids)
    places = state.node.running()
    found = {}
    for flight in state.flights():
        if flight.task_id in wanted:
            place = places.get(flight.number)
            what = "active" if place else "reserved"
            found[flight.task_id] = [what, describe(flight, state, place, False)]
    return found


@inspect_command(
    alias="dump_tasks", variadic="taskinfoitems", signature="[attr1 [attr2 [... [attrN]]]]"
)
def registered(
    state: State, taskinfoitems: Any = None, builtins: Any = False, **_kwargs: Any
) -> Any:
    """The tasks that the node knows, with these of their options."""
    items = [item for item in taskinfoitems or ["rate_limit"] if not str(item).startswith("_")]
    found = []
    for name, task in sorted(state.app.tasks.items()):
        if name.startswith("celery.") and not builtins:
            continue
        values = [(item, getattr(task, str(item), None)) for item in items]
        shown = " ".join(f"{item}={value}" for item, value in values if value is not None)
        found.append(f"{name} [{shown}]" if shown else name)
    return found


# --- arguments


def _texts(value: Any) -> set[str]:
    """Ids that were given as one or as several."""
    if value is None:
        return set()
    if isinstance(value, str):
        return {value}
    if isinstance(value, Iterable):
        return {str(item) for item in value}
    raise TypeError(f"ids of tasks are text, not {value!r}")


def _stamps(headers: Any) -> dict[str, list[Any]]:
    if isinstance(headers, (list, tuple)):  # from a command line
        pairs = [str(item).partition("=") for item in headers]
        headers = {}
        for name, _, value in pairs:
            headers.setdefault(name, []).append(value)
    if not isinstance(headers, Mapping) or not headers:
        raise TypeError(f"stamped headers are a map of names to values, not {headers!r}")
    return {
        str(name): list(value) if isinstance(value, (list, tuple, set)) else [value]
        for name, value in headers.items()
    }


def _signum(given: Any) -> int:
    """The number of a signal that was given by name or number; SIGTERM for none."""
    if not given:
        return signals.SIGTERM
    if isinstance(given, str) and not given.isdigit():
        name = given.upper() if given.upper().startswith("SIG") else f"SIG{given.upper()}"
        return signals.Signals[name]
    return signals.Signals(int(given))
