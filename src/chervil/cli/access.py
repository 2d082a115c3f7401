"""What the commands need of an app, in one place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from chervil.cli import exitcodes

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.cli.session import Session
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
    if not wanted or not broker_of(app).features.lists_queues:
        return
    known = {*queue_names(app), *broker_of(app).depths()}
    for name in wanted:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(
                f"There is no queue {name!r}.{hint} (Known: {', '.join(sorted(known))}.)"
            )


class NoDatabase(click.ClickException):
    """There is no such database file, so there is nothing to look at."""

    exit_code = exitcodes.NOT_FOUND


def expect_database(session: Session, url: str, options: Mapping[str, Any]) -> None:
    """Fail when nobody gave the URL, or it leads to a file that does not exist.

    The driver would create it, and a command that only looks would then say that
    nothing is in the queues of a mistyped URL.

    :param options: the transport options that belong to the URL.
    :raises NoDatabase: names the file.
    :raises click.UsageError: neither an app nor a URL was given.
    :raises ImproperlyConfigured: the URL or an option is wrong.
    """
    from chervil.drivers.registry import scheme_of

    results = session.result_backend or os.environ.get("CHERVIL_RESULT_BACKEND")
    if not (session.has_app or session.has_broker or results):
        raise click.UsageError(
            "No app or broker given. Name the module of the app, for example -A hello for "
            "hello.py, or a broker: -b sqlite:///hello.db."
        )
    if scheme_of(url) != "sqlite":
        return
    from chervil.drivers.sqlite.location import parse

    path = parse(url, options).path
    if os.path.exists(path):
        return
    raise NoDatabase(
        f"there is no database {path}. Either nothing was ever sent there, or the URL or the "
        "directory is wrong."
    )
