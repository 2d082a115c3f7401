"""What the commands need of an app, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.drivers.contracts import Broker


def broker_of(app: Chervil) -> Broker:
    """The app's broker.

    :raises ImproperlyConfigured: its URL is wrong.
    """
    return app.broker


def load_tasks(app: Chervil) -> None:
    """Import all modules that have tasks: discovered packages, ``imports``, ``include``.

    :raises AppBroken: importing one raised an error.
    """
    from chervil.cli.find_app import importing

    with importing("the app's modules"):
        app.import_default_modules()
        app.finalize()


def queue_names(app: Chervil) -> list[str]:
    """Names of the queues that a worker of this app takes from."""
    return [queue.name for queue in app.router.select(None, None)]


def expect_queues(app: Chervil, names: Iterable[str]) -> None:
    """Fail for a queue that neither the app nor its broker knows.

    :raises click.UsageError: names it, and the closest one.
    """
    wanted = list(names)
    if not wanted:
        return
    known = {*queue_names(app), *broker_of(app).depths()}
    for name in wanted:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(
                f"There is no queue {name!r}.{hint} (Known: {', '.join(sorted(known))}.)"
            )
