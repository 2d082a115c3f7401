"""What a worker needs to run as a service: pid file, user, background.

Nothing here runs threads; ``detach`` must be called before any are started.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import click

#: How long the foreground process waits for the background one, in seconds.
DETACH_DEADLINE = 60.0


class PidFile:
    """A file that holds the process id of a node and keeps a second one out.

    A file whose process does not exist any more is taken over.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._owner = 0

    def acquire(self) -> None:
        """Create the file.

        :raises click.ClickException: another process that is alive holds it, or
            it cannot be written.
        """
        for _ in range(3):
            try:
                fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._remove_if_stale()
                continue
            except OSError as exc:
                raise click.ClickException(f"--pidfile {self.path}: {exc.strerror}") from exc
            with os.fdopen(fd, "w") as file:
                file.write(f"{os.getpid()}\n")
            self._owner = os.getpid()
            return
        raise click.ClickException(f"--pidfile {self.path}: another process keeps creating it.")

    def release(self) -> None:
        """Delete the file if this process created it."""
        if self._owner == os.getpid():
            self._owner = 0
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass

    def _remove_if_stale(self) -> None:
        try:
            with open(self.path) as file:
                text = file.read(64).strip()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise click.ClickException(f"--pidfile {self.path}: {exc.strerror}") from exc
        if text and not text.isdecimal():
            raise click.ClickException(
                f"--pidfile {self.path} exists and holds no process id; "
                "delete it if it is not needed."
            )
        if text and int(text) != os.getpid() and alive(int(text)):
            raise click.ClickException(
                f"a worker is running already: process {text}, according to {self.path}. "
                "If that is another program, delete the file."
            )
        click.echo(f"Removing stale pid file {self.path}.", err=True)
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


def alive(pid: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except OSError as exc:
        return exc.errno == errno.EPERM
    except OverflowError:
        return False
    return pid > 0


def become(uid: str | None, gid: str | None, umask: str | None) -> None:
    """Take on another user, group and umask, as far as they are given.

    :param uid: a user's name or number; his groups are taken too.
    :param gid: a group's name or number.
    :param umask: an octal number such as ``022``.
    :raises click.ClickException: one is unknown or not permitted.
    """
    if umask:
        os.umask(_octal(umask))
    if uid is None and gid is None:
        return
    import grp
    import pwd

    try:
        user = _entry("--uid", uid, pwd.getpwnam, pwd.getpwuid)
        group = _entry("--gid", gid, grp.getgrnam, grp.getgrgid)
        target = group.gr_gid if group else user.pw_gid if user else os.getgid()
        if user is not None and os.getuid() == 0:
            os.initgroups(user.pw_name, target)
        os.setgid(target)
        if user is not None:
            os.setuid(user.pw_uid)
    except PermissionError as exc:
        raise click.ClickException(
            "--uid and --gid need the rights to become that user (start as root)."
        ) from exc


def _octal(text: str) -> int:
    try:
        value = int(text, 8)
    except ValueError:
        value = -1
    if not 0 <= value <= 0o777:
        raise click.BadParameter(f"{text!r} is not an octal number such as 022", param_hint="umask")
    return value


def _entry(
    option: str,
    value: str | None,
    by_name: Callable[[str], object],
    by_number: Callable[[int], object],
) -> Any:
    if value is None:
        return None
    try:
        return by_number(int(value)) if value.isdecimal() else by_name(value)
    except KeyError:
        raise click.BadParameter(f"there is no {value!r}", param_hint=option) from None


def detach(logfile: str | None) -> Callable[[str], None]:
    """Go on in a background process of its own session.

    The foreground process waits until the background one calls the returned
    function (with an empty text when it is ready, else with what went wrong)
    or ends, and exits with 0 or 1. Must be called before threads exist.

    :param logfile: where stdout and stderr go; nowhere when None.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        _wait_for_child(reading, pid)
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)
    _redirect(logfile)

    def report(problem: str) -> None:
        try:
            os.write(writing, (problem or "ready").encode())
            os.close(writing)
        except OSError:
            pass  # reported before, or nobody waits any more

    return report


def _wait_for_child(reading: int, pid: int) -> None:
    import select

    os.waitpid(pid, 0)
    readable, _, _ = select.select([reading], [], [], DETACH_DEADLINE)
    answer = os.read(reading, 4096).decode(errors="replace") if readable else ""
    if answer == "ready":
        os._exit(0)
    said = answer or ("it ended early" if readable else f"not ready after {DETACH_DEADLINE:g} s")
    sys.stderr.write(f"Error: the worker in the background: {said}; see its log file.\n")
    sys.stderr.flush()
    os._exit(1)


def _redirect(logfile: str | None) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    out = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if logfile else null
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for fd in {null, out} - {0, 1, 2}:
        os.close(fd)
