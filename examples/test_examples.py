"""The examples do what the documentation says, with real workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent


def run(sqlite_url: str, *args: str) -> str:
    """What a client process prints."""
    environment = {
        **os.environ,
        "CHERVIL_BROKER_URL": sqlite_url,
        "CHERVIL_RESULT_BACKEND": sqlite_url,
        "PYTHONPATH": str(EXAMPLES),
    }
    done = subprocess.run(
        [sys.executable, *args],
        cwd=EXAMPLES,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hello(worker: Callable[..., Any], sqlite_url: str) -> None:
    worker("hello", "-c", "2", env={"PYTHONPATH": str(EXAMPLES)})
    assert run(sqlite_url, "hello.py") == "5\n"


def test_shop(worker: Callable[..., Any], sqlite_url: str) -> None:
    worker("shop", "-c", "2", env={"PYTHONPATH": str(EXAMPLES)})
    lines = run(sqlite_url, "-m", "shop.client").splitlines()
    assert lines[:3] == [
        "total 7.60",
        "receipt sent to ada@example.org",
        "order 17: charged 7.60 after 2 retries",
    ]
    counted = eval(lines[3])
    assert counted["of"] == 100
    assert 0 < counted["counted"] < 100  # the soft limit ended it


def test_shop_refuses_a_wrong_order(worker: Callable[..., Any], sqlite_url: str) -> None:
    worker("shop", "-c", "1", env={"PYTHONPATH": str(EXAMPLES)})
    code = (
        "from shop.tasks import invoice\n"
        "try: invoice.delay({'number': 'x', 'customer': 'a', 'lines': []}).get(timeout=10)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, 'valid integer' in str(error.__cause__))\n"
    )
    assert run(sqlite_url, "-c", code) == "ValidationError True\n"
