"""Workflows on real nodes: every form of them, every way to fail, and kills in between."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chervil import GroupResult, chain, chord, group
from chervil.exceptions import ChordError, TaskRevokedError
from tests.apps.flows import (
    aadd,
    add,
    app,
    becomes_chain,
    becomes_chord,
    becomes_group,
    becomes_itself,
    brings_another,
    count,
    dies,
    dies_each_time,
    early,
    explain,
    fail,
    hangs,
    ignores,
    note,
    origin,
    rejects,
    retried,
    same,
    silent,
    slow,
    starts,
    total,
    unwritable,
)
from tests.support.processes import WorkerProcess
from tests.support.waiting import lines, wait_until

WAIT = 30.0
Start = Callable[..., WorkerProcess]


@pytest.fixture(
    params=["sqlite", pytest.param("redis", marks=pytest.mark.requires_server("redis"))]
)
def start(
    request: pytest.FixtureRequest,
    worker: Callable[..., WorkerProcess],
    server_url: Callable[[str], str],
) -> Iterator[Start]:
    conf, env = app.conf, {}
    app.close()
    if request.param == "sqlite":
        conf.broker_url = conf.result_backend = request.getfixturevalue("sqlite_url")
    else:
        conf.broker_url = conf.result_backend = server_url("redis")
        prefix = f"test-{uuid.uuid4().hex[:12]}:"
        options = {"global_keyprefix": prefix}
        conf.broker_transport_options = conf.result_backend_transport_options = options
        text = f'{{"global_keyprefix": "{prefix}"}}'
        env = {
            "CHERVIL_BROKER_URL": conf.broker_url,
            "CHERVIL_RESULT_BACKEND": conf.broker_url,
            "CHERVIL_BROKER_TRANSPORT_OPTIONS": text,
            "CHERVIL_RESULT_BACKEND_TRANSPORT_OPTIONS": text,
        }
    yield lambda *args: worker("tests.apps.flows", *args, env=env)
    app.close()
    conf.broker_transport_options = conf.result_backend_transport_options = {}


def mapped(value: Any) -> Any:
    """A sum, as a chord whose body is a chain."""
    return chord([add.s(1, 1), add.s(2, 2)], total.s() | add.s(value))


FLOWS: dict[str, tuple[Callable[[], Any], Any]] = {
    "chain": (lambda: add.s(1, 2) | add.s(10) | add.s(5), 18),
    "immutable": (lambda: add.s(1, 2) | add.si(3, 4), 7),
    "group": (lambda: group(add.s(i, i) for i in range(3)), [0, 2, 4]),
    "chord": (lambda: chord([add.s(1, 1), add.s(2, 2)], total.s()), 6),
    "body chain": (lambda: mapped(10), 16),
    "body group": (lambda: chord([add.s(1, 1)], group(same.s(), total.s())), [[2], 2]),
    "body chord": (lambda: chord([add.s(1, 1)], chord([total.s(), total.s()], total.s())), 4),
    "group then task": (lambda: group(add.s(1, 1), add.s(2, 2)) | total.s() | add.s(3), 9),
    "task, group, task": (lambda: add.s(1, 1) | group(add.s(10), add.s(20)) | total.s(), 34),
    "groups": (
        lambda: add.s(1, 1) | group(add.s(1), add.s(2)) | group(total.s(), total.s()) | total.s(),
        14,
    ),
    "ends in a group": (lambda: add.s(1, 1) | group(add.s(1), add.s(2)), [3, 4]),
    "chord in header": (
        lambda: chord([add.s(1, 1), chord([add.s(2, 2), add.s(3, 3)], total.s())], total.s()),
        12,
    ),
    "chains in header": (
        lambda: chord([add.s(1, 1) | add.s(2), add.s(2, 2) | add.s(3)], total.s()),
        11,
    ),
    "group in header": (
        lambda: chord(group(add.s(1, 1), group(add.s(2, 2), add.s(3, 3))), same.s()),
        [2, 4, 6],
    ),
    "group at a chain's end in header": (
        lambda: chord([add.s(1, 1) | group(add.s(1), add.s(2)), add.s(2, 2)], same.s()),
        [[3, 4], 4],
    ),
    "group of one": (lambda: chain(add.s(1, 1), group(add.s(1)), add.s(1)), 4),
    "empty group in a chain": (lambda: chain(add.s(1, 1), group(), add.s(1)), 3),
    "empty header": (lambda: chord([], same.s()), []),
    "chunks": (lambda: add.chunks([(1, 1), (2, 2), (3, 3)], 2), [[2, 4], [6]]),
    "chunks then task": (lambda: add.chunks([(1, 1), (2, 2)], 1) | same.s(), [[2], [4]]),
    "map": (lambda: total.map([[1, 2], [3]]), [3, 3]),
    "starmap": (lambda: add.starmap([(1, 2), (3, 4)]), [3, 7]),
    "coroutines": (lambda: group(aadd.s(1, 1), aadd.s(2, 2)) | total.s(), 6),
    "retries in header": (lambda: chord([retried.s(1), retried.s(2)], total.s()), 3),
    "early acknowledgement": (lambda: chord([early.s(1), early.s(2)], total.s()), 3),
    "ignored results": (lambda: chord([silent.s(1), silent.s(2)], total.s()), 3),
    "replaced by a chain": (lambda: becomes_chain.s(1) | add.s(100), 112),
    "replaced by a group": (lambda: becomes_group.s(1) | total.s(), 6),
    "replaced by a chord": (lambda: chord([becomes_chord.s(1), add.s(1, 1)], total.s()), 8),
    "replaced again and again": (lambda: becomes_itself.s(4), 4),
    "one more in the chord": (lambda: chord([brings_another.s(1), add.s(1, 1)], total.s()), 104),
    "a generator": (lambda: group(add.s(i, 1) for i in range(3)) | total.s(), 6),
}


@pytest.mark.parametrize(
    "pool", [("prefork", "-c", "2"), ("threads", "-c", "4"), ("asyncio", "-c", "8"), ("solo",)]
)
def test_workflows_give_what_they_should(pool: tuple[str, ...], start: Start) -> None:
    start("-P", *pool)
    results = {name: make().apply_async() for name, (make, _) in FLOWS.items()}
    found = {name: result.get(timeout=WAIT) for name, result in results.items()}
    assert found == {name: want for name, (_, want) in FLOWS.items()}


def test_ten_levels_of_chords_in_headers(start: Start) -> None:
    start("-c", "2")
    whole: Any = add.s(0, 1)
    for _ in range(10):
        whole = chord([whole, add.s(0, 1)], total.s())
    assert whole.delay().get(timeout=WAIT) == 11


def test_a_chain_of_a_thousand(start: Start) -> None:
    start("-c", "2")
    result = chain([add.s(0, 0), *(add.s(1) for _ in range(999))]).delay()
    assert result.get(timeout=2 * WAIT) == 999


def test_where_tasks_come_from(start: Start) -> None:
    start("-c", "2")
    whole = origin.si() | group(origin.si(), origin.si()) | origin.si()
    result = whole.delay()
    last = result.get(timeout=WAIT)
    members = result.parent
    first = members.parent
    assert first.get(timeout=WAIT) == [first.id, first.id, None, None]
    for member in members:
        assert member.get(timeout=WAIT) == [member.id, first.id, first.id, members.id]
    assert last[:2] == [result.id, first.id]
    assert last[2] in members.as_list()
    assert last[3] == members.id
    (child,) = first.children
    assert child.as_list() == members.as_list()


# --- failures --------------------------------------------------------------------------------


def test_a_chain_ends_where_it_fails_for_all_that_wait(start: Start, tmp_path: Path) -> None:
    start("-c", "2")
    told, last = tmp_path / "told", tmp_path / "last"
    whole = add.s(1, 1) | fail.s() | add.s(1) | group(add.s(1), add.s(2)) | total.s()
    result = whole.apply_async(
        link_error=[explain.s(str(told)), note.s(path=str(last))], link=note.s(path=str(last))
    )
    with pytest.raises(ValueError, match="bad"):
        result.get(timeout=WAIT)
    step = result
    states = []
    while step is not None:
        error = step.get(timeout=WAIT, propagate=False)
        states.append("group" if isinstance(step, GroupResult) else step.state)
        assert "bad" in str(error) or step.parent is None
        step = step.parent
    assert states == ["FAILURE", "group", "FAILURE", "FAILURE", "SUCCESS"]
    failed = result.parent.parent.parent.id
    assert wait_until(lambda: lines(told), WAIT) == [f"{failed} ValueError: bad"]
    assert wait_until(lambda: lines(last), WAIT) == [failed]


WAYS_TO_END = {
    "raises": (lambda: fail.s(), "ValueError"),
    "fails later": (lambda: add.s(1, 1) | fail.s() | add.s(1), "ValueError"),
    "rejects": (lambda: rejects.s(), "Reject"),
    "ignores": (lambda: ignores.s(), "Ignore"),
    "is killed": (lambda: dies.s(), "WorkerLostError"),
    "is killed each time": (lambda: dies_each_time.s(), "WorkerLostError"),
    "hangs": (lambda: hangs.s(), "TimeLimitExceeded"),
    "hangs at the beginning of a chain": (lambda: hangs.s() | add.s(1), "TimeLimitExceeded"),
    "has a result that cannot be written": (lambda: unwritable.s(), "EncodeError"),
    "is expired": (lambda: add.s(1, 1).set(expires=-1), "TaskRevokedError"),
    "is expired later": (lambda: add.s(1, 1) | add.s(1).set(expires=-1), "TaskRevokedError"),
    "is unknown": (lambda: app.signature("no.such.task"), "NotRegistered"),
    "has a chord in it that fails": (lambda: chord([fail.s()], total.s()), "ChordError"),
}


def test_a_chord_ends_however_a_member_ends(start: Start, tmp_path: Path) -> None:
    start("-P", "prefork", "-c", "3")
    results = {}
    for name, (make, _) in WAYS_TO_END.items():
        told = tmp_path / name
        body = total.s().on_error(explain.s(f"{told}.new")).on_error(note.s(path=f"{told}.old"))
        results[name] = chord([add.s(1, 1), make()], body).delay()
    for name, result in results.items():
        with pytest.raises(ChordError, match=f"Dependency .* raised {WAYS_TO_END[name][1]}"):
            result.get(timeout=WAIT, follow_parents=False)
        new = wait_until(lambda n=name: lines(tmp_path / f"{n}.new"), WAIT, f"{name}: errback")
        assert new[0].startswith(f"{result.id} ChordError: Dependency")
        old = wait_until(lambda n=name: lines(tmp_path / f"{n}.old"), WAIT, f"{name}: errback")
        assert old == [result.id]


@pytest.mark.parametrize("pool", [("threads", "-c", "4"), ("asyncio", "-c", "8"), ("solo",)])
def test_a_chord_ends_in_every_pool(pool: tuple[str, ...], start: Start, tmp_path: Path) -> None:
    start("-P", *pool)
    names = ["raises", "rejects", "ignores", "is expired", "is unknown", "fails later"]
    if pool[0] != "solo":
        names.append("hangs")
    results = {}
    for name in names:
        body = total.s().on_error(note.s(path=f"{tmp_path / name}"))
        results[name] = chord([add.s(1, 1), WAYS_TO_END[name][0]()], body).delay()
    for name, result in results.items():
        with pytest.raises(ChordError, match=WAYS_TO_END[name][1]):
            result.get(timeout=WAIT, follow_parents=False)
        told = wait_until(lambda n=name: lines(tmp_path / n), WAIT, f"{name}: errback")
        assert told == [result.id]


def test_what_follows_a_body_that_fails_ends_too(start: Start) -> None:
    start("-c", "2")
    inner = chord([fail.s(), add.s(1, 1)], total.s())
    whole = chord([inner, add.s(1, 1)], total.s() | add.s(1))
    after = add.s(1, 1) | group(fail.s(), add.s(1)) | total.s() | add.s(1) | add.s(2)
    for result in (whole.delay(), after.delay()):
        with pytest.raises(ChordError, match="Dependency"):
            result.get(timeout=WAIT, follow_parents=False)


def test_a_member_that_is_revoked_ends_its_chord(start: Start) -> None:
    result = chord([add.s(1, 1), add.s(2, 2)], total.s()).delay()
    result.parent[1].revoke()
    start("-c", "2")
    with pytest.raises(ChordError, match="TaskRevokedError"):
        result.get(timeout=WAIT, follow_parents=False)
    with pytest.raises(TaskRevokedError):
        result.parent[1].get(timeout=WAIT)
    assert result.parent[0].get(timeout=WAIT) == 2


def test_links_to_workflows(start: Start, tmp_path: Path) -> None:
    start("-c", "2")
    body = tmp_path / "body"
    add.apply_async((1, 1), link=group(add.s(1), add.s(2)) | count.s(str(body)))
    add.apply_async(
        (1, 1), link=add.s(1) | add.s(1), link_error=note.s(path=str(tmp_path / "never"))
    )
    fail.apply_async(link_error=same.s() | note.s(path=str(tmp_path / "chain")))
    assert wait_until(lambda: lines(body), WAIT)
    assert wait_until(lambda: lines(tmp_path / "chain"), WAIT)
    assert not (tmp_path / "never").exists()


# --- results of groups -------------------------------------------------------------------------


def test_results_of_groups(start: Start) -> None:
    start("-c", "2")
    result = group([add.s(1, 1), add.s(2, 2), fail.s()]).delay()
    assert sorted(map(str, result.get(timeout=WAIT, propagate=False))) == ["2", "4", "bad"]
    with pytest.raises(ValueError, match="bad"):
        result.join(timeout=WAIT)
    assert (result.ready(), result.successful(), result.failed()) == (True, False, True)
    assert result.completed_count() == 2
    result.save()
    again = GroupResult.restore(result.id, app=app)
    assert again is not None
    assert again == result
    assert again.as_tuple() == result.as_tuple()
    assert again.completed_count() == 2
    again.delete()
    assert GroupResult.restore(result.id, app=app) is None
    fine = group(add.s(i, 1) for i in range(50)).delay()
    assert sorted(fine.iterate(timeout=WAIT)) == list(range(1, 51))
    assert {i for i, _ in fine.iter_native(timeout=WAIT)} == set(fine.as_list())
    assert starts.delay(1).get(timeout=WAIT)


def test_from_coroutines(start: Start) -> None:
    start("-c", "2")

    async def work() -> list[Any]:
        one = await (add.s(1, 2) | add.s(3)).adelay()
        several = await group(add.s(i, i) for i in range(3)).adelay()
        joined = await chord([add.s(1, 1), add.s(2, 2)], total.s()).adelay()
        return [await one.aget(timeout=WAIT), await several, await joined.aget(timeout=WAIT)]

    assert asyncio.run(work()) == [6, [0, 2, 4], 6]


# --- kills ---------------------------------------------------------------------------------------


def test_chords_survive_killed_nodes(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "bodies"
    results = [
        chord([slow.s(n), add.s(n, 1) | add.s(1), slow.s(2)], count.s(str(path))).delay()
        for n in range(60)
    ]
    for number in range(3):
        node = start("-c", "2", "-n", f"n{number}@here")
        wanted = 10 * (number + 1)
        wait_until(lambda w=wanted: len(lines(path)) >= w, WAIT, "some bodies")
        node.kill_node()
    start("-c", "2", "-n", "last@here")
    assert [r.get(timeout=2 * WAIT) for r in results] == [2 * n + 4 for n in range(60)]
    # A body may run again where the node died during it, but it is the same one.
    assert set(lines(path)) == {result.id for result in results}


@pytest.mark.requires_server("redis")
@pytest.mark.parametrize("member", [early, add], ids=["acknowledged early", "acknowledged late"])
def test_a_node_dies_before_it_calls_the_body(
    member: Any,
    worker: Callable[..., WorkerProcess],
    sqlite_url: str,
    server_url: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """All members have ended, and the node that was to say so is gone; broker and results are
    of different technologies, so that the two are not one step."""
    conf, died = app.conf, tmp_path / "died"
    prefix = f"test-{uuid.uuid4().hex[:12]}:"
    app.close()
    conf.broker_url, conf.result_backend = sqlite_url, server_url("redis")
    conf.result_backend_transport_options = {"global_keyprefix": prefix}
    env = {
        "CHERVIL_BROKER_URL": conf.broker_url,
        "CHERVIL_RESULT_BACKEND": conf.result_backend,
        "CHERVIL_RESULT_BACKEND_TRANSPORT_OPTIONS": f'{{"global_keyprefix": "{prefix}"}}',
        "CHERVIL_WORKER_LEASE": "2",
        "DIED": str(died),
    }
    try:
        arguments = [(n,) for n in range(3)] if member is early else [(n, 0) for n in range(3)]
        header = [member.s(*each) for each in arguments]
        result = chord(header, count.s(str(tmp_path / "bodies"))).delay()
        first = worker("tests.apps.flows_cut", "-c", "1", env=env)
        wait_until(died.exists, WAIT)
        first.wait(WAIT)
        assert result.state == "PENDING"
        second = worker("tests.apps.flows_cut", "-c", "1", "-n", "second@here", env=env)
        assert result.get(timeout=WAIT) == 3
        said = "A dead node had not called the bodies of 1 complete chords" in second.log()
        assert said or member is add
    finally:
        app.close()
        conf.result_backend_transport_options = {}
