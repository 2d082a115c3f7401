from __future__ import annotations

from unittest.mock import patch

import pytest

from chervil import Chervil
from tests.unit.cli.conftest import Cli


def test_revoke_hands_each_id_to_the_app_once(run: Cli, app: Chervil) -> None:
    with patch.object(app.control, "revoke") as revoke:
        done = run("revoke", "a", "b", "a", "--terminate", "-s", "kill")
    assert done.exit_code == 0
    revoke.assert_called_once_with(["a", "b"], terminate=True, signal="SIGKILL")
    assert "Revoked 2 ids" in done.output


def test_the_broker_does_not_deliver_it_as_usual(run: Cli, app: Chervil) -> None:
    kept = app.send_task("shop.add", (1,))
    gone = app.send_task("shop.add", (2,), countdown=3600)
    assert run("revoke", gone.id).exit_code == 0
    assert run("revoke", kept.id).exit_code == 0
    consumer = app.broker.consumer(app.router.select(None, None), "test")
    try:
        found = list(consumer.exchange((), 10))
    finally:
        consumer.close()
    assert [delivery.revoked for delivery in found] == [True]


@pytest.mark.parametrize("args", [(), (" ",), ("a", "-s", "SIGNONE"), ("a", "-s", "999")])
def test_an_id_and_a_signal_that_there_is_are_needed(run: Cli, args: tuple[str, ...]) -> None:
    assert run("revoke", *args).exit_code == 2


def test_help_says_what_it_does_not_do(run: Cli) -> None:
    assert "running already is not stopped" in " ".join(run("revoke", "--help").output.split())
