from __future__ import annotations

import pytest

from chervil.cli.banner import MAX_TASKS, NodeInfo, banner, pool_line, task_lines


def info(**changes: object) -> NodeInfo:
    values: dict[str, object] = {
        "name": "w1@box",
        "version": "1.2.3",
        "app": "hello",
        "broker": "redis://me:geheim@host/0",
        "results": "sqlite:///r.db",
        "pool": "prefork",
        "concurrency": 4,
        "processes": 1,
        "queues": ["celery", "mail"],
        "tasks": ["hello.add", "celery.backend_cleanup"],
    }
    return NodeInfo(**{**values, **changes})  # type: ignore[arg-type]


def test_banner_says_what_it_is_connected_to() -> None:
    text = banner(info())
    for part in ("w1@box", "1.2.3", "hello.add", "sqlite:///r.db", "celery, mail", "prefork, 4"):
        assert part in text
    assert "geheim" not in text
    assert "redis://me:********@host/0" in text
    assert "celery.backend_cleanup" not in text


@pytest.mark.parametrize("url", ["amqp://u:geheim@h//", "redis://:geheim@x;redis://:geheim@y"])
def test_passwords_are_masked(url: str) -> None:
    assert "geheim" not in banner(info(broker=url, results=url))


def test_no_results_and_no_tasks_are_said() -> None:
    text = banner(info(results="disabled://", tasks=[]))
    assert "results are not kept" in text
    assert "No tasks" in text


def test_long_lists_of_tasks_are_cut() -> None:
    lines = task_lines([f"t{number:03}" for number in range(MAX_TASKS + 5)])
    assert len(lines) == MAX_TASKS + 1
    assert "and 5 more" in lines[-1]
    assert "more" not in task_lines([f"t{number:03}" for number in range(MAX_TASKS)])[-1]


@pytest.mark.parametrize(
    ("pool", "slots", "processes", "line"),
    [
        ("solo", 1, 1, "solo: one task at a time, in this process"),
        ("prefork", 4, 4, "prefork, 4 processes"),
        ("threads", 8, 1, "threads, 8 threads"),
        ("asyncio", 500, 2, "asyncio, 500 coroutines in 2 processes"),
        ("mine:Pool", 3, 1, "mine:Pool, 3 slots"),
    ],
)
def test_pool_line(pool: str, slots: int, processes: int, line: str) -> None:
    assert pool_line(info(pool=pool, concurrency=slots, processes=processes)) == line
