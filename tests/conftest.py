"""Fixtures that all tests share: a database for each test, workers as real
processes, waiting for conditions, and a check that nothing is left running."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.support.processes import Tree, WorkerProcess, own_children
from tests.support.waiting import wait_until as _wait_until

if TYPE_CHECKING:
    from chervil import Chervil

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def _service_environment() -> dict[str, str]:
    """What `make services` wrote, overridden by the environment."""
    found: dict[str, str] = {}
    path = ROOT / "services" / ".env"
    if path.exists():
        for line in path.read_text().splitlines():
            key, sep, value = line.partition("=")
            if sep and not key.startswith("#"):
                found[key.strip()] = value.strip()
    found.update({k: v for k, v in os.environ.items() if k.startswith("CHERVIL_TEST_")})
    return found


SERVICES = _service_environment()


def _unreachable(name: str) -> str:
    """Why the server cannot be used; empty when it can."""
    url = SERVICES.get(f"CHERVIL_TEST_{name.upper()}_URL")
    if not url:
        return f"no {name} server: run `make services`"
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        return f"CHERVIL_TEST_{name.upper()}_URL has no host and port: {url}"
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=2).close()
    except OSError as exc:
        return f"the {name} server at {parts.hostname}:{parts.port} does not answer: {exc}"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires_server"):
        for name in mark.args:
            reason = _unreachable(name)
            if reason and IN_CI:
                pytest.fail(reason, pytrace=False)
            if reason:
                pytest.skip(reason)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the logs of the test's workers when it failed."""
    outcome: Any = yield
    report = outcome.get_result()
    workers = getattr(item, "_chervil_workers", ())
    if report.when == "call" and report.failed:
        for worker in workers:
            report.sections.append((f"log of {worker}", worker.log()))


@pytest.fixture(scope="session")
def server_url() -> Callable[[str], str]:
    """The URL of a server that the test's `requires_server` mark names."""

    def url(name: str) -> str:
        return SERVICES[f"CHERVIL_TEST_{name.upper()}_URL"]

    return url


@pytest.fixture(scope="session")
def rabbitmqctl() -> Callable[..., None]:
    """Operate the server of ``requires_server("rabbitmq")``: ``rabbitmqctl("stop_app")``."""

    def run(*arguments: str) -> None:
        command = ["sh", SERVICES["CHERVIL_TEST_RABBITMQ_CTL"], "-q", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)

    return run


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """Wait until a condition holds and return its value: ``wait_until(condition, timeout=10)``."""
    return _wait_until


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database that only this test uses."""
    return f"sqlite:///{tmp_path / 'chervil.db'}"


@pytest.fixture
def app_factory(sqlite_url: str) -> Iterator[Callable[..., Chervil]]:
    """Make apps on this test's database: ``app_factory(name="test", **settings)``.

    ``url=`` takes another broker and result store; settings are those of
    ``app.conf``. All apps are closed when the test ends.
    """
    apps: list[Chervil] = []

    def make(name: str = "test", url: str | None = None, **settings: Any) -> Chervil:
        from chervil import Chervil

        settings.setdefault("broker_url", url or sqlite_url)
        settings.setdefault("result_backend", url or sqlite_url)
        app = Chervil(name, set_as_current=False, **settings)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def app(app_factory: Callable[..., Chervil]) -> Chervil:
    """One app on this test's database."""
    return app_factory()


@pytest.fixture
def process_tree() -> Iterator[Tree]:
    """Processes that the test starts; all of their descendants must be gone at its end."""
    tree = Tree()
    yield tree
    left = tree.close()
    if left:
        pytest.fail("left running after the test: " + "; ".join(left), pytrace=False)


@pytest.fixture
def worker(
    request: pytest.FixtureRequest, tmp_path: Path, sqlite_url: str, process_tree: Tree
) -> Callable[..., WorkerProcess]:
    """Start workers as real processes in ``tmp_path``.

    ``worker("tests.apps.basic", "-P", "prefork", "-c", "2")`` runs
    ``python -m chervil -A tests.apps.basic worker -P prefork -c 2`` and returns
    when it says that it is ready. A module may also be a file in ``tmp_path``.
    Broker and results are ``sqlite_url`` unless ``env`` says otherwise;
    ``ready=None`` returns at once.
    """
    workers: list[WorkerProcess] = []
    request.node._chervil_workers = workers

    def start(
        app: str,
        *args: str,
        env: dict[str, str] | None = None,
        ready: str | None = r"\bready\b",
        timeout: float = 20.0,
    ) -> WorkerProcess:
        environment = {
            "CHERVIL_BROKER_URL": sqlite_url,
            "CHERVIL_RESULT_BACKEND": sqlite_url,
            "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT))),
        }
        environment.update(env or {})
        process = WorkerProcess(
            ["-A", app, "worker", *args],
            cwd=tmp_path,
            env=environment,
            tree=process_tree,
            log=tmp_path / f"worker-{len(workers)}.log",
        )
        workers.append(process)
        if ready is not None:
            process.wait_for_log(ready, timeout)
        return process

    return start


@pytest.fixture(autouse=True)
def _no_children_left() -> Iterator[None]:
    """A test that forks or spawns must see to the end of its processes."""
    before = own_children()
    yield
    left = own_children() - before
    if left:
        try:
            _wait_until(lambda: not own_children() - before, 5, "the test's processes end")
        except AssertionError:
            pytest.fail(f"child processes left: {own_children() - before}", pytrace=False)
