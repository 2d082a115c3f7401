"""From the options of ``chervil worker`` to a running node."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from chervil import __version__
from chervil.cli.access import broker_of, load_tasks
from chervil.cli.banner import NodeInfo, banner
from chervil.cli.daemon import PidFile, become, detach
from chervil.cli.find_app import AppBroken, import_user_module
from chervil.cli.names import RELOAD_REPORT, node_name, node_path
from chervil.cli.session import Session

if TYPE_CHECKING:
    from chervil.app import Chervil
    from chervil.cli.embedded import EmbeddedBeat
    from chervil.worker.node import Node

#: Options that go to the node as they are.
_NODE_OPTIONS = (
    "pool",
    "concurrency",
    "processes",
    "queues",
    "exclude_queues",
    "prefetch_multiplier",
    "time_limit",
    "soft_time_limit",
    "max_tasks_per_child",
    "max_memory_per_child",
    "task_events",
    "lease",
    "purge",
)


def launch(session: Session, options: Mapping[str, Any]) -> int:
    """Load the app and run a node until it is told to stop; the exit code."""
    app = load_app(session, options)
    name = _node_name(options["hostname"])
    logfile = _path("--logfile", options["logfile"], name)
    report: Callable[[str], None] | None = None
    if options["detach"]:
        report = detach(logfile)
    try:
        become(options["uid"], options["gid"], options["umask"])
        pidfile = PidFile(_path("--pidfile", options["pidfile"], name) or "")
        if options["pidfile"]:
            pidfile.acquire()
        try:
            return _run(session, app, name, logfile, options, report)
        finally:
            pidfile.release()
    except click.ClickException as exc:
        if report:
            report(exc.format_message())
        raise
    except Exception as exc:
        if report:
            report(f"{type(exc).__name__}: {exc}")
        raise


def load_app(session: Session, options: Mapping[str, Any]) -> Chervil:
    """The app with the modules of ``-I`` and the settings of the command line."""
    try:
        app = session.app(required=True)
        for module in options["include"] or ():
            import_user_module(module, "-I")
    except AppBroken as exc:
        _report_files(exc.error)
        raise
    apply_overrides(app, options["overrides"])
    return app


def apply_overrides(app: Chervil, overrides: Sequence[str]) -> None:
    """Set the settings of ``SETTING=VALUE`` arguments; the values are read as
    they are from environment variables.

    :raises click.UsageError: no such setting, or not a value for it.
    """
    from chervil.settings.table import SETTINGS

    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{text!r} is neither an option nor SETTING=VALUE.")
        setting = SETTINGS.get(name.replace(".", "_"))
        if setting is None:
            close = get_close_matches(name, SETTINGS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"There is no setting {name!r}.{hint}")
        try:
            parsed = setting.kind.parse(value)
        except ValueError as exc:
            raise click.UsageError(f"{setting.name}={value}: must be {exc}") from None
        setattr(app.conf, setting.name, parsed)


def _run(
    session: Session,
    app: Chervil,
    name: str,
    logfile: str | None,
    options: Mapping[str, Any],
    report: Callable[[str], None] | None,
) -> int:
    """Load the tasks, say what there is, and run the node."""
    # The worker's own modules take time to import; after the app, so that a
    # mistake in it shows at once.
    from chervil.log import setup_logging
    from chervil.worker.node import Node

    embedded: EmbeddedBeat | None = None

    def ready() -> None:
        _report_files()
        if embedded:
            embedded.watch()
        if report:
            report("")

    setup_logging(
        app.conf,
        level=options["loglevel"] or "INFO",
        logfile=logfile,
        fmt=options["logfmt"] or "text",
        color=None if session.color else False,
    )
    try:
        load_tasks(app)
    except AppBroken as exc:
        _report_files(exc.error)
        raise
    chosen = {key: options[key] for key in _NODE_OPTIONS}
    node = Node(app, hostname=name, on_ready=ready, **chosen)
    # A mistake in a URL shows before the banner; nothing is connected yet.
    broker_of(app)
    app.backend  # noqa: B018
    if not session.quiet:
        click.echo(banner(_info(session, app, node)))
    if not options["beat"]:
        return node.run()
    from chervil.cli.embedded import EmbeddedBeat

    embedded = EmbeddedBeat(app, options["scheduler"])
    embedded.start()
    try:
        return node.run()
    finally:
        embedded.stop()


def _report_files(error: BaseException | None = None) -> None:
    """Under ``--reload``, tell the parent process which files are loaded."""
    if os.environ.get(RELOAD_REPORT):
        from chervil.cli import reload

        reload.report_files(error)


def _node_name(hostname: str | None) -> str:
    try:
        return node_name(hostname)
    except ValueError as exc:
        raise click.UsageError(f"--hostname: {exc}") from None


def _path(option: str, pattern: str | None, node: str) -> str | None:
    if pattern is None:
        return None
    try:
        return os.path.abspath(node_path(pattern, node))
    except ValueError as exc:
        raise click.UsageError(f"{option}: {exc}") from None


def _info(session: Session, app: Chervil, node: Node) -> NodeInfo:
    return NodeInfo(
        name=node.hostname,
        version=__version__,
        app=session.app_name or app.main or "",
        broker=app.conf.broker_url,
        results=app.conf.effective_result_backend,
        pool=node.pool,
        concurrency=node.concurrency,
        processes=node.processes,
        queues=[queue.name for queue in node.queues],
        tasks=list(app.tasks),
    )
