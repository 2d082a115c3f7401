"""Names of the states a task can be in, under Celery's names.

``PENDING`` is never stored: it is what a client says about an id that no
result store has heard of.
"""

from __future__ import annotations

from typing import Final

PENDING: Final = "PENDING"
RECEIVED: Final = "RECEIVED"
STARTED: Final = "STARTED"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
REVOKED: Final = "REVOKED"
REJECTED: Final = "REJECTED"
RETRY: Final = "RETRY"
IGNORED: Final = "IGNORED"

#: States from which a task does not move on; waiting for a result ends in them.
READY_STATES: Final = frozenset({SUCCESS, FAILURE, REVOKED})
#: States in which the task has not ended.
UNREADY_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
#: States whose result is an exception.
EXCEPTION_STATES: Final = frozenset({RETRY, FAILURE, REVOKED})
#: States whose exception ``get()`` raises again.
PROPAGATE_STATES: Final = frozenset({FAILURE, REVOKED})
ALL_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})
