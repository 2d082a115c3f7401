"""The life of an executor process, from the fork to its end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING

import msgspec

from chervil import signals
from chervil.log import get_logger, redirect_stdouts, set_process_name
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


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """The hub decides when an executor ends."""


def run_executor(plan: Plan, index: int, control: socket.socket) -> int:
    """Serve as executor until the run queue ends; the exit code of the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        # Not SIG_IGN, which programs that a task starts would inherit.
        signal.signal(number, _ignore)
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
    conf = plan.app.conf
    set_process_name(f"{plan.pool}-{index}")
    if conf.worker_redirect_stdouts:
        redirect_stdouts(get_logger("chervil.redirected"), conf.worker_redirect_stdouts_level)
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
