"""``chervil shell``: a Python shell with the app at hand."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from chervil.cli.access import load_tasks
from chervil.cli.session import ChervilCommand, Session, pass_session

if TYPE_CHECKING:
    from chervil.app import Chervil

_HELP = """Open a Python shell with the app and its tasks.

\b
  chervil -A hello shell
  >>> add.delay(2, 3).get()
  5

In it are: app, every task under its function's name, AsyncResult, group, chain, chord and
signature as far as this version has them. IPython or bpython is used if it is installed.
"""
KINDS = ("auto", "ipython", "bpython", "python")


@click.command("shell", cls=ChervilCommand, help=_HELP)
@click.option("-I", "--ipython", "kind", flag_value="ipython", help="Use IPython.")
@click.option("-B", "--bpython", "kind", flag_value="bpython", help="Use bpython.")
@click.option("-P", "--python", "kind", flag_value="python", help="Use plain Python.")
@click.option("-T", "--without-tasks", is_flag=True, help="Leave the tasks out.")
@pass_session
def command(session: Session, /, kind: str | None, without_tasks: bool) -> None:
    app = session.app(required=True)
    names = namespace(app, tasks=not without_tasks)
    start = _shell(kind)
    text = f"app: {app.main or 'app'}; tasks: {', '.join(sorted(_tasks(app))) or 'none'}"
    start(names, text)


def namespace(app: Chervil, tasks: bool = True) -> dict[str, Any]:
    """The names in the shell."""
    import chervil

    names: dict[str, Any] = {
        name: getattr(chervil, name)
        for name in ("AsyncResult", "signature", "group", "chain", "chord", "chunks")
        if hasattr(chervil, name)
    }
    if tasks:
        names.update(_tasks(app))
    names.update(app=app, chervil=chervil)
    return names


def _tasks(app: Chervil) -> dict[str, Any]:
    load_tasks(app)
    return {
        name.rpartition(".")[2]: task
        for name, task in app.tasks.items()
        if not name.startswith("celery.")
    }


def _shell(kind: str | None) -> Any:
    starts = {"ipython": _ipython, "bpython": _bpython, "python": _python}
    for name in [kind] if kind else ["ipython", "bpython", "python"]:
        module = {"ipython": "IPython", "bpython": "bpython", "python": "code"}[str(name)]
        try:
            __import__(module)
        except ModuleNotFoundError:
            if kind:
                raise click.UsageError(f"{module} is not installed: pip install {name}") from None
            continue
        return starts[str(name)]
    return _python


def _ipython(names: dict[str, Any], text: str) -> None:
    from IPython import start_ipython  # type: ignore[import-not-found,unused-ignore]

    click.echo(text)
    start_ipython(argv=[], user_ns=names)


def _bpython(names: dict[str, Any], text: str) -> None:
    import bpython  # type: ignore[import-not-found,unused-ignore]

    bpython.embed(locals_=names, banner=text)


def _python(names: dict[str, Any], text: str) -> None:
    import code

    if sys.stdin.isatty():
        _complete(names)
        _startup(names)
    code.interact(banner=f"Python {sys.version.split()[0]}\n{text}", local=names, exitmsg="")


def _complete(names: dict[str, Any]) -> None:
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")


def _startup(names: dict[str, Any]) -> None:
    path = os.environ.get("PYTHONSTARTUP")
    if path and os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            exec(compile(file.read(), path, "exec"), names)
