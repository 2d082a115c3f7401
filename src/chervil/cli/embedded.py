"""``chervil worker -B``: a beat beside a worker, in a process of its own.

The hub must not be slowed by it, and its fork server must be forked before there are
threads: so the beat is forked before the node starts. Only where everything is in one
process anyway (``memory://``) it is a thread.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from chervil.beat import Service
from chervil.cli.reload import die_with_parent
from chervil.log import set_process_name

if TYPE_CHECKING:
    from chervil.app import Chervil

logger = logging.getLogger("chervil.beat")
#: Seconds that it gets to stop.
_PATIENCE = 5.0


class EmbeddedBeat:
    """Starts and stops it.

    :param scheduler: class of the scheduler, ``module:name``; None: the setting.
    :raises ImproperlyConfigured: there is no such class, or an entry is wrong.
    """

    def __init__(self, app: Chervil, scheduler: str | None = None) -> None:
        self._app = app
        self._service = Service(app, None, None, scheduler)
        self._service.scheduler.setup_schedule()
        app.coordinator  # noqa: B018 - what is wrong with it shows before the node starts
        self._pid = 0
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> None:
        """Fork it; before this process has threads or connections."""
        if not self._app.broker.features.shared:
            return  # see watch()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid:
            return
        status = 1
        try:
            die_with_parent()
            set_process_name("beat")
            service = Service(self._app, None, None, type(self._service.scheduler))
            if sys.platform != "linux":  # where the kernel does not tell
                threading.Thread(target=_follow, args=(parent, service), daemon=True).start()
            if os.getppid() == parent:
                service.run(embedded=True)
            status = 0
        except BaseException:
            logger.exception("The beat of this worker has failed")
        finally:
            os._exit(status)  # the clean-up of the worker is not ours

    def watch(self) -> None:
        """When the node is ready: look after it from a thread."""
        work = self._wait if self._pid else self._serve
        self._thread = threading.Thread(target=work, name="chervil-beat", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._service.run(embedded=True)
        except Exception:
            logger.exception("The beat of this worker has failed")

    def _wait(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        if status and not self._stopping:  # Ctrl-C ends it properly, too
            logger.error(
                "The beat of this worker has ended (status %d); others, or a new start of the "
                "worker, send the periodic tasks",
                os.waitstatus_to_exitcode(status),
            )

    def stop(self) -> None:
        """End it; a beat that does not end in time is killed."""
        self._stopping = True
        if not self._pid:
            self._service.stop()
        elif self._thread is None:  # the node did not get ready
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)
            return
        elif self._thread.is_alive():
            os.kill(self._pid, signal.SIGTERM)
        if self._thread is None:
            return
        self._thread.join(_PATIENCE)
        if self._thread.is_alive() and self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._thread.join(_PATIENCE)


def _follow(parent: int, service: Service) -> None:
    while os.getppid() == parent:
        threading.Event().wait(1.0)
    service.stop()
