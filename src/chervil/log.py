"""Logging of workers: readable lines or JSON, and what tasks print.

Not imported by ``import chervil``; ``get_task_logger`` is what tasks need of it.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import msgspec

from chervil.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from chervil.settings import Settings

#: Parent of the loggers that tasks get.
TASK_LOGGER = "chervil.task"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMATS = ("text", "json")

# --- which task is running ------------------------------------------------------------

TaskProvider = Callable[[], "tuple[str, str] | None"]


def _no_task() -> tuple[str, str] | None:
    return None


_provider: TaskProvider = _no_task


def set_task_provider(provider: TaskProvider | None) -> None:
    """Say how to find the (name, id) of the task that runs in this thread or coroutine.

    The provider returns None when none does. None takes it back.
    """
    global _provider
    _provider = provider or _no_task


_process_name = ""


def set_process_name(name: str) -> None:
    """Say what this process is called in log lines."""
    global _process_name
    _process_name = name


class TaskFilter(logging.Filter):
    """Gives every record ``task_name`` and ``task_id``; empty outside tasks."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _process_name:
            record.processName = _process_name
        if not hasattr(record, "task_id"):
            record.task_name, record.task_id = _provider() or ("", "")
        return True


_task_filter = TaskFilter()


def task_fields(name: str, task_id: str | None, **more: Any) -> dict[str, Any]:
    """``extra=`` of a record that is about a task but not logged inside it.

    Its JSON has the fields; as text it is formatted as any line of the worker.
    """
    return {"task_name": name, "task_id": task_id or "", "about_task": True, "task_fields": more}


def get_logger(name: str) -> logging.Logger:
    """The logger of that name."""
    return logging.getLogger(name)


def get_task_logger(name: str) -> logging.Logger:
    """A logger for use in tasks: its records know the task's name and id.

    It hangs below ``chervil.task``, so that it is logged even when the worker leaves
    the root logger alone.
    """
    logger = logging.getLogger(name)
    base = logging.getLogger(TASK_LOGGER)
    if logger is not base and not base.name.startswith(f"{name}.") and logger is not logging.root:
        if logger.parent is logging.root:
            logger.parent = base
        if _task_filter not in logger.filters:
            logger.addFilter(_task_filter)
    return logger


# --- formats ----------------------------------------------------------------------------

_RESET = "\x1b[0m"
_COLORS = {
    logging.DEBUG: "\x1b[2m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


class TextFormatter(logging.Formatter):
    """One format for lines inside tasks and one for the others.

    :param color: warnings yellow, errors red, debug output dim.
    """

    def __init__(
        self,
        fmt: str,
        task_fmt: str,
        datefmt: str | None = None,
        task_datefmt: str | None = None,
        color: bool = False,
    ) -> None:
        super().__init__(fmt, datefmt)
        self._inside = logging.Formatter(task_fmt, task_datefmt or datefmt)
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        inside = getattr(record, "task_id", "") and not hasattr(record, "about_task")
        line = self._inside.format(record) if inside else super().format(record)
        if self._color and (color := _COLORS.get(record.levelno)):
            return f"{color}{line}{_RESET}"
        return line


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "task_id",
    "task_name",
    "about_task",
    "task_fields",
}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``ts`` (ISO 8601, UTC), ``level``, ``logger``, ``message``,
    ``process`` (id), ``process_name``, ``task_id``, ``task_name``, ``exc``, and what came
    in ``extra=``."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "ts": dt.datetime.fromtimestamp(record.created, dt.UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "process_name": record.processName,
        }
        if task_id := getattr(record, "task_id", ""):
            entry["task_id"] = task_id
            entry["task_name"] = getattr(record, "task_name", "")
            entry.update(getattr(record, "task_fields", ()))
        if record.exc_info and record.exc_info[0] is not None:
            entry["exc"] = self.formatException(record.exc_info)
        elif record.exc_text:
            entry["exc"] = record.exc_text
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in entry:
                entry[name] = value
        return _json_text(entry)


def _json_text(entry: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(entry, enc_hook=repr).decode()
    except (ValueError, TypeError, OverflowError, RecursionError):
        # Such as lone surrogates, keys that are no text, numbers beyond 64 bits.
        safe = {name: ascii(value) if name != "ts" else value for name, value in entry.items()}
        return msgspec.json.encode(safe).decode()


# --- set-up --------------------------------------------------------------------------


def setup_logging(
    settings: Settings,
    level: int | str = "WARNING",
    logfile: str | os.PathLike[str] | None = None,
    fmt: str = "text",
    color: bool | None = None,
    stream: IO[str] | None = None,
) -> logging.Handler:
    """Log as a worker does. Doing it again replaces what the last time set up.

    :param level: name or number; what is below it is not logged.
    :param logfile: append to this file, which may be moved away while it is in use
        (logrotate); None: standard error.
    :param fmt: ``"text"`` or ``"json"``.
    :param color: None: ``worker_log_color``, or else when it goes to a terminal and the
        environment variable ``NO_COLOR`` (https://no-color.org) is not set.
    :param stream: instead of standard error.
    :returns: the handler in use.
    :raises ImproperlyConfigured: level, format or file is wrong.
    """
    number = level_number(level)
    if fmt not in FORMATS:
        raise ImproperlyConfigured(f"log format {fmt!r}; expected one of {', '.join(FORMATS)}")
    handler = _handler(logfile, stream)
    if color is None:
        color = settings.worker_log_color
    if color is None:
        color = logfile is None and _is_terminal(getattr(handler, "stream", None))
    try:
        handler.setFormatter(JsonFormatter() if fmt == "json" else _text(settings, color))
    except ImproperlyConfigured:
        handler.close()
        raise
    handler.addFilter(_task_filter)
    _install(handler, number, settings.worker_hijack_root_logger)
    return handler


def level_number(level: int | str) -> int:
    """The number of a level.

    :raises ImproperlyConfigured: there is no level of this name.
    """
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    number = logging.getLevelNamesMapping().get(str(level).strip().upper())
    if number is None:
        raise ImproperlyConfigured(f"log level {level!r}; expected one of {', '.join(LEVELS)}")
    return number


def _handler(logfile: str | os.PathLike[str] | None, stream: IO[str] | None) -> logging.Handler:
    if logfile is None:
        # Not sys.stderr, which may be redirected to the loggers.
        return logging.StreamHandler(stream or sys.__stderr__)
    # Imports sockets and pickle, which workers without a log file can do without.
    from logging.handlers import WatchedFileHandler

    try:
        return WatchedFileHandler(logfile, encoding="utf-8")
    except OSError as exc:
        raise ImproperlyConfigured(f"cannot write the log file {logfile!s}: {exc}") from exc


def _is_terminal(stream: Any) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _text(settings: Settings, color: bool) -> TextFormatter:
    try:
        formatter = TextFormatter(
            settings.worker_log_format,
            settings.worker_task_log_format,
            settings.worker_log_datefmt,
            settings.worker_task_log_datefmt,
            color,
        )
        for task_id in ("", "id"):
            trial = logging.makeLogRecord({"task_id": task_id, "task_name": task_id})
            formatter.format(trial)
    except (ValueError, TypeError, KeyError) as exc:
        raise ImproperlyConfigured(
            f"worker_log_format or worker_task_log_format is wrong: {exc}; they take "
            "%(asctime)s, %(levelname)s, %(processName)s, %(message)s and so on, and "
            "%(task_name)s and %(task_id)s in tasks"
        ) from exc
    return formatter


_undo: list[Callable[[], object]] = []


def _install(handler: logging.Handler, level: int, hijack: bool) -> None:
    reset_logging()
    root, own = logging.root, logging.getLogger("chervil")
    _remember(root)
    _remember(own)
    if hijack:
        for other in root.handlers[:]:
            root.removeHandler(other)
    # Records of "chervil.task" loggers pass through "chervil" on their way up.
    own.propagate = hijack
    target = root if hijack else own
    target.addHandler(handler)
    target.setLevel(level)
    _undo.append(handler.close)
    logging.captureWarnings(True)
    _undo.append(lambda: logging.captureWarnings(False))


def _remember(logger: logging.Logger) -> None:
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate

    def restore() -> None:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate

    _undo.append(restore)


def reset_logging() -> None:
    """Everything as it was before :func:`setup_logging`."""
    while _undo:
        _undo.pop()()


# --- what tasks print ---------------------------------------------------------------------


_LONGEST_LINE = 65536


class LogStream:
    """A text stream that logs what is written to it, line by line.

    Stands in for ``sys.stdout`` and ``sys.stderr`` in executors. Lines of different
    threads are kept apart.

    :param original: the stream it stands in for; asked for its descriptor.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    closed = False
    mode = "w"

    def __init__(self, logger: logging.Logger, level: int, original: Any = None) -> None:
        self._logger = logger
        self._level = level
        self._original = original
        self._pending: dict[int, str] = {}
        self._busy = threading.local()

    def write(self, text: str) -> int:
        """Log the lines that are complete now."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes text, not {type(text).__name__}")
        thread = threading.get_ident()
        *lines, rest = re.split(r"\r\n|\r|\n", self._pending.pop(thread, "") + text)
        if len(rest) >= _LONGEST_LINE:
            lines.append(rest)
        elif rest:
            self._pending[thread] = rest
        for line in lines:
            self._log(line)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log the line that this thread has begun."""
        self._log(self._pending.pop(threading.get_ident(), ""))

    def finish(self) -> None:
        """Log all lines that were begun."""
        while self._pending:
            self._log(self._pending.popitem()[1])

    def _log(self, line: str) -> None:
        # A handler that prints must not be logged again, for ever.
        if not line.strip() or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            self._logger.log(self._level, "%s", line.rstrip())
        finally:
            self._busy.now = False

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def fileno(self) -> int:
        """The descriptor of the stream it stands in for, for subprocesses."""
        if self._original is None:
            raise OSError("this stream has no file descriptor")
        return int(self._original.fileno())

    def close(self) -> None:
        """Nothing to close; what was begun is logged."""
        self.finish()


def redirect_stdouts(logger: logging.Logger, level: int | str = "WARNING") -> Callable[[], None]:
    """Log standard output and standard error from now on.

    :param level: at which they are logged.
    :returns: a function that puts the streams back and logs what was begun.
    """
    before = sys.stdout, sys.stderr
    stream = LogStream(logger, level_number(level), sys.__stderr__)

    def restore() -> None:
        sys.stdout, sys.stderr = before
        stream.finish()

    sys.stdout = sys.stderr = stream
    return restore
