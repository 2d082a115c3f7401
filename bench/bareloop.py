"""The smallest honest loop over Chervil's storage and codec.

Claim up to 100 messages, decode head and body, call the function, encode the
outcome, write outcomes and acknowledgements in one transaction; again. One
process, no framework: what no worker on this storage can be faster than.

``python -m bench.bareloop COUNT`` with ``BENCH_BROKER`` set fills a queue, runs
the loop over it and prints the tasks per second between 10% and 90%.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from datetime import UTC, datetime

from bench.setup import rate_between
from chervil.drivers.contracts import Action, Broker, Queue, ResultStore, Settlement
from chervil.drivers.registry import open_broker, open_results
from chervil.wire import celery_v2, envelope, outcomes, serializers
from chervil.wire.message import Message, Outcome

BATCH = 100
QUEUE = Queue("celery", exchange="celery", routing_key="celery")


def noop() -> int:
    """What the tasks do."""
    return 1


FUNCTIONS = {"bench.noop": noop}


def fill(broker: Broker, count: int) -> None:
    """Send the no-op task ``count`` times."""
    body = celery_v2.encode_body((), {}, None)
    broker.declare([QUEUE])
    for start in range(0, count, 1000):
        broker.publish([message(body) for _ in range(min(1000, count - start))])


def message(body: celery_v2.Body) -> Message:
    """One call of the no-op task."""
    task_id = str(uuid.uuid4())
    headers = {
        "lang": "py", "task": "bench.noop", "id": task_id, "shadow": None, "eta": None,
        "expires": None, "group": None, "group_index": None, "retries": 0,
        "timelimit": [None, None], "root_id": task_id, "parent_id": None, "argsrepr": "()",
        "kwargsrepr": "{}", "origin": "bare@loop", "ignore_result": False,
    }  # fmt: skip
    return Message(
        headers=headers,
        body=body.data,
        content_type=body.content_type,
        content_encoding=body.content_encoding,
        queue="celery",
        exchange="celery",
        routing_key="celery",
        properties={"correlation_id": task_id, "delivery_mode": 2},
    )


def loop(broker: Broker, store: ResultStore, count: int) -> list[tuple[float, int]]:
    """Run everything that is in the queue; (time, tasks settled) after each batch."""
    if not broker.shares(store):
        raise SystemExit("broker and results are not in one place")
    accept = serializers.accept_types(["json"])
    consumer = broker.consumer([QUEUE], "bare@loop", lease=60.0)
    settlements: list[Settlement] = []
    samples = [(time.perf_counter(), 0)]
    done = 0
    while done < count:
        deliveries = consumer.exchange(settlements, BATCH)
        done += len(settlements)
        samples.append((time.perf_counter(), done))
        settlements = []
        if not deliveries and done < count:
            raise SystemExit(f"only {done} of {count} messages arrived")
        now = datetime.now(UTC)
        date_done, expires = now.isoformat(), now.timestamp() + 86400
        for delivery in deliveries:
            head = envelope.decode_head(delivery.head)
            args, kwargs, _embed = celery_v2.decode_body(
                delivery.body or b"", head.content_type, head.content_encoding, None, accept
            )
            value = FUNCTIONS[head.task](*args, **kwargs)
            payload = outcomes.encode(
                task_id=head.id, status="SUCCESS", result=value, traceback=None,
                date_done=date_done,
            )  # fmt: skip
            outcome = Outcome(head.id, "SUCCESS", payload, expires, head.reply_to or "")
            settlements.append(Settlement(delivery, Action.ACK, outcome=outcome))
    consumer.close()
    return samples


def main() -> None:
    """Fill, run, print."""
    count = int(sys.argv[1])
    url = os.environ["BENCH_BROKER"]
    broker, store = open_broker(url), open_results(url)
    fill(broker, count)
    samples = loop(broker, store, count)
    print(rate_between(samples, count))
    broker.close()
    store.close()


if __name__ == "__main__":
    main()
