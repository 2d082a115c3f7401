"""What the conformance suites of brokers and result stores have in common."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from chervil.drivers.contracts import (
    Broker,
    Consumer,
    Delivery,
    Depth,
    Queue,
    ResultStore,
)
from chervil.drivers.registry import open_broker, open_results
from chervil.ids import new_id
from chervil.wire.envelope import decode_head
from chervil.wire.message import Message

#: Seconds that anything may take that should happen at once.
PATIENCE = 10.0


def make_message(queue: str, body: bytes = b"[[], {}, {}]", **fields: Any) -> Message:
    """A message as a client makes them; ``task_id`` chooses the id."""
    task_id = fields.pop("task_id", None) or new_id()
    return Message(
        headers={"lang": "py", "task": "conformance.task", "id": task_id},
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        queue=queue,
        **fields,
    )


def id_of(delivery: Delivery) -> str:
    """The task id of a delivery."""
    return decode_head(delivery.head).id


def ids_of(deliveries: Sequence[Delivery]) -> list[str]:
    """The task ids of deliveries, in their order."""
    return [id_of(delivery) for delivery in deliveries]


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """The first true value of a condition; fails the test when there is none in time."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {patience:g} s")
        time.sleep(0.005)
    return found


def claim(consumer: Consumer, count: int, patience: float = PATIENCE) -> list[Delivery]:
    """Claim until there are ``count`` deliveries."""
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(consumer.exchange((), count - len(found)))
        return len(found) >= count

    wait_for(enough, f"{count} messages", patience)
    return found


def next_due(consumer: Consumer) -> float | None:
    """What it knows when it has looked at what it was told of, as a hub does.

    What tells of a message may arrive after the call that stored it has returned.
    """
    if consumer.drain():
        assert not consumer.exchange((), 10)
    return consumer.next_due()


def is_readable(consumer: Consumer, timeout: float = 0.0) -> bool:
    """Whether the consumer's descriptor is, within that many seconds."""
    poll = select.poll()
    poll.register(consumer.fileno(), select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def holds(broker: Broker, queue: str, expected: Depth) -> None:
    """Fail unless a queue holds that, as far as the broker tells."""
    found = broker.depths([queue])[queue]
    for field in Depth.__struct_fields__:
        told = getattr(found, field)
        if told is not None and field != "oldest":
            assert (field, told) == (field, getattr(expected, field)), f"{queue}: {found}"


@contextmanager
def other_process(code: str, **values: Any) -> Iterator[subprocess.Popen[str]]:
    """Run code in a new interpreter, with these values as variables; killed at the end."""
    prelude = (
        "import json, sys, time\n"
        "from chervil.drivers.contracts import *\n"
        "from chervil.drivers.registry import open_broker, open_results\n"
        "from chervil.testing.brokers import make_message\n"
        "from chervil.wire.message import Outcome\n"
        "globals().update(json.loads(sys.argv[1]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", prelude + code, json.dumps(values)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def in_fork(work: Callable[[], object]) -> int:
    """Run something in a forked child; its exit status."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn when there are threads, which is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


#: Starts a consumer: ``consume(*queues, lease=60.0)``.
Consume = Callable[..., Consumer]


class BrokerHarness:
    """Fixtures for tests of one broker; subclasses define ``broker_url``."""

    #: Seconds of a lease that a test lets run out.
    short_lease = 0.3
    #: Seconds of the lease of a process that is killed, and in which its claims
    #: must be back with the others.
    crash_lease = 1.0
    crash_patience = 5.0

    def take_back(self, consumer: Consumer, count: int, patience: float = PATIENCE) -> None:
        """Have a consumer take back so many claims of others that died.

        For brokers that give them back by themselves this is overridden."""
        assert wait_for(consumer.recover, "the claims come back", patience) == count

    @pytest.fixture
    def broker_url(self) -> str:
        raise NotImplementedError("define the fixture broker_url")

    @pytest.fixture
    def broker_options(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def queue(self) -> str:
        return f"queue-{new_id()}"

    @pytest.fixture
    def open_more(
        self, broker_url: str, broker_options: Mapping[str, Any]
    ) -> Iterator[Callable[[], Broker]]:
        """Open the same broker again."""
        brokers: list[Broker] = []

        def make() -> Broker:
            brokers.append(open_broker(broker_url, broker_options))
            return brokers[-1]

        yield make
        for broker in brokers:
            broker.close()

    @pytest.fixture
    def broker(self, open_more: Callable[[], Broker]) -> Broker:
        return open_more()

    @pytest.fixture
    def consume(self, broker: Broker, queue: str) -> Iterator[Consume]:
        """Start consumers that are closed at the end: ``consume(*queues, lease=10)``."""
        consumers: list[Consumer] = []

        def start(*queues: str, lease: float = 60.0) -> Consumer:
            wanted = [Queue(name) for name in queues or (queue,)]
            consumers.append(broker.consumer(wanted, f"node-{len(consumers)}", lease))
            return consumers[-1]

        yield start
        for consumer in consumers:
            consumer.close()

    @pytest.fixture
    def store(self, broker_url: str, broker: Broker) -> Iterator[ResultStore]:
        """A store that the broker writes outcomes into."""
        if not broker.features.atomic_results:
            pytest.skip("the broker cannot store outcomes")
        store = open_results(broker_url)
        assert broker.shares(store)
        yield store
        store.close()
