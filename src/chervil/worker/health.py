"""Whether a node is well: asked over a socket, and told to systemd.

A node is *live* while its loops make progress, and *ready* while, besides, the broker
answers and all executors are there. The answer is a small HTTP response, on a Unix
socket that ``chervil health`` finds by the node's name, and on the address of the
setting ``worker_health_address``.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import select
import socket
import tempfile
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from chervil.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from chervil.worker.fleet import Fleet
    from chervil.worker.hub import Hub
    from chervil.worker.keeper import Keeper

logger = logging.getLogger("chervil.worker")
#: A loop that has not come round for so many seconds is stuck: no call to a broker
#: may take that long.
STUCK_SECONDS = 30.0
#: Seconds that somebody who asks gets to say what.
_ASK_SECONDS = 1.0


class Health(msgspec.Struct):
    """The answer."""

    node: str
    pid: int
    live: bool
    ready: bool
    #: What is wrong, in words.
    problems: list[str]
    #: The same for nodes on the same broker; see :func:`mark_of`.
    broker: str = ""


class Pulse:
    """What a node's parts show of how they are.

    :param hub: None while the node tries to reach its broker.
    :param busy: the hub itself is at a task (``solo``), which takes what it takes.
    """

    def __init__(self, hub: Hub | None, keeper: Keeper | None, fleet: Fleet, busy: bool) -> None:
        self._hub, self._keeper, self._fleet, self._busy = hub, keeper, fleet, busy

    def stuck(self) -> list[str]:
        """Loops that make no progress."""
        found = []
        beats = {}
        if self._hub is not None and not self._busy:
            beats["hub"] = self._hub.beat
        if self._keeper is not None and self._keeper.running:
            beats["keeper"] = self._keeper.beat
        for name, beat in beats.items():
            seconds = monotonic() - beat
            if seconds > STUCK_SECONDS:
                found.append(f"the {name} has made no progress for {seconds:.0f} s")
        return found

    def missing(self) -> list[str]:
        """What it takes to run tasks and is not there."""
        found = []
        if self._hub is None or self._keeper is None:
            found.append("the broker has not been reached yet")
        elif not (self._hub.reachable and self._keeper.renewed):
            found.append("the broker does not answer")
        if count := self._fleet.missing():
            found.append(f"{count} executors are missing")
        return found

    def health(self, hostname: str, broker: str, *, stopping: bool) -> Health:
        """What is answered.

        :param broker: its URL.
        """
        stuck, missing = self.stuck(), self.missing()
        if stopping:
            missing.append("it is stopping")
        live = not stuck
        ready = live and not missing
        return Health(hostname, os.getpid(), live, ready, stuck + missing, mark_of(broker))


def mark_of(url: str) -> str:
    """Says whether two brokers are the same, and nothing of user and password."""
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def _folder() -> str:
    """Where the nodes of this user, on this machine, answer."""
    return os.path.join(tempfile.gettempdir(), f"chervil-{os.getuid()}")


def _prefix(hostname: str) -> str:
    return hashlib.sha256(hostname.encode()).hexdigest()[:16] + "."


def notify(text: str) -> None:
    """Tell systemd, where it started this process and wants to know (``Type=notify``).

    The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(text.encode(), address.replace("@", "\0", 1))
        except OSError as exc:
            logger.warning("systemd cannot be told %r: %s", text, exc)


def watchdog_seconds() -> float:
    """How often systemd wants to hear ``WATCHDOG=1``; 0: never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    digits = os.environ.get("WATCHDOG_USEC", "")
    return int(digits) / 1e6 if digits.isdigit() else 0.0


class Responder:
    """A thread that answers, and feeds systemd's watchdog while the node is live.

    :param look: finds out how the node is.
    :param address: ``host:port`` to answer on besides the Unix socket; empty: none.
    :raises ImproperlyConfigured: nobody can listen on that address.
    """

    def __init__(self, hostname: str, look: Callable[[], Health], address: str = "") -> None:
        self._hostname = hostname
        self._look = look
        self._listening: list[socket.socket] = []
        # One for each process, so that two nodes of one name do not take it from each other.
        self._path = os.path.join(_folder(), f"{_prefix(hostname)}{os.getpid()}")
        self._bound = False
        #: Held while this thread is at work; whoever forks takes it.
        self.lock = threading.Lock()
        self._watchdog = watchdog_seconds() / 2
        self._stop_out, self._stop_in = socket.socketpair()
        if address:
            self._listen_at(address)
        self._listen_here()
        self._thread = threading.Thread(target=self._run, name="chervil-health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._stop_in.send(b"!")
        if self._thread.ident is not None:
            self._thread.join()
        for end in (*self._listening, self._stop_in, self._stop_out):
            end.close()
        if self._bound:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            with contextlib.suppress(OSError):  # other nodes answer there
                os.rmdir(os.path.dirname(self._path))

    # --- listening

    def _listen_at(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            listening = socket.create_server((host.strip("[]"), int(port)))
        except (OSError, ValueError) as exc:
            raise ImproperlyConfigured(
                f"worker_health_address={address!r}: {exc}; give host:port"
            ) from exc
        self._listening.append(listening)

    def _listen_here(self) -> None:
        folder = os.path.dirname(self._path)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if os.stat(folder).st_uid != os.getuid():
                raise PermissionError(f"{folder} belongs to somebody else")
            self._expect_nobody()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listening.append(listening)
            listening.bind(self._path)
            self._bound = True
            listening.listen(16)
        except OSError as exc:
            logger.warning("`chervil health` cannot ask this node: %s", exc)

    def _expect_nobody(self) -> None:
        """Warn where a node of the same name is running here."""
        try:
            states = ask_all(self._hostname, "/live", 1.0)
        except OSError:
            return
        mine = self._look().broker
        same = [state for state in states if state.broker == mine]
        if same:
            logger.warning(
                "A node named %s is running here already (process %d). Both work, but logs, "
                "inspection and control cannot tell them apart: give each a name of its own, such "
                "as -n second@%%h",
                self._hostname,
                same[0].pid,
            )
        elif states:
            logger.info(
                "Another application has a node named %s here (process %d): `chervil health` "
                "asks both. -n gives this one a name of its own",
                self._hostname,
                states[0].pid,
            )

    # --- the thread

    def _run(self) -> None:
        poller = select.poll()
        by_number = {end.fileno(): end for end in self._listening}
        for number in (*by_number, self._stop_out.fileno()):
            poller.register(number, select.POLLIN)
        due = monotonic()
        while True:
            wait = None
            if self._watchdog:
                if monotonic() >= due:
                    due = monotonic() + self._watchdog
                    self._feed()
                wait = max(0.0, due - monotonic()) * 1000
            for number, _ in poller.poll(wait):
                if number == self._stop_out.fileno():
                    return
                self._answer(by_number[number])

    def _feed(self) -> None:
        with self.lock:
            if self._look().live:
                notify("WATCHDOG=1")

    def _answer(self, listening: socket.socket) -> None:
        try:
            asking, _ = listening.accept()
        except OSError:
            return
        with asking, contextlib.suppress(OSError, IndexError):
            asking.settimeout(_ASK_SECONDS)
            path = asking.recv(4096).split()[1].partition(b"?")[0]
            with self.lock:
                state = self._look()
            fine = state.live if path == b"/live" else state.live and state.ready
            body = msgspec.json.encode(state) + b"\n"
            asking.sendall(
                b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                b"Cache-Control: no-store\r\nConnection: close\r\n\r\n%s"
                % (b"200 OK" if fine else b"503 Service Unavailable", len(body), body)
            )


def ask_all(hostname: str, question: str, timeout: float) -> list[Health]:
    """How the nodes of that name are, of this user on this machine; none where there are none.

    :param question: ``/live`` or ``/ready``.
    :param timeout: seconds for each.
    :raises OSError: one is there and does not answer.
    """
    folder, prefix = _folder(), _prefix(hostname)
    try:
        names = sorted(name for name in os.listdir(folder) if name.startswith(prefix))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        path = os.path.join(folder, name)
        try:
            found.append(_ask(path, question, timeout))
        except FileNotFoundError:
            pass  # it ended just now
        except ConnectionRefusedError:  # it was killed
            with contextlib.suppress(OSError):
                os.unlink(path)
    return found


def _ask(path: str, question: str, timeout: float) -> Health:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(timeout)
        asking.connect(path)
        asking.sendall(f"GET {question} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while data := asking.recv(65536):
            answer += data
    body = answer.partition(b"\r\n\r\n")[2]
    try:
        return msgspec.json.decode(body, type=Health)
    except msgspec.DecodeError as exc:
        raise ConnectionError(f"the answer of {path} cannot be read: {exc}") from exc
