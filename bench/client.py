"""A client process of a measured system: ``python -m bench.client SYSTEM ACTION ...``.

Prints what it found as one line of JSON.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from types import FrameType
from typing import Any

from bench.systems import load


def fill(client: Any, count: int) -> dict[str, float]:
    """Send the no-op task many times, the fastest way there is."""
    begin = time.perf_counter()
    client.send_many(count)
    return {"rate": count / (time.perf_counter() - begin)}


def bulk(client: Any, count: int) -> dict[str, float]:
    """The same, warmed up: tasks per second."""
    client.send_many(max(count // 20, 1))
    return fill(client, count)


def enqueue(client: Any, count: int) -> dict[str, float]:
    """Send one task at a time: tasks per second."""
    send = client.send
    for _ in range(max(count // 20, 1)):
        send()
    begin = time.perf_counter()
    for _ in range(count):
        send()
    return {"rate": count / (time.perf_counter() - begin)}


def latency(client: Any, count: int) -> dict[str, float]:
    """Send, wait for the result, again: milliseconds."""
    send, wait = client.send, client.wait
    for _ in range(min(count // 10 + 1, 100)):
        wait(send())
    gc.collect()
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        wait(send())
        times.append(time.perf_counter() - begin)
    times.sort()
    return {
        "median": times[count // 2] * 1e3,
        "p99": times[min(count - 1, int(count * 0.99))] * 1e3,
        "max": times[-1] * 1e3,
    }


def stamp(client: Any, count: int) -> dict[str, float]:
    """Send the task that writes down when it runs."""
    for _ in range(count):
        client.stamp()
    return {}


def frames(client: Any, count: int) -> dict[str, float]:
    """Frames around user code; every process of the worker has to answer twice."""
    found = [client.wait(client.frames()) for _ in range(count)]
    return {"all": max(f[0] for f in found), "each": min(f[1] for f in found)}


def naps(client: Any, count: int) -> dict[str, float]:
    """2,000 tasks that sleep 10 ms: seconds from the first begin to the last end."""
    client.naps(20, 0.001)
    sent = time.monotonic()
    found = client.naps(count, 0.010)
    read = time.monotonic()
    span = max(f[1] for f in found) - min(f[0] for f in found)
    return {"span": span, "whole": read - sent}


def calls(client: Any, count: int) -> dict[str, float]:
    """Python and C calls of one send, and the deepest stack of the system's own frames."""
    for _ in range(200):
        client.send()
    python = c = deepest = 0
    own = f"/{client.own_package}/"

    def profile(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal python, c, deepest
        if event == "c_call":
            c += 1
        elif event == "call":
            python += 1
            depth = 0
            at: FrameType | None = frame
            while at is not None:
                depth += own in at.f_code.co_filename
                at = at.f_back
            deepest = max(deepest, depth)

    gc.disable()
    sys.setprofile(profile)
    for _ in range(count):
        client.send()
    sys.setprofile(None)
    # The last c_call is sys.setprofile itself.
    return {"python": python / count, "c": (c - 1) / count, "frames": deepest}


ACTIONS = {f.__name__: f for f in (fill, bulk, enqueue, latency, stamp, frames, naps, calls)}


def main() -> None:
    """Do one action and print what it found."""
    system, action, count = sys.argv[1:4]
    client = load(system).Client()
    print(json.dumps(ACTIONS[action](client, int(count))))


if __name__ == "__main__":
    main()
