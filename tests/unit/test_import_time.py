"""``import chervil`` stays cheap: what it must not import.

A time would depend on the machine; which modules are loaded does not. The time
itself is measured by ``make bench`` (case ``startup``).
"""

from __future__ import annotations

import json
import subprocess
import sys

#: What nobody needs who defines and sends tasks, and what each costs to import.
DENIED = [
    "asyncio",
    "attr",
    "brotli",
    "click",
    "concurrent.futures",
    "cryptography",
    "dataclasses",
    "email",
    "http",
    "importlib.metadata",
    "inspect",
    "logging",
    "lzma",
    "multiprocessing",
    "pickle",
    "pydantic",
    "rich",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "typing_extensions",
    "unittest",
    "urllib.request",
    "xml",
    "yaml",
]
#: Parts of ours that are imported when they are used.
OWN_DENIED = ["chervil.cli", "chervil.pools", "chervil.worker", "chervil.testing"]


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running ``code``."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    # -S: site-packages' own .pth files may import anything; their directories are passed on.
    path = json.dumps([p for p in sys.path if p])
    script = f"import sys\nsys.path[:] = {path}\n{script}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


#: Bare Python's modules, and those of msgspec, which takes typing_extensions if it is there.
UNAVOIDABLE = modules_after("import msgspec, msgspec.json")


def test_import_chervil_loads_nothing_that_is_not_needed() -> None:
    extra = modules_after("import chervil") - UNAVOIDABLE
    found = sorted(extra.intersection(DENIED))
    assert not found, f"`import chervil` imports {found}"


def test_defining_an_app_and_a_task_loads_nothing_that_is_not_needed() -> None:
    code = "from chervil import Chervil\nChervil('hello')"
    extra = modules_after(code) - UNAVOIDABLE
    assert "chervil.app" in extra
    # A driver is loaded when the first task is sent; what it needs is its own affair.
    found = sorted(extra.intersection(DENIED))
    assert not found, f"defining an app imports {found}"


def test_import_chervil_loads_no_worker() -> None:
    found = sorted(m for m in modules_after("import chervil") if m.startswith(tuple(OWN_DENIED)))
    assert not found, f"`import chervil` imports {found}"
