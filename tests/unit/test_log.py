"""Logging of workers."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import os
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from chervil import log
from chervil.exceptions import ImproperlyConfigured
from chervil.settings import Settings


@pytest.fixture
def conf() -> Settings:
    settings = Settings(environ={})
    settings.worker_log_format = "[%(levelname)s] %(message)s"
    settings.worker_task_log_format = "[%(levelname)s] %(task_name)s[%(task_id)s]: %(message)s"
    return settings


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Loggers, filters and streams as they were."""
    before = sys.stdout, sys.stderr, logging.root.handlers[:], logging.root.level
    yield
    log.reset_logging()
    log.set_task_provider(None)
    assert (sys.stdout, sys.stderr, logging.root.handlers[:], logging.root.level) == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def unused_name() -> str:
    return f"shop{uuid.uuid4().hex}"


# --- lines -----------------------------------------------------------------------------


def test_lines_with_and_without_a_task(conf: Settings) -> None:
    out = io.StringIO()
    log.setup_logging(conf, "INFO", stream=out)
    logger = log.get_logger(unused_name())
    logger.info("one %s", 1)
    logger.debug("too detailed")
    log.set_task_provider(lambda: ("shop.pay", "id1"))
    logger.warning("two")
    log.set_task_provider(lambda: None)
    logger.error("three")
    assert out.getvalue().splitlines() == [
        "[INFO] one 1",
        "[WARNING] shop.pay[id1]: two",
        "[ERROR] three",
    ]


def test_the_default_format_has_time_level_and_process() -> None:
    out = io.StringIO()
    log.setup_logging(Settings(environ={}), "INFO", stream=out)
    logging.getLogger(unused_name()).info("hello")
    assert " INFO/MainProcess] hello\n" in out.getvalue()
    assert out.getvalue().startswith(f"[{dt.date.today().year}-")


def test_formats_of_time(conf: Settings) -> None:
    conf.worker_log_format = conf.worker_task_log_format = "%(asctime)s %(message)s"
    conf.worker_log_datefmt = "A"
    out = io.StringIO()
    log.setup_logging(conf, "INFO", stream=out)
    log.set_task_provider(lambda: ("t", "i"))
    logging.getLogger(unused_name()).info("inside")
    log.set_task_provider(None)
    conf.worker_task_log_datefmt = "B"
    log.setup_logging(conf, "INFO", stream=out)
    logging.getLogger(unused_name()).info("outside")
    log.set_task_provider(lambda: ("t", "i"))
    logging.getLogger(unused_name()).info("inside")
    assert out.getvalue() == "A inside\nA outside\nB inside\n"


def test_json_lines(conf: Settings) -> None:
    out = io.StringIO()
    log.setup_logging(conf, "INFO", fmt="json", stream=out)
    logger = log.get_logger(unused_name())
    log.set_task_provider(lambda: ("shop.pay", "id1"))
    logger.info("paid\n%s", "x", extra={"amount": 3, "order": object()})
    log.set_task_provider(None)
    try:
        raise KeyError("gone")
    except KeyError:
        logger.exception("failed")
    logger.info("\ud800 %s", 1)
    logger.info("big", extra={"number": 2**70, "key": {(1, 2): 3}})
    paid, failed, odd, big = map(json.loads, out.getvalue().splitlines())
    moment = dt.datetime.fromisoformat(paid["ts"])
    assert abs((dt.datetime.now(dt.UTC) - moment).total_seconds()) < 60
    assert paid["ts"].endswith("Z")
    assert paid["message"] == "paid\nx"
    assert (paid["level"], paid["logger"], paid["process"]) == ("INFO", logger.name, os.getpid())
    assert (paid["task_name"], paid["task_id"], paid["amount"]) == ("shop.pay", "id1", 3)
    assert paid["order"].startswith("<object")
    assert "task_id" not in failed
    assert failed["exc"].startswith("Traceback")
    assert failed["exc"].endswith("KeyError: 'gone'")
    assert "ud800" in odd["message"]
    assert str(big["number"]) == str(2**70)


# --- colour ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminal", "argument", "setting", "environ", "colored"),
    [
        (True, None, None, {}, True),
        (False, None, None, {}, False),
        (True, None, None, {"NO_COLOR": "1"}, False),
        (True, None, None, {"NO_COLOR": ""}, True),
        (True, None, None, {"TERM": "dumb"}, False),
        (True, None, False, {}, False),
        (False, None, True, {"NO_COLOR": "1"}, True),
        (True, False, True, {}, False),
        (False, True, False, {}, True),
    ],
)
def test_color(
    conf: Settings,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    argument: bool | None,
    setting: bool | None,
    environ: dict[str, str],
    colored: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    conf.worker_log_color = setting
    out = Terminal() if terminal else io.StringIO()
    log.setup_logging(conf, "INFO", color=argument, stream=out)
    logging.getLogger(unused_name()).error("red")
    logging.getLogger(unused_name()).info("plain")
    red, plain = out.getvalue().splitlines()
    assert red == ("\x1b[31m[ERROR] red\x1b[0m" if colored else "[ERROR] red")
    assert plain == "[INFO] plain"


def test_files_have_no_color(conf: Settings, tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    log.setup_logging(conf, "INFO", logfile=path)
    logging.getLogger(unused_name()).error("plain ü")
    assert path.read_text(encoding="utf-8") == "[ERROR] plain ü\n"


def test_a_file_may_be_moved_away(conf: Settings, tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("before\n")
    log.setup_logging(conf, "INFO", logfile=path)
    logging.getLogger(unused_name()).error("one")
    path.rename(tmp_path / "worker.log.1")
    logging.getLogger(unused_name()).error("two")
    assert (tmp_path / "worker.log.1").read_text() == "before\n[ERROR] one\n"
    assert path.read_text() == "[ERROR] two\n"


# --- set-up -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "number"), [("info", 20), ("WARN", 30), ("FATAL", 50), (15, 15), (" debug ", 10)]
)
def test_levels(conf: Settings, level: int | str, number: int) -> None:
    log.setup_logging(conf, level, stream=io.StringIO())
    assert logging.root.level == number


@pytest.mark.parametrize("level", ["loud", "", True, None])
def test_wrong_levels(conf: Settings, level: object) -> None:
    with pytest.raises(ImproperlyConfigured, match="DEBUG, INFO, WARNING"):
        log.setup_logging(conf, level)  # type: ignore[arg-type]


def test_wrong_formats_and_files(conf: Settings, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="'xml'"):
        log.setup_logging(conf, fmt="xml")
    with pytest.raises(ImproperlyConfigured, match="missing"):
        log.setup_logging(conf, logfile=tmp_path / "missing" / "worker.log")
    for name in ("worker_log_format", "worker_task_log_format"):
        for wrong in ("%(nothing)s", "%(levelname)d", "no field"):
            broken = conf.copy()
            broken[name] = wrong
            with pytest.raises(ImproperlyConfigured, match="worker_log_format"):
                log.setup_logging(broken, logfile=tmp_path / "worker.log")


def test_doing_it_again_replaces_the_first_time(conf: Settings, tmp_path: Path) -> None:
    first, second = io.StringIO(), io.StringIO()
    log.setup_logging(conf, "INFO", stream=first)
    log.setup_logging(conf, "INFO", stream=second)
    logging.getLogger(unused_name()).info("x")
    assert (first.getvalue(), second.getvalue()) == ("", "[INFO] x\n")


def test_the_root_logger_is_taken_over_or_left_alone(conf: Settings) -> None:
    theirs, ours = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(theirs)
    before = logging.root.handlers[:]
    logging.root.addHandler(handler)
    try:
        log.setup_logging(conf, "INFO", stream=ours)
        assert handler not in logging.root.handlers
        log.reset_logging()
        assert handler in logging.root.handlers
        conf.worker_hijack_root_logger = False
        log.setup_logging(conf, "INFO", stream=ours)
        assert handler in logging.root.handlers
        logging.getLogger(unused_name()).warning("theirs")
        logging.getLogger("chervil.worker").info("ours")
        log.get_task_logger(unused_name()).info("ours too")
    finally:
        log.reset_logging()
        logging.root.handlers[:] = before
    assert theirs.getvalue() == "theirs\n"
    assert ours.getvalue() == "[INFO] ours\n[INFO] ours too\n"


def test_warnings_are_logged(conf: Settings) -> None:
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log.setup_logging(conf, "INFO", stream=out)
        warnings.warn("look out", UserWarning, stacklevel=1)
        log.reset_logging()
    assert "UserWarning: look out" in out.getvalue()


# --- loggers of tasks ---------------------------------------------------------------------


def test_task_loggers_give_name_and_id_to_any_handler() -> None:
    name = unused_name()
    logger = log.get_task_logger(name)
    assert logger is log.get_task_logger(name) is logging.getLogger(name)
    assert logger.parent is logging.getLogger(log.TASK_LOGGER)
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(task_name)s|%(task_id)s|%(message)s"))
    logger.addHandler(handler)
    logger.warning("outside")
    log.set_task_provider(lambda: ("t", "i"))
    logger.warning("inside")
    assert out.getvalue() == "||outside\nt|i|inside\n"


def test_the_parents_of_task_loggers_do_not_run_in_a_circle() -> None:
    for name in ("chervil", "chervil.task", "chervil.task.more", "root"):
        logger = log.get_task_logger(name)
        seen = []
        while logger is not None and logger not in seen:
            seen.append(logger)
            logger = logger.parent
        assert logger is None
    below = unused_name()
    child = log.get_task_logger(f"{below}.child")
    assert log.get_task_logger(below).parent is logging.getLogger(log.TASK_LOGGER)
    assert child.parent is logging.getLogger(below)


def test_tasks_of_different_threads_are_told_apart(conf: Settings) -> None:
    out = io.StringIO()
    log.setup_logging(conf, "INFO", stream=out)
    running = threading.local()
    log.set_task_provider(lambda: getattr(running, "task", None))
    together = threading.Barrier(3, timeout=30)

    def work(number: int) -> None:
        running.task = ("t", str(number))
        together.wait()
        logging.getLogger("shop").info("%s", number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(out.getvalue().splitlines()) == [f"[INFO] t[{n}]: {n}" for n in range(3)]


# --- what tasks print --------------------------------------------------------------------------


def test_prints_are_logged_line_by_line(conf: Settings) -> None:
    out = io.StringIO()
    log.setup_logging(conf, "INFO", stream=out)
    restore = log.redirect_stdouts(logging.getLogger(unused_name()))
    try:
        sys.stdout.write("a\nb\n\n  \nhalf ")
        sys.stdout.write("line\r\n")
        sys.stderr.writelines(["from err\n", "flushed"])
        sys.stderr.flush()
        sys.stdout.write("100% %s\n")
        sys.stdout.write("begun")
        assert not sys.stdout.isatty()
        assert sys.stdout.writable()
        assert sys.stdout.encoding == "utf-8"
        assert "begun" not in out.getvalue()
    finally:
        restore()
    texts = [line.removeprefix("[WARNING] ") for line in out.getvalue().splitlines()]
    assert texts == ["a", "b", "half line", "from err", "flushed", "100% %s", "begun"]


def test_the_level_of_redirection(conf: Settings) -> None:
    out = io.StringIO()
    log.setup_logging(conf, "DEBUG", stream=out)
    before = sys.stdout, sys.stderr
    restore = log.redirect_stdouts(logging.getLogger(unused_name()), "DEBUG")
    sys.stdout.write("x\n")
    restore()
    assert (sys.stdout, sys.stderr) == before
    assert out.getvalue() == "[DEBUG] x\n"
    with pytest.raises(ImproperlyConfigured, match="loud"):
        log.redirect_stdouts(logging.getLogger(unused_name()), "loud")
    assert (sys.stdout, sys.stderr) == before


def test_a_handler_that_prints_does_not_run_in_circles(conf: Settings) -> None:
    class Printing(logging.Handler):
        seen = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.seen += 1
            sys.stdout.write(f"handled {record.getMessage()}\n")

    handler = Printing()
    log.setup_logging(conf, "INFO", stream=io.StringIO())
    logging.root.addHandler(handler)
    restore = log.redirect_stdouts(logging.getLogger(unused_name()))
    try:
        sys.stdout.write("x\n")
    finally:
        restore()
        logging.root.removeHandler(handler)
    assert handler.seen == 1


def test_lines_of_threads_are_kept_apart_and_bounded() -> None:
    out = io.StringIO()
    logger = logging.Logger("own")
    logger.addHandler(logging.StreamHandler(out))
    stream = log.LogStream(logger, logging.INFO)
    stream.write("main ")
    thread = threading.Thread(target=lambda: stream.write("other\n"))
    thread.start()
    thread.join(30)
    stream.write("goes on\n")
    assert out.getvalue() == "other\nmain goes on\n"
    for _ in range(20):
        stream.write("x" * 10_000)
    assert sum(map(len, stream._pending.values())) < 65_536
    stream.close()
    assert out.getvalue().count("x") == 200_000
    with pytest.raises(TypeError, match="text"):
        stream.write(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="descriptor"):
        stream.fileno()


def test_subprocesses_can_use_the_redirected_stream() -> None:
    script = (
        "import subprocess, sys\n"
        "from chervil import log\nfrom chervil.settings import Settings\n"
        "conf = Settings(environ={})\nlog.setup_logging(conf, 'INFO')\n"
        "restore = log.redirect_stdouts(log.get_logger('redirected'))\n"
        "subprocess.run([sys.executable, '-c', 'print(42)'], stdout=sys.stdout, check=True)\n"
        "print('printed')\nrestore()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "42\n" in done.stderr
    assert "WARNING/MainProcess] printed\n" in done.stderr
    assert done.stdout == ""


def test_records_about_a_task_have_its_fields_in_json_and_no_second_prefix_as_text() -> None:
    record = logging.makeLogRecord(
        {"msg": "Task done", "levelname": "INFO", **log.task_fields("shop.pay", "id1", runtime=0.5)}
    )
    entry = json.loads(log.JsonFormatter().format(record))
    assert (entry["task_name"], entry["task_id"], entry["runtime"]) == ("shop.pay", "id1", 0.5)
    assert "about_task" not in entry
    assert "task_fields" not in entry
    text = log.TextFormatter("outside %(message)s", "inside %(message)s")
    assert text.format(record) == "outside Task done"


def test_json_has_the_name_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_process_name", "prefork-0")
    record = logging.makeLogRecord({"msg": "x"})
    assert log.TaskFilter().filter(record)
    assert json.loads(log.JsonFormatter().format(record))["process_name"] == "prefork-0"
