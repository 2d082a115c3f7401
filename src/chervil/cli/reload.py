"""``chervil worker --reload``: restart the worker when the code changes.

A parent runs the worker as its child. The child reports which of the project's
files it has loaded; the parent looks at their times twice a second, ends the
child with SIGTERM (running tasks finish) and starts another. A child that
cannot start, for example because of a syntax error, is started again after the
next change.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from types import FrameType

import click

from chervil.cli.names import RELOAD_REPORT

#: Seconds between two looks at the files.
INTERVAL = 0.5
#: Seconds after which a waiting restart says what it is waiting for.
PATIENCE = 3.0

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
Snapshot = dict[str, int]


def is_child() -> bool:
    """Whether this process was started by a reloading parent."""
    return bool(os.environ.get(RELOAD_REPORT))


def die_with_parent() -> None:
    """In the child: get SIGTERM when the parent dies without having ended us (Linux)."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # <linux/prctl.h>
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGTERM))


def report_files(error: BaseException | None = None) -> None:
    """In the child: tell the parent which of the project's files are loaded.

    :param error: why the app could not be loaded; the files in its traceback
        are reported too, as a module that failed is not in ``sys.modules``.
    """
    path = os.environ.get(RELOAD_REPORT)
    if not path:
        return
    files = {
        file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))
    }
    while error is not None:
        files.update(frame.filename for frame in traceback.extract_tb(error.__traceback__))
        if isinstance(error, SyntaxError) and error.filename:
            files.add(error.filename)
        error = error.__cause__ or error.__context__
    with open(f"{path}.new", "w") as out:
        json.dump(snapshot(project_files(files)), out)
    os.replace(f"{path}.new", path)


def project_files(files: Iterable[str]) -> set[str]:
    """Those that exist and belong to neither Python nor an installed package."""
    paths = sysconfig.get_paths()
    foreign = tuple(
        os.path.join(os.path.realpath(paths[key]), "")
        for key in ("stdlib", "platstdlib", "purelib", "platlib")
    )
    found = {os.path.realpath(file) for file in files if file.endswith(".py")}
    return {file for file in found if not file.startswith(foreign) and os.path.isfile(file)}


def snapshot(files: Iterable[str]) -> Snapshot:
    """Times of these files, and of the other Python files beside them."""
    times: Snapshot = {}
    for folder in _folders(files):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".py") and not entry.name.startswith("."):
                        times[entry.path] = entry.stat().st_mtime_ns
        except OSError:
            continue
    return times


def _folders(files: Iterable[str]) -> set[str]:
    return {os.path.dirname(file) for file in files}


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """Files that are new, gone or of another time."""
    return sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )


class Reloader:
    """The parent process.

    :param command: how to start the child.
    :param interval: seconds between two looks at the files.
    """

    def __init__(self, command: Sequence[str], interval: float = INTERVAL) -> None:
        self.command = list(command)
        self.interval = interval
        self._child: subprocess.Popen[bytes] | None = None
        self._signals = 0
        # A file stands for its folder; this one for the working directory.
        self._known = {os.path.join(os.path.realpath(os.getcwd()), "any")}
        handle, self._report = tempfile.mkstemp(prefix="chervil-reload-")
        os.close(handle)

    def run(self) -> int:
        """Run until a signal or the child ends it; the exit code."""
        old = {number: signal.signal(number, self._forward) for number in FORWARDED}
        try:
            while True:
                code = self._run_once()
                if code is not None:
                    return code
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            self._end_child(signal.SIGKILL)
            for path in (self._report, f"{self._report}.new"):
                if os.path.exists(path):
                    os.unlink(path)

    def _run_once(self) -> int | None:
        """One life of the child; None: start the next."""
        open(self._report, "w").close()
        # Taken before the child reads anything: no change is missed meanwhile.
        started = snapshot(self._known)
        environment = {**os.environ, RELOAD_REPORT: self._report}
        # A group of its own: Ctrl-C reaches the child once, through us.
        self._child = subprocess.Popen(self.command, env=environment, process_group=0)
        code, changed = self._watch(self._child, started)
        if self._signals:
            return code if code >= 0 else 128 - code
        if not changed:
            if code == 0:
                return 0
            click.echo(f"The worker ended with {code}; waiting for a change.", err=True)
            changed = self._wait_for_change(started)
            if not changed:
                return 128 + signal.SIGINT
        shown = ", ".join(os.path.relpath(path) for path in changed[:3])
        click.echo(f"Reloading: {shown}{' ...' if len(changed) > 3 else ''}", err=True)
        return None

    def _watch(self, child: subprocess.Popen[bytes], before: Snapshot) -> tuple[int, list[str]]:
        """Wait for the child's end or a change, after which it is ended."""
        while True:
            try:
                return child.wait(self.interval), []
            except subprocess.TimeoutExpired:
                pass
            changed = self._changed(before)
            if changed and not self._signals:
                self._end_child(signal.SIGTERM)
                return child.returncode, changed

    def _wait_for_change(self, before: Snapshot) -> list[str]:
        while not self._signals:
            changed = self._changed(before)
            if changed:
                return changed
            time.sleep(self.interval)
        return []

    def _changed(self, before: Snapshot) -> list[str]:
        """What differs from ``before``, to which newly reported folders are added."""
        covered = _folders(self._known)
        for path, time_ns in self._loaded().items():
            if os.path.dirname(path) not in covered:
                before[path] = time_ns
                self._known.add(path)
        return changes(before, snapshot(self._known))

    def _loaded(self) -> Snapshot:
        """What the child has reported, if it has."""
        try:
            with open(self._report) as file:
                return dict(json.load(file))
        except (OSError, ValueError):
            return {}

    def _end_child(self, number: int) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.send_signal(number)
        told = False
        while True:
            try:
                child.wait(PATIENCE)
                return
            except subprocess.TimeoutExpired:
                if not told:
                    told = True
                    click.echo("Waiting for the running tasks (Ctrl-C: do not wait).", err=True)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def run_with_reload() -> int:
    """Run this very command line again and again; the exit code."""
    return Reloader([sys.executable, "-m", "chervil", *sys.argv[1:]]).run()
