"""What the exit codes of ``chervil`` mean."""

from __future__ import annotations

from typing import Final

OK: Final = 0
#: Something went wrong; the message on stderr says what.
ERROR: Final = 1
#: The command line itself is wrong.
USAGE: Final = 2
#: The task that was asked about, or waited for, failed.
TASK_FAILED: Final = 64
#: The task has not ended yet, or nobody has heard of its id.
NOT_READY: Final = 65
#: Nothing matched (a task id, a dead letter).
NOT_FOUND: Final = 66
#: Ctrl-C.
INTERRUPTED: Final = 130

HELP: Final = (
    "Exit codes: 0 done; 1 error; 2 wrong command line; 64 the task failed; "
    "65 the task has not ended; 66 nothing found; 130 interrupted."
)
WORKER_HELP: Final = (
    "Exit codes: 0 stopped after its running tasks; 1 stopped at once, or an error; "
    "2 wrong command line."
)
