"""What goes wrong in a soak test: one fault after the other, from a seed."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random

from chervil.testing.faults import processes
from chervil.testing.faults.proxy import Proxy
from chervil.testing.soak.ledger import STOP_EXECUTOR, Ledger
from chervil.testing.soak.processes import Member

#: Kinds of faults and their shares; those of connections need a broker that has some.
_KILLS = {"executor": 40, "executors": 8, "fork server": 10, "hub": 12, "node": 10, "client": 15}
_STOPS = {"stop node": 4, STOP_EXECUTOR: 4}
_CUTS = {"cut": 20, "half close": 6, "cut reply": 12, "cut request": 6, "delay": 4, "freeze": 4}
#: Longest stop of a node, in leases: now and then its claims go to others.
_LONGEST_STOP = 1.6


class Trouble:
    """Makes faults and writes them down.

    :param lease: of the nodes, in seconds.
    """

    def __init__(
        self,
        nodes: Sequence[Member],
        clients: Sequence[Member],
        ledger: Ledger,
        random: Random,
        lease: float,
    ) -> None:
        self._nodes, self._clients = nodes, clients
        self._ledger, self._random, self._lease = ledger, random, lease
        self._kinds = {**_KILLS, **_STOPS}
        if nodes[0].proxy is not None:
            self._kinds.update(_CUTS)
        self.counts: Counter[str] = Counter()
        #: What ends a fault that lasts: (monotonic seconds, what to do).
        self._later: list[tuple[float, Callable[[], None]]] = []

    def make(self) -> None:
        """One fault."""
        random = self._random
        kind = random.choices(list(self._kinds), list(self._kinds.values()))[0]
        # All random choices are made here, whatever is alive at the moment, so that the
        # same seed makes the same sequence.
        node, client = random.choice(self._nodes), random.choice(self._clients)
        part, size = random.random(), random.random()
        if kind in _CUTS:
            target = client if random.random() < 0.3 else node
            done = target.proxy is not None and self._cut(kind, target, target.proxy, part, size)
        elif kind == "client":
            done = self._kill_client(client)
        else:
            # Asked for once: it may end at any moment, and 0 is the group of whoever asks.
            pid = node.pid
            done = bool(pid) and self._kill(kind, node, pid, part, size)
        if done:
            self.counts[kind] += 1

    def tend(self, now: float) -> None:
        """End the faults whose time is over."""
        for entry in [entry for entry in self._later if entry[0] <= now]:
            self._later.remove(entry)
            entry[1]()

    def heal(self) -> None:
        """End all faults that last."""
        self.tend(float("inf"))

    # --- processes

    @contextlib.contextmanager
    def _noted(
        self, kind: str, member: Member, pids: set[int] | None = None, seconds: float = 0
    ) -> Iterator[None]:
        """What is done in the block is a fault that lasts so long after it.

        This process may be kept waiting in between, so both ends of it are written down.
        """
        began = time.monotonic()
        yield
        self._ledger.write(
            "fault",
            name=kind,
            at=began,
            node=member.name,
            others=tuple(map(str, pids)) if pids is not None else ("all",),
            until=time.monotonic() + seconds,
        )

    def _kill_client(self, client: Member) -> bool:
        if not client.pid:
            return False
        client.expected = True
        client.signal_group(signal.SIGKILL)
        return True

    def _kill(self, kind: str, node: Member, pid: int, part: float, size: float) -> bool:
        if kind == "hub":
            node.expected = True
            with self._noted(kind, node):
                processes.kill(pid)
        elif kind == "node":
            node.expected = True
            with self._noted(kind, node):
                node.signal_group(signal.SIGKILL)
        elif kind == "fork server":
            server = processes.fork_server(pid)
            if not server:
                return False
            with self._noted(kind, node):
                processes.kill(server)
        elif kind == "stop node":
            self._stop_node(node, pid, self._lease * _LONGEST_STOP * size)
        else:
            return self._kill_executors(kind, node, pid, part, size)
        return True

    def _kill_executors(self, kind: str, node: Member, pid: int, part: float, size: float) -> bool:
        found = sorted(processes.executors(pid))
        if not found:
            return False
        if kind == "executors":
            with self._noted(kind, node, set(found)):
                processes.kill(*found)
            return True
        one = found[int(part * len(found))]
        if kind == "executor":
            with self._noted(kind, node, {one}):
                processes.kill(one)
        else:
            with self._noted(STOP_EXECUTOR, node, {one}, 3 * size):
                processes.send([one], signal.SIGSTOP)
            until = time.monotonic() + 3 * size
            self._later.append((until, lambda: processes.resume(one)))
        return True

    def _stop_node(self, node: Member, group: int, seconds: float) -> None:
        # It may be killed while it is stopped; then the rest is to go on.
        with self._noted("stop node", node, None, seconds):
            processes.send_group(group, signal.SIGSTOP)
        until = time.monotonic() + seconds
        self._later.append((until, lambda: processes.send_group(group, signal.SIGCONT)))

    # --- connections

    def _cut(self, kind: str, member: Member, proxy: Proxy, part: float, size: float) -> bool:
        # Most replies are short; now and then it hits a long one.
        after = int(size * 64 if part < 0.7 else size * 4096)
        if kind == "cut":
            proxy.cut()
        elif kind == "half close":
            proxy.half_close(to_client=part < 0.5)
        elif kind == "cut reply":
            proxy.cut_reply(after)
        elif kind == "cut request":
            proxy.cut_request(after)
        elif kind == "delay":
            proxy.delay = 0.3 * part
            self._later.append((time.monotonic() + 3 * size, lambda: _reset(proxy)))
        else:
            seconds = self._lease * _LONGEST_STOP * size
            with self._noted(kind, member, None, seconds):
                proxy.frozen = True
            self._later.append((time.monotonic() + seconds, lambda: _reset(proxy)))
        return True


def _reset(proxy: Proxy) -> None:
    proxy.delay, proxy.frozen = 0.0, False
