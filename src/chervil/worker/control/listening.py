"""The thread that listens to remote control.

It reads the node's mailbox, does what it is told, and answers. Lost connections are its
own trouble: tasks are claimed and settled elsewhere.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import select
import socket
import threading
from collections.abc import Mapping
from typing import Any

from chervil.backoff import Backoff
from chervil.drivers.contracts import Fanout, Mailbox
from chervil.exceptions import DecodeError, EncodeError, OperationalError
from chervil.wire.notes import Note
from chervil.wire.saferepr import saferepr
from chervil.wire.serializers import accept_types
from chervil.worker.control import builtin as _builtin  # the commands
from chervil.worker.control.registry import Panel
from chervil.worker.control.state import NoReply, State
from chervil.worker.control.tasks import learn

logger = logging.getLogger("chervil.worker")
#: Seconds that a node waits at its start until it can be reached.
_START_SECONDS = 2.0
#: Entries that are read of what the broker remembers, to find the stamps among them.
_REMEMBERED = 100_000
_ = _builtin


class Listening:
    """Remote control of one node."""

    def __init__(self, state: State, fanout: Fanout) -> None:
        self._state = state
        self._fanout = fanout
        conf = state.app.conf
        self._exchange = f"{conf.control_exchange}.pidbox"
        self._accept = accept_types([*conf.accept_content, "json"])
        self._stop = threading.Event()
        self._subscribed = threading.Event()
        self._out, self._in = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="chervil-control", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait a little until the node can be reached."""
        self._thread.start()
        self._subscribed.wait(_START_SECONDS)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stop.set()
        self._state.closing = True
        self._in.send(b"!")
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._in.close()
        self._out.close()

    # --- the thread

    def _run(self) -> None:
        backoff = Backoff(base=0.1, cap=10.0)
        level = logging.WARNING
        while not self._stop.is_set():
            mailbox = None
            try:
                with self._state.lock:
                    self._remember()
                    mailbox = self._fanout.subscribe(self._exchange, self._state.hostname)
                if self._subscribed.is_set():
                    logger.info("Remote control is back")
                self._subscribed.set()
                backoff.reset()
                level = logging.WARNING
                self._serve(mailbox)
            except OperationalError as exc:
                wait = backoff.next()
                logger.log(level, "Remote control is away: %s; tried again in %.1f s", exc, wait)
                level = logging.DEBUG  # it was said
                self._stop.wait(wait)
            except Exception:
                logger.exception("Remote control failed and is started again")
                self._stop.wait(backoff.next())
            finally:
                if mailbox is not None:
                    with self._state.lock:
                        mailbox.close()

    def _remember(self) -> None:
        """Learn what was revoked before this node listened.

        What ours revoke is in the broker. What Celery's clients do only the nodes know
        that heard of it: they are asked as Celery's own are that start (mingle), before
        this one listens, so that it need not answer itself.
        """
        state, app = self._state, self._state.app
        known = app.broker.revoked(_REMEMBERED)
        state.revocations.load(known)
        request = {"from_node": state.hostname, "revoked": []}
        replies, _ = app.control.ask("hello", request)
        learn(state, replies, known)

    def _serve(self, mailbox: Mailbox) -> None:
        poll = select.poll()
        poll.register(mailbox.fileno(), select.POLLIN)
        poll.register(self._out, select.POLLIN)
        while not self._stop.is_set():
            with self._state.lock:
                for note in mailbox.receive():
                    try:
                        self._handle(note)
                    except Exception:  # the others are for somebody, too
                        logger.exception("A request by remote control failed")
            poll.poll()

    # --- one request

    def _handle(self, note: Note) -> None:
        state = self._state
        try:
            request = note.value(self._accept)
            if not isinstance(request, dict):
                raise DecodeError(f"a request is a map, this is {saferepr(request, 80)}")
        except DecodeError as exc:
            logger.error("A request by remote control cannot be read: %s", exc)
            return
        clock = note.headers.get("clock")
        state.tick(clock if isinstance(clock, int) else 0)
        try:
            if not _is_for(state.hostname, request):
                return
            state.stored = bool(note.headers.get("stored"))
            answer = self._perform(request)
        except NoReply:
            return
        to = request.get("reply_to")
        if isinstance(to, dict):
            self._reply(to, request.get("ticket"), answer, note.content_type)

    def _perform(self, request: Mapping[str, Any]) -> Any:
        method, arguments = request.get("method"), request.get("arguments")
        logger.debug("Remote control: %s(%s)", method, saferepr(arguments, 200))
        try:
            if not isinstance(method, str) or method not in Panel.commands:
                raise KeyError(method)
            kwargs = arguments if isinstance(arguments, dict) else {}
            return Panel.commands[method].handler(self._state, **kwargs)
        except NoReply:
            raise
        except BaseException as exc:  # whatever a command of the application's does
            logger.warning("Remote control: %s: %r", saferepr(method, 80), exc)
            return {"error": repr(exc)}

    def _reply(self, to: Mapping[str, Any], ticket: Any, answer: Any, content_type: str) -> None:
        exchange, key = to.get("exchange"), to.get("routing_key")
        if not isinstance(exchange, str) or not isinstance(key, str):
            return
        headers = {"ticket": ticket, "clock": self._state.tick()}
        name = self._state.hostname
        try:
            note = Note.of({name: answer}, content_type, **headers)
        except EncodeError:
            note = Note.of({name: _plain(answer)}, content_type, **headers)
        self._fanout.reply(exchange, key, note)


def _is_for(hostname: str, request: Mapping[str, Any]) -> bool:
    """Whether a request is for this node (source: celery/kombu ``kombu/pidbox.py``)."""
    destination = request.get("destination")
    if destination:
        return destination == hostname or (
            isinstance(destination, list) and hostname in destination
        )
    pattern, matcher = request.get("pattern"), request.get("matcher")
    if not pattern or not matcher:
        return True
    if matcher == "pcre":
        try:
            return re.match(pattern, hostname) is not None
        except (re.error, TypeError):
            return False
    return fnmatch.fnmatchcase(hostname, str(pattern))


def _plain(value: Any) -> Any:
    """With what cannot be serialized replaced by a text that shows it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return saferepr(value, 500)
