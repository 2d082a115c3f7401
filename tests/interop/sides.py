"""Celery's and Chervil's clients and workers as processes, started and asked alike."""

from __future__ import annotations

import ast
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.processes import Tree, WorkerProcess

ROOT = Path(__file__).resolve().parents[2]
WAIT = 30.0
SIDES = ("celery", "chervil")


class Raised(Exception):
    """What an expression raised in a client."""

    def __init__(self, name: str, args_text: str, text: str) -> None:
        super().__init__(text)
        self.name = name
        self.args_text = args_text


class Failure(NamedTuple):
    """How a task failed, as its client sees it."""

    state: str
    cls: str
    module: str
    args: Any
    traceback: str | None


def environment(conf: Mapping[str, Any]) -> dict[str, str]:
    return {
        "INTEROP_CONF": json.dumps(conf),
        "PYTHONPATH": str(ROOT),
        # Celery's worker refuses to accept pickle as root without it.
        "C_FORCE_ROOT": "1",
        "PYTHONWARNINGS": "ignore",
    }


class Client:
    """A client process; see ``tests/apps/interop/client.py`` for what it can be told."""

    def __init__(self, side: str, conf: Mapping[str, Any], log: Path) -> None:
        self.side = side
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.apps.interop.client", side],
                cwd=log.parent,
                env={**os.environ, **environment(conf)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._rest = b""

    def __call__(self, expression: str, **names: Any) -> Any:
        """The value of a Python expression there; its ``repr`` where it is no literal.

        :param names: JSON values that the expression can use.
        :raises Raised: it raised.
        """
        call = json.dumps({"do": expression, "with": names}).encode() + b"\n"
        assert self._process.stdin
        self._process.stdin.write(call)
        self._process.stdin.flush()
        answer = json.loads(self._line())
        if "raised" in answer:
            raise Raised(answer["raised"], answer["args"], answer["text"])
        try:
            return ast.literal_eval(answer["value"])
        except (ValueError, SyntaxError):
            return answer["value"]

    def _line(self) -> bytes:
        assert self._process.stdout
        out = self._process.stdout.fileno()
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            ready = select.select([out], [], [], 2 * WAIT)[0]
            part = os.read(out, 1 << 20) if ready else b""
            if not part:
                raise AssertionError(f"no answer from {self.side}: {self._log.read_text()}")
            parts.append(part)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line

    def send(self, expression: str, **names: Any) -> str:
        """Evaluate something that sends a task; its id."""
        return str(self(f"send({expression})", **names))

    def get(self, task_id: str) -> Any:
        """The result of what was sent."""
        return self(f"sent[id].get(timeout={WAIT})", id=task_id)

    def run(self, expression: str, **names: Any) -> Any:
        """Send a task and wait for its result."""
        return self.get(self.send(expression, **names))

    def failure(self, task_id: str) -> Failure:
        """How a task failed that was sent."""
        self(f"sent[id].get(timeout={WAIT}, propagate=False)", id=task_id)
        return Failure(*self("tuple(described(sent[id]).values())", id=task_id))

    def state(self, task_id: str) -> str:
        return str(self("app.AsyncResult(id).state", id=task_id))

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Workers:
    """Starts workers of both sides and ends them all."""

    def __init__(self, conf: Mapping[str, Any], directory: Path, host: str = "here") -> None:
        self._conf = conf
        self._directory = directory
        #: Second part of the nodes' names, of which there must be one each.
        self._host = host
        self.tree = Tree()
        self.started: list[WorkerProcess] = []

    def start(self, side: str, *queues: str, pool: str = "solo", **conf: Any) -> WorkerProcess:
        """Start a worker for these queues; :meth:`ready` waits for it.

        :param pool: ``solo``, or ``prefork`` with two processes.
        :param conf: settings besides those that all have.
        """
        number = len(self.started)
        args = ["-A", f"tests.apps.interop.on_{side}", "worker", "-l", "INFO"]
        args += ["-Q", ",".join(queues), "-n", f"{side}{number}@{self._host}"]
        args += ["-P", pool, "-c", "2" if pool == "prefork" else "1"]
        if side == "celery":
            args += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker = WorkerProcess(
            args,
            cwd=self._directory,
            env=environment({**self._conf, **conf}),
            tree=self.tree,
            log=self._directory / f"{side}-{number}.log",
            module=side,
        )
        self.started.append(worker)
        return worker

    def run(self, side: str, *queues: str, pool: str = "solo", **conf: Any) -> WorkerProcess:
        """Start a worker and wait until it is ready."""
        worker = self.start(side, *queues, pool=pool, **conf)
        self.ready(worker)
        return worker

    @staticmethod
    def ready(*workers: WorkerProcess) -> None:
        for worker in workers:
            worker.wait_for_log(r"\bready\b", WAIT)

    def close(self) -> list[str]:
        """End all; what did not end by itself."""
        return self.tree.close()
