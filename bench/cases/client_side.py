"""What does not depend on a broker."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.core import CHERVIL, Goal, Session, case
from bench.procs import environment

IMPORTS = {"Chervil": "chervil", "Huey": "huey", "Celery": "celery, celery.app.task"}


def _seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment({}), check=True)
    return time.perf_counter() - begin


@case("import")
def imports(session: Session) -> None:
    """What importing the package costs on top of bare Python (median of 15)."""
    measure = session.measure("import", "import, on top of bare Python", "ms", Goal("at most", 60))
    rounds = 5 if session.quick else 15
    for system, modules in IMPORTS.items():
        code = f"import {modules}"
        if system == CHERVIL:
            code = "from chervil import Chervil"

        def once(system: str = system, code: str = code) -> None:
            _seconds(code)
            times = [(_seconds("pass"), _seconds(code)) for _ in range(rounds)]
            bare, full = (statistics.median(column) for column in zip(*times, strict=True))
            measure.add(system, (full - bare) * 1e3)

        session.attempt(measure, system, once)
