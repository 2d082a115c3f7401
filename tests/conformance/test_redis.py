"""Redis and Valkey through the suites of brokers and result stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chervil.drivers.contracts import Broker
from chervil.drivers.redis.link import Link
from chervil.drivers.redis.location import parse
from chervil.exceptions import BrokerUnavailable
from chervil.ids import new_id
from chervil.testing.brokers import BrokerConformance
from chervil.testing.coordinators import CoordinatorConformance
from chervil.testing.harness import Consume, claim, ids_of, make_message
from chervil.testing.stores import StoreConformance
from tests.support.redis_acl import with_prefix

#: Redis as it is installed, the oldest that is supported, Valkey; and Redis for a user
#: with the least rights.
SERVERS = [
    pytest.param(name, marks=pytest.mark.requires_server(name.partition(" ")[0]))
    for name in ("redis", "redis62", "valkey", "redis user")
]


@pytest.fixture(params=SERVERS)
def own_url(server_url: Callable[[str], str], request: pytest.FixtureRequest) -> Iterator[str]:
    """A server, with a prefix that only this test uses; emptied at the end."""
    prefix = f"test-{new_id()}:"
    name, _, as_user = request.param.partition(" ")
    url = server_url(name)
    link = Link(parse(url, {}), BrokerUnavailable)
    user = f"user-{new_id()}"
    if as_user:
        link.call(*with_prefix(user, prefix))
        yield f"{url.replace('://', f'://{user}:password@')}?global_keyprefix={prefix}"
        link.call("ACL", "DELUSER", user)
    else:
        yield f"{url}?global_keyprefix={prefix}"
    keys = link.call("KEYS", prefix + "*")
    if keys:
        link.call("UNLINK", *keys)
    link.close()


class TestBroker(BrokerConformance):
    @pytest.fixture
    def broker_url(self, own_url: str) -> str:
        return own_url

    def test_larger_priorities_first(self, broker: Broker, queue: str, consume: Consume) -> None:
        """Here it is the other way round, as with Celery on Redis."""
        given = [9, 0, 4, 9, 0, 5]  # 4 and 5 are one step
        messages = [make_message(queue, priority=priority) for priority in given]
        broker.publish(messages)
        order = [messages[place].id for place in (1, 4, 2, 5, 0, 3)]
        assert ids_of(claim(consume(), 6)) == order

    def test_priorities_hold_across_batches(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        last, first = make_message(queue, priority=8), make_message(queue, priority=1)
        later = make_message(queue, priority=8)
        broker.publish([last, later])
        broker.publish([first])
        consumer = consume()
        assert ids_of(claim(consumer, 2)) == [first.id, last.id]
        assert ids_of(claim(consumer, 1)) == [later.id]


class TestStore(StoreConformance):
    @pytest.fixture
    def store_url(self, own_url: str) -> str:
        return own_url


class TestCoordinator(CoordinatorConformance):
    @pytest.fixture
    def coordinator_url(self, own_url: str) -> str:
        return own_url
