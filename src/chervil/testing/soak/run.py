"""A soak test from its start to its verdict."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from chervil import Chervil
from chervil.testing.faults.proxy import Proxy
from chervil.testing.soak.ledger import DIRECTORY, Ledger, read
from chervil.testing.soak.processes import MARK, Member, Members, leftovers, look_at
from chervil.testing.soak.trouble import Trouble
from chervil.testing.soak.verdict import Judge, Verdict
from chervil.wire.envelope import decode_head
from chervil.worker.health import ask_all

if TYPE_CHECKING:
    from chervil.drivers.contracts import DeadLetter

_MODULE = "chervil.testing.soak"
#: How long a node may take to stop in the end, in seconds.
_STOP_SECONDS = 15.0
_LOOK_SECONDS = 0.5


class Options(msgspec.Struct):
    """What a soak test does."""

    broker: str
    results: str
    seconds: float
    seed: int
    nodes: int
    pools: list[str]
    concurrency: int
    clients: int
    #: Calls a second, of all clients.
    rate: float
    mix: str
    #: Seconds between two faults, on average; 0: none.
    every: float
    lease: float
    #: Seconds that the rest gets to end, when there are no more faults.
    drain: float
    directory: Path


class Soak:
    """One test.

    :param say: prints a line.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._mark = uuid.uuid4().hex
        self._queue = f"soak-{self._mark[:8]}"
        self._random = Random(options.seed)
        self._book = options.directory / "ledger"
        self._book.mkdir(parents=True, exist_ok=True)
        self._app = Chervil(
            "soak-judge",
            set_as_current=False,
            broker_url=options.broker,
            result_backend=options.results,
            task_default_queue=self._queue,
        )
        self._proxies: list[Proxy] = []
        self._nodes = [self._node(number) for number in range(options.nodes)]
        self._clients = [self._client(number) for number in range(options.clients)]

    # --- members

    def _environment(self) -> tuple[dict[str, str], Proxy | None]:
        options = self._options
        parts = urlsplit(options.broker)
        proxy = None
        broker, results = options.broker, options.results
        if parts.hostname and parts.port:
            proxy = Proxy(parts.hostname, parts.port)
            self._proxies.append(proxy)
            broker = proxy.url(broker)
            if urlsplit(results).netloc == parts.netloc:
                results = proxy.url(results)
        return {
            "CHERVIL_BROKER_URL": broker,
            "CHERVIL_RESULT_BACKEND": results,
            "CHERVIL_TASK_DEFAULT_QUEUE": self._queue,
            "PYTHONUNBUFFERED": "1",
            DIRECTORY: str(self._book),
            MARK: self._mark,
        }, proxy

    def _node(self, number: int) -> Member:
        options = self._options
        env, proxy = self._environment()
        pool = options.pools[number % len(options.pools)]
        name = f"node{number}-{self._mark[:6]}"
        command = ["-m", "chervil", "-A", f"{_MODULE}.tasks", "worker", "-n", f"{name}@soak"]
        command += ["-P", pool, "-c", str(options.concurrency), "--lease", str(options.lease)]
        return Member(name, command, env, options.directory, proxy)

    def _client(self, number: int) -> Member:
        options = self._options
        env, proxy = self._environment()
        seed, rate = options.seed * 1000 + number, options.rate / options.clients
        how = "async" if number % 2 else "sync"
        name = f"client{number}"
        command = ["-m", f"{_MODULE}.client", str(seed), str(rate), options.mix, how, name]
        return Member(name, command, env, options.directory, proxy)

    # --- the test

    def run(self) -> Verdict:
        """All of it."""
        options = self._options
        ledger = Ledger(str(self._book))
        members = Members([*self._nodes, *self._clients], self._random)
        trouble = Trouble(self._nodes, self._clients, ledger, self._random, options.lease)
        try:
            members.start()
            self._make_trouble(members, trouble)
            trouble.heal()
            for client in self._clients:
                client.terminate()
            for client in self._clients:
                if client.wait(_STOP_SECONDS) is None:
                    members.surprises.append(f"{client.name} did not end")
                    client.signal_group(signal.SIGKILL)
            Members(self._nodes, self._random).all_up()
            members.members = list(self._nodes)
            self._drain(members)
            verdict = self._judge().verdict()
            verdict.other += members.surprises + self._stop_nodes()
        finally:
            self._end_everything()
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(trouble.counts.items()))
        self._say(f"faults: {kinds or 'none'}")
        return verdict

    def _make_trouble(self, members: Members, trouble: Trouble) -> None:
        options = self._options
        end = time.monotonic() + options.seconds
        next_ = time.monotonic() + 1.0  # so that there is something to disturb
        told = time.monotonic()
        while (now := time.monotonic()) < end:
            trouble.tend(now)
            members.tend()
            if options.every and now >= next_:
                next_ = now + self._random.expovariate(1 / options.every)
                trouble.make()
            if now - told >= 60:
                told = now
                self._say(f"{end - now:.0f} s to go; {sum(trouble.counts.values())} faults so far")
            time.sleep(0.02)

    def _drain(self, members: Members) -> None:
        """Until everything has ended, or its time is over."""
        end = time.monotonic() + self._options.drain
        while time.monotonic() < end:
            members.tend()
            done = not self._judge().expected() and not self._waiting()
            if done and all(self._is_ready(node) for node in self._nodes):
                return
            time.sleep(_LOOK_SECONDS)

    def _is_ready(self, node: Member) -> bool:
        try:
            states = ask_all(f"{node.name}@soak", "/ready", 5.0)
        except OSError:
            return False
        return bool(states) and all(state.ready for state in states)

    def _waiting(self) -> int:
        depth = self._app.broker.depths([self._queue]).get(self._queue)
        if depth is None:
            return 0
        return depth.ready + (depth.delayed or 0) + (depth.claimed or 0)

    def _judge(self) -> Judge:
        entries = list(read(str(self._book)))
        ids = {entry.task_id for entry in entries if entry.task_id}
        for entry in entries:
            if entry.what == "want":
                ids.update(entry.others)
        results: dict[str, str] = {}
        wanted = sorted(ids)
        for start in range(0, len(wanted), 500):
            found = self._app.backend.get(wanted[start : start + 500])
            results.update({task_id: outcome.status for task_id, outcome in found.items()})
        dead = {decode_head(letter.head).id: letter.reason for letter in self._dead()}
        breaks = {c.name: c.proxy.breaks for c in self._clients if c.proxy is not None}
        return Judge(entries, results, dead, self._waiting(), breaks)

    def _dead(self) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        after = ""
        while letters := self._app.broker.dead(self._queue, 500, after):
            found.extend(letters)
            after = letters[-1].key
        return found

    def _stop_nodes(self) -> list[str]:
        """Stop them as an operator would; what was wrong with that, in words."""
        wrong = []
        for node in self._nodes:
            node.terminate()
        for node in self._nodes:
            status = node.wait(_STOP_SECONDS)
            if status is None:
                wrong.append(f"{node.name} did not stop within {_STOP_SECONDS:g} s")
            elif status:
                wrong.append(f"{node.name} stopped with {status}")
        end = time.monotonic() + 5
        while (left := leftovers(self._mark)) and time.monotonic() < end:
            time.sleep(0.05)
        wrong += [f"left behind: {pid} {look_at(pid)} ({c})" for pid, c in left.items()]
        return wrong

    def _end_everything(self) -> None:
        for member in [*self._nodes, *self._clients]:
            member.signal_group(signal.SIGCONT)
            member.signal_group(signal.SIGKILL)
        for pid in leftovers(self._mark):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for proxy in self._proxies:
            proxy.close()
        for letter in self._dead():
            self._app.broker.drop([letter.key])
        self._app.broker.purge(self._queue)
        self._app.close()


def soak(say: Callable[[str], None], **given: Any) -> Verdict:
    """Run a test with these options and say how it went."""
    with tempfile.TemporaryDirectory(prefix="chervil-soak-") as scratch:
        given["directory"] = Path(given.get("directory") or scratch)
        if not given["broker"]:
            given["broker"] = f"sqlite:///{given['directory']}/soak.db"
        given["results"] = given["results"] or given["broker"]
        options = Options(**given)
        say(f"seed {options.seed}; {options.nodes} nodes, {options.seconds:g} s; {options.broker}")
        return Soak(options, say).run()
