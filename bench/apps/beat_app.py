"""10,000 periodic tasks: most of them idle, 1,000 due at once, one each second after that."""

from __future__ import annotations

import os

from chervil import Chervil
from chervil.schedules import crontab

app = Chervil("beat")
BURST = float(os.environ.get("BENCH_BURST_AT", "0"))
ENTRIES, AT_ONCE = 10_000, 1_000


@app.task
def work(number: int) -> None: ...


def _entry(number: int) -> dict[str, object]:
    if not BURST or number > AT_ONCE:
        return {
            "task": work.name,
            "schedule": crontab("0", "3", month_of_year=1),
            "args": (number,),
        }
    if number == AT_ONCE:
        return {"task": work.name, "schedule": 1.0, "start": BURST + 5, "args": (number,)}
    return {"task": work.name, "schedule": 86400.0, "start": BURST, "args": (number,)}


app.conf.beat_schedule = {f"entry-{number}": _entry(number) for number in range(ENTRIES)}
