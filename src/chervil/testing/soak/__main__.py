"""The command line of the soak test."""

from __future__ import annotations

import random
import sys
from typing import Any

import click

from chervil.testing.soak.mix import KINDS
from chervil.testing.soak.run import soak


@click.command()
@click.option("--broker", default="", help="URL of the broker [default: a new SQLite file].")
@click.option("--results", default="", help="URL of the result store [default: the broker's].")
@click.option("--seconds", default=60.0, show_default=True, help="How long faults are made.")
@click.option("--seed", type=int, help="Repeats the same calls and faults [default: random].")
@click.option("--nodes", default=4, show_default=True, help="How many worker nodes.")
@click.option(
    "--pools", default="prefork,prefork,threads,asyncio", show_default=True, help="Of the nodes."
)
@click.option("--concurrency", default=3, show_default=True, help="Slots of each node.")
@click.option("--clients", default=3, show_default=True, help="How many processes send.")
@click.option("--rate", default=60.0, show_default=True, help="Calls a second, of all clients.")
@click.option("--mix", default="", help=f"name=share,... of: {', '.join(KINDS)} [default: all].")
@click.option("--every", default=1.0, show_default=True, help="Seconds between faults; 0: none.")
@click.option("--lease", default=5.0, show_default=True, help="Seconds, of each node.")
@click.option("--drain", default=60.0, show_default=True, help="Seconds that the rest gets.")
@click.option("--directory", default="", help="Keep ledger and logs here.")
def main(seed: int | None, pools: str, **options: Any) -> None:
    """Run tasks of all kinds while processes are killed and connections are cut.

    Exit code 0: nothing was lost, stuck, or run again without a cause.
    """
    verdict = soak(
        click.echo,
        seed=random.randrange(10**6) if seed is None else seed,
        pools=pools.split(","),
        **options,
    )
    for line in verdict.lines():
        click.echo(line)
    failures = verdict.failures()
    for failure in failures:
        click.echo(f"WRONG: {failure}", err=True)
    click.echo("NOT PASSED" if failures else "passed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
