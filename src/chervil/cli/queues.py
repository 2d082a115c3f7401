"""``chervil queues``: what waits in the queues."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from chervil.cli.access import broker_of, expect_database, expect_queues, queue_names
from chervil.cli.output import duration, print_json, print_table
from chervil.cli.params import COMMA_LIST
from chervil.cli.session import ChervilCommand, Session, pass_session
from chervil.settings.masking import mask_url

if TYPE_CHECKING:
    from chervil.drivers.contracts import Depth

_HELP = """Show what is in the queues.

\b
  chervil -A hello queues
  chervil -b sqlite:///chervil.db queues --json

\b
  ready    can be started at once
  delayed  not due yet (countdown, eta, retries)
  claimed  with a worker: running, or about to
  dead     could not be run; see 'chervil dead list'
  oldest   how long the first ready one has waited

A question mark: the broker does not tell.
"""
COLUMNS = ("queue", "ready", "delayed", "claimed", "dead", "oldest")


@click.command("queues", cls=ChervilCommand, help=_HELP)
@click.option("-Q", "--queues", "names", type=COMMA_LIST, metavar="A,B", help="Only these queues.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; 'oldest' is in seconds.")
@click.option("--watch", is_flag=True, help="Print again every second, until Ctrl-C.")
@pass_session
def command(session: Session, /, names: list[str] | None, as_json: bool, watch: bool) -> None:
    app = session.app()
    expect_database(session, app.conf.broker_url, app.conf.broker_transport_options)
    broker = broker_of(app)
    if names:
        expect_queues(app, names)
    while True:
        depths = dict(broker.depths(names))
        missing = [name for name in names or queue_names(app) if name not in depths]
        depths |= broker.depths(missing)
        if watch and not as_json:
            click.clear()
        _show(session, depths, as_json, f"Queues of {mask_url(app.conf.broker_url)}")
        if not watch:
            return
        time.sleep(1.0)


def _told(count: int | None) -> str:
    return "?" if count is None else str(count)


def _age(depth: Depth) -> str:
    if depth.oldest is None:
        return "?"
    return duration(depth.oldest) if depth.ready else "-"


def _show(session: Session, depths: Mapping[str, Depth], as_json: bool, title: str) -> None:
    if as_json:
        print_json(
            {
                name: {
                    "ready": depth.ready,
                    "delayed": depth.delayed,
                    "claimed": depth.claimed,
                    "dead": depth.dead,
                    "oldest": None if depth.oldest is None else round(depth.oldest, 3),
                }
                for name, depth in sorted(depths.items())
            }
        )
        return
    rows = [
        [
            name,
            *map(_told, (depth.ready, depth.delayed, depth.claimed, depth.dead)),
            _age(depth),
        ]
        for name, depth in sorted(depths.items())
    ]
    print_table(session, COLUMNS, rows, title, right=COLUMNS[1:], alarm=("dead",))
