"""Pictures of workflows, and lists of what they would send."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from chervil import Chervil, chain, chord, group
from chervil.exceptions import EncodeError, ImproperlyConfigured


@pytest.fixture
def app() -> Iterator[Chervil]:
    made = Chervil("showing", broker_url="memory://showing", result_backend="memory://showing")

    @made.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @made.task(name="total", queue="sums")
    def total(values: list[int]) -> int:
        return sum(values)

    yield made
    made.close()


def arrows(text: str) -> list[tuple[str, str]]:
    """What leads to what, by label; of errbacks with a mark."""
    labels = dict(re.findall(r'(?m)^ +(n\d+)(?:\["|\(\("| \[label=")((?:[^"\\]|\\.)*)"', text))
    found = re.findall(r"(n\d+) (-->|->|-\. fails \.->) (n\d+)(.*)", text)
    return [
        (labels[one], ("fails: " if "fails" in how + more else "") + labels[other])
        for one, how, other, more in found
    ]


@pytest.mark.parametrize("language", ["mermaid", "dot"])
def test_pictures(app: Chervil, language: str) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    flow = (
        add.s(1, 1)
        | group(add.s(2), add.s(3) | add.s(y=4))
        | total.s()
        | add.s(5).set(link=add.s(6)).on_error(total.s())
    )
    assert arrows(flow.draw(language)) == [
        ("add(1, 1)", "add(2)"),
        ("add(1, 1)", "add(3)"),
        ("add(3)", "add(y=4)"),
        ("add(2)", "all"),
        ("add(y=4)", "all"),
        ("all", "total()"),
        ("total()", "add(5)"),
        ("add(5)", "add(6)"),
        ("add(5)", "fails: total()"),
    ]


def test_callbacks_of_a_chord_and_chains_without_one(app: Chervil) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    joined = chord([add.s(1, 1)], total.s(), link_error=[add.s(9)])
    assert arrows(joined.draw()) == [
        ("add(1, 1)", "all"),
        ("all", "total()"),
        ("total()", "fails: add(9)"),
    ]
    assert arrows(chord([], total.s()).draw()) == []
    assert 'n0["total()"]' in chord([], total.s()).draw()
    assert arrows(chain(add.s(1, 1)).draw()) == []


def test_large_groups_and_long_arguments_are_cut(app: Chervil) -> None:
    add = app.tasks["add"]
    text = group(add.s(n, n) for n in range(1000)).draw(most=3)
    assert text.count("add(") == 2
    assert '"998 more"' in text
    assert group(add.s(n, n) for n in range(3)).draw(most=3).count("add(") == 3
    assert len(add.s("x" * 1000, 1).draw()) < 100


def test_maps_and_chunks(app: Chervil) -> None:
    add = app.tasks["add"]
    assert "add, 7 items" in add.starmap([(n, n) for n in range(7)]).draw()
    text = add.chunks([(n, n) for n in range(5)], 2).draw()
    assert (text.count("add, 2 items"), text.count("add, 1 items")) == (2, 1)


NASTY = 'a"b\\ <i> #35; `c` & \n | d]'


def test_any_argument_can_be_drawn(app: Chervil) -> None:
    sig = app.tasks["add"].s(NASTY, 1)
    (line,) = [line for line in sig.draw().splitlines() if "n0" in line]
    inner = line.removeprefix('    n0["').removesuffix('"]')
    assert not set('"<>`') & set(inner)
    assert len(sig.draw("dot").splitlines()) == 4
    dot = shutil.which("dot")
    if dot:
        subprocess.run([dot, "-Tcanon"], input=sig.draw("dot").encode(), check=True, timeout=60)


def test_languages_that_are_not_known(app: Chervil) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"'svg'.*mermaid or dot"):
        app.tasks["add"].s(1, 2).draw("svg")


def test_a_dry_run_sends_nothing_and_says_what_would_be_sent(app: Chervil) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    flow: Any = group(add.s(1, 1), add.s(2, 2) | add.s(3).on_error(add.s(8))) | total.s() | add.s(4)
    before = repr(flow)
    first, second = flow.dry_run(priority=3)
    assert repr(flow) == before
    assert (first.task, first.queue, first.args, first.priority) == ("add", "celery", (1, 1), 3)
    assert first.later == ("total", "add")
    assert second.later == ("add", "total", "add", "add")
    assert first.size > 100
    assert len({first.id, second.id}) == 2
    assert not any(depth.ready for depth in app.broker.depths().values())


def test_a_dry_run_of_one_task(app: Chervil) -> None:
    (planned,) = app.tasks["total"].s().dry_run(([1, 2],), task_id="mine", countdown=60)
    assert (planned.id, planned.queue, planned.args) == ("mine", "sums", ([1, 2],))
    assert planned.due > 0
    assert planned.later == ()


def test_a_dry_run_fails_as_the_sending_would(app: Chervil) -> None:
    with pytest.raises(EncodeError):
        app.tasks["add"].s(object(), 1).dry_run()
    with pytest.raises(ImproperlyConfigured, match="nope"):
        app.tasks["add"].s(1, 1).dry_run(serializer="nope")
