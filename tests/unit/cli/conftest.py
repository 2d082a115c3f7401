from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from chervil import Chervil
from chervil.cli.main import cli
from chervil.cli.session import Session
from chervil.drivers.contracts import Queue


class Cli:
    """Runs ``chervil`` in this process, with the app given."""

    def __init__(self, app: Chervil) -> None:
        self.app = app
        self.runner = CliRunner()

    def __call__(self, *args: str, stdin: str | None = None, app: bool = True) -> Result:
        session = Session()
        if app:
            session.use(self.app)
        result = self.runner.invoke(cli, list(args), input=stdin, obj=session, prog_name="chervil")
        unexpected = result.exception
        if unexpected is not None and not isinstance(unexpected, SystemExit):
            raise unexpected
        return result


@pytest.fixture
def app(app_factory: Callable[..., Chervil]) -> Chervil:
    app = app_factory("shop")

    @app.task(name="shop.add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    @app.task(name="shop.fail")
    def fail() -> None:
        raise ValueError("no")

    app.broker.declare([Queue(queue.name) for queue in app.router.select(None, None)])
    return app


@pytest.fixture
def run(app: Chervil) -> Cli:
    return Cli(app)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHERVIL_APP", "CHERVIL_BROKER_URL", "CHERVIL_RESULT_BACKEND", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
