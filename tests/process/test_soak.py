"""A short soak test on each broker; hours of it: see docs/guide/reliability.md."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.processes import Tree

OPTIONS = ["--seconds", "25", "--every", "0.5", "--nodes", "3", "--clients", "2", "--lease", "3"]
OPTIONS += ["--rate", "40", "--pools", "prefork,threads,asyncio", "--concurrency", "2"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "broker",
    ["sqlite", pytest.param("redis", marks=pytest.mark.requires_server("redis"))],
)
def test_nothing_is_lost_stuck_or_run_again_without_a_cause(
    broker: str, server_url: Callable[[str], str], process_tree: Tree, tmp_path: Path
) -> None:
    """Another seed each time; the output says which, for ``--seed``."""
    url = f"sqlite:///{tmp_path / 'soak.db'}" if broker == "sqlite" else server_url(broker)
    seed = random.randrange(10**6)
    command = [sys.executable, "-m", "chervil.testing.soak", *OPTIONS]
    command += ["--broker", url, "--seed", str(seed), "--directory", str(tmp_path / "soak")]
    process = process_tree.start(command, ROOT, {}, tmp_path / "soak.log")
    status = process.wait(280)
    output = (tmp_path / "soak.log").read_text()
    assert status == 0, output
    assert output.endswith("passed\n"), output
