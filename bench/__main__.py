"""``python -m bench [CASE...]``: run cases, print a table, write JSON."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from pathlib import Path

import bench.cases  # noqa: F401 - registers the cases
from bench import report
from bench.core import BARE, CASES, Case, Session
from bench.procs import ROOT, pin
from bench.systems import SYSTEMS


def select(names: list[str]) -> list[Case]:
    """The cases of these names, prefixes or patterns; all when none is given."""
    if not names:
        return list(CASES.values())
    chosen: list[Case] = []
    for name in names:
        found = [
            case
            for case in CASES.values()
            if fnmatch.fnmatch(case.name, name) or case.name.startswith(f"{name}.")
        ]
        if not found:
            raise SystemExit(f"There is no case {name!r}; there are: {', '.join(CASES)}")
        chosen.extend(case for case in found if case not in chosen)
    return chosen


def arguments() -> argparse.Namespace:
    """What the command line says."""
    listing = "\n".join(f"  {case.name:20}{case.doc}" for case in CASES.values())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=f"cases:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="name, prefix or pattern")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, run once")
    parser.add_argument("--repeat", type=int, help="runs of each, the median counts (3)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="SYSTEM",
        help=f"measure only this system: {', '.join([*SYSTEMS, BARE])}; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--dir", type=Path, default=ROOT / "bench" / ".run", help="where the databases are made"
    )
    return parser.parse_args()


def main() -> None:
    """Run what was asked for."""
    options = arguments()
    names = {name.lower(): name for name in [*SYSTEMS, BARE]}
    unknown = [name for name in options.only if name.lower() not in names]
    if unknown:
        raise SystemExit(f"There is no system {unknown[0]!r}; there are: {', '.join(names)}")
    pin()
    about = report.machine()
    begin = time.monotonic()

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{time.monotonic() - begin:4.0f} s  {text}", end="", file=sys.stderr)

    session = Session(
        quick=options.quick,
        directory=options.dir.resolve(),
        systems=frozenset(names[name.lower()] for name in options.only),
        repeat=options.repeat or (1 if options.quick else 3),
        say=say,
    )
    try:
        for case in select(options.cases):
            case.run(session)
    except KeyboardInterrupt:
        print("\nInterrupted; this is what was measured:", file=sys.stderr)
    say("")
    report.show(session, about)
    path = report.save(session, about, ROOT / "bench" / "results")
    print(f"{time.monotonic() - begin:.0f} s; also in {path.relative_to(ROOT)}")
    if any(m.errors for m in session.measures.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
