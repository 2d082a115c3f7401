"""The life of an executor process, from the fork to its end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import msgspec

from chervil import signals
from chervil.pools import pool_function
from chervil.pools.channel import Channel
from chervil.pools.page import Page
from chervil.pools.runner import Runner
from chervil.pools.seat import Seat

if TYPE_CHECKING:
    from chervil.app import Chervil

logger = logging.getLogger("chervil.worker")


class Plan(msgspec.Struct):
    """What all executors of a node have in common."""

    app: Chervil
    hostname: str
    pool: str
    slots: int
    channel: Channel
    page: Page
    max_tasks: int = 0
    max_memory: int = 0


def run_executor(plan: Plan, index: int, control: socket.socket) -> int:
    """Serve as executor until the run queue ends; the exit code of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seat = Seat(
        index,
        plan.slots,
        plan.channel,
        plan.page,
        Runner(plan.app, plan.hostname, plan.channel.report),
        control,
        plan.max_tasks,
        plan.max_memory,
    )
    signals.worker_process_init.send(sender=None)
    try:
        pool_function(plan.pool)(seat)
    except (BrokenPipeError, ConnectionResetError):
        logger.debug("the hub has gone")
    except SystemExit:
        pass  # asked to leave while it waited
    except BaseException:
        logger.critical("executor %d failed", index, exc_info=True)
        return 1
    finally:
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=0)
        plan.app.close()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    return 0
