"""What the global options say, and the app that they lead to.

Every command takes the global options too, so that both
``chervil -A hello worker`` and ``chervil worker -A hello`` work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from chervil.app import Chervil


class Session:
    """The global options of one call of ``chervil``; found as ``ctx.obj``."""

    def __init__(self) -> None:
        self.app_name: str | None = None
        self.broker: str | None = None
        self.result_backend: str | None = None
        self.config: str | None = None
        self.workdir: str | None = None
        self.color: bool = not os.environ.get("NO_COLOR")
        self.quiet: bool = False
        self._app: Chervil | None = None
        self._given = False

    @property
    def has_app(self) -> bool:
        """Whether an app was named (or given by a test)."""
        return self._given or bool(self.app_name)

    @property
    def has_broker(self) -> bool:
        """Whether anything but the app says where the broker is."""
        return bool(self.broker or self.config or os.environ.get("CHERVIL_BROKER_URL"))

    def use(self, app: Chervil) -> None:
        """Take this app instead of looking for one."""
        self._app = app
        self._given = True

    def app(self, required: bool = False) -> Chervil:
        """The app that ``-A`` names, with the other global options applied.

        :param required: without ``-A`` fail; otherwise an app without tasks
            stands in, whose broker comes from ``-b``, ``--config`` or the
            environment.
        :raises click.UsageError: no app was named.
        :raises AppNotFound: the name does not lead to an app.
        """
        if self._app is None:
            self._app = self._load(required)
        return self._app

    def _load(self, required: bool) -> Chervil:
        # Imported here because it takes time and --help does without.
        from chervil.cli.find_app import candidates, enter_workdir, find_app

        enter_workdir(self.workdir)
        if self.app_name:
            app = find_app(self.app_name)
        elif required:
            found = candidates()
            hint = f" Found here: {', '.join(f'-A {name}' for name in found)}." if found else ""
            raise click.UsageError(
                "No app given. Name the module that defines it, for example "
                f"'chervil -A hello worker' for hello.py, or set CHERVIL_APP.{hint}"
            )
        else:
            from chervil.app import Chervil

            app = Chervil("chervil")
        self.configure(app)
        return app

    def configure(self, app: Chervil) -> None:
        """Apply ``--config``, ``-b`` and ``--result-backend`` to an app."""
        if self.config:
            app.config_from_object(self.config)
        if self.broker:
            app.conf.broker_url = self.broker
        if self.result_backend:
            app.conf.result_backend = self.result_backend

    def note(self, text: str) -> None:
        """Tell something that is not the result of the command, unless ``-q``."""
        if not self.quiet:
            click.echo(text, err=True)


def _take(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep a global option in the session; the last one given wins."""
    session = ctx.ensure_object(Session)
    if value is None or value is False:
        return
    if param.name == "no_color":
        session.color = False
        root = ctx.find_root()
        root.color = ctx.color = False
    elif param.name == "loader":
        raise click.UsageError(
            "--loader: Chervil has no loaders. Name settings with --config, and modules "
            "to import with include=[...] or -I."
        )
    elif param.name is not None and param.name != "skip_checks":
        setattr(session, param.name, value)


def _color(ctx: click.Context) -> None:
    if ctx.color is None and os.environ.get("NO_COLOR"):
        ctx.color = False


def _options(root: bool) -> list[click.Option]:
    def option(*decls: str, **attrs: Any) -> click.Option:
        hidden = attrs.pop("hidden", False) or (not root and "--app" not in decls)
        return click.Option(decls, expose_value=False, callback=_take, hidden=hidden, **attrs)

    return [
        option(
            "-A",
            "--app",
            "app_name",
            metavar="APP",
            envvar="CHERVIL_APP" if root else None,
            show_envvar=root,
            help="Where the app is: a module such as 'hello', or 'module:attribute'.",
        ),
        option("-b", "--broker", metavar="URL", help="Use this broker instead of the app's."),
        option("--result-backend", metavar="URL", help="Use this result store instead."),
        option("--config", metavar="MODULE", help="Module or object to take settings from."),
        option("--workdir", metavar="DIR", help="Change to this directory first."),
        option("-C", "--no-color", is_flag=True, help="No colours (as NO_COLOR=1 does)."),
        option("-q", "--quiet", is_flag=True, help="Only results and errors."),
        option("--loader", metavar="NAME", hidden=True),
        option("--skip-checks", is_flag=True, hidden=True),
    ]


GLOBAL_OPTIONS = _options(root=True)
COMMAND_OPTIONS = _options(root=False)


def add_options(command: click.Command, options: Iterable[click.Option], root: bool) -> None:
    """Give a command the global options; its own come first, except at the root."""
    if root:
        command.params[:0] = options
    else:
        command.params.extend(options)


class ChervilCommand(click.Command):
    """A command that also takes the global options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        add_options(self, COMMAND_OPTIONS, root=False)

    def invoke(self, ctx: click.Context) -> Any:
        ctx.ensure_object(Session)
        _color(ctx)
        return super().invoke(ctx)


class ChervilGroup(click.Group):
    """A group of commands that take the global options, as itself does."""

    command_class = ChervilCommand

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        add_options(self, COMMAND_OPTIONS, root=False)


pass_session = click.make_pass_decorator(Session, ensure=True)


def interactive() -> bool:
    """Whether a person can be asked: stdin and stderr are terminals."""
    return sys.stdin.isatty() and sys.stderr.isatty()
