"""Every fan-out through the same suite."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.fanout import AmqpMailbox
from chervil.drivers.amqp.link import Link as AmqpLink
from chervil.drivers.amqp.location import parse as parse_amqp
from chervil.drivers.amqp.properties import decode_properties
from chervil.drivers.amqp.trouble import Refused
from chervil.drivers.contracts import Broker, Fanout
from chervil.drivers.redis.link import Link
from chervil.drivers.redis.location import parse
from chervil.drivers.registry import open_broker
from chervil.drivers.sqlite.broker import SqliteBroker
from chervil.exceptions import BrokerUnavailable
from chervil.ids import new_id
from chervil.testing.fanouts import FanoutConformance, Listen, heard
from chervil.testing.harness import make_message, other_process
from chervil.wire.envelope import encode_full
from chervil.wire.notes import Note
from tests.support.waiting import wait_until


class TestMemory(FanoutConformance):
    @pytest.fixture
    def broker_url(self) -> str:
        return f"memory://{new_id()}"


class TestSqlite(FanoutConformance):
    @pytest.fixture
    def broker_url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/queues.db"

    def test_a_dead_process_leaves_nothing(self, broker_url: str, exchange: str) -> None:
        broker = open_broker(broker_url)
        assert isinstance(broker, SqliteBroker)
        fanout = broker.fanout()
        code = (
            "m = open_broker(url).fanout().subscribe(exchange, 'n')\n"
            "print('ready', flush=True)\ntime.sleep(60)\n"
        )
        with other_process(code, url=broker_url, exchange=exchange) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            assert _counts(broker) == (1, 0)
        fanout.broadcast(exchange, Note.of(1))
        assert _counts(broker) == (0, 0)
        broker.close()

    def test_a_file_of_an_earlier_version_gets_the_tables(self, broker_url: str) -> None:
        first = open_broker(broker_url)
        assert isinstance(first, SqliteBroker)
        first.declare([])

        def age(link: object) -> None:
            execute = link.execute  # type: ignore[attr-defined]
            execute("DROP TABLE notes")
            execute("DROP TABLE mailboxes")
            execute("PRAGMA user_version = 1")

        first.database.read(age)
        first.close()
        again = open_broker(broker_url)
        mailbox = again.fanout().subscribe("x", "n")
        again.fanout().broadcast("x", Note.of(1))
        assert heard(mailbox, 1) == [1]
        mailbox.close()
        again.close()


def _counts(broker: SqliteBroker) -> tuple[int, int]:
    def work(link: object) -> tuple[int, int]:
        execute = link.execute  # type: ignore[attr-defined]
        return tuple(  # type: ignore[return-value]
            execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("mailboxes", "notes")
        )

    return broker.database.read(work)


@pytest.mark.requires_server("redis")
class TestRedis(FanoutConformance):
    @pytest.fixture
    def link(self, server_url: Callable[[str], str]) -> Iterator[Link]:
        link = Link(parse(server_url("redis"), {}), BrokerUnavailable)
        yield link
        link.close()

    @pytest.fixture
    def prefix(self, link: Link) -> Iterator[str]:
        prefix = f"test-{new_id()}:"
        yield prefix
        keys = link.call("KEYS", prefix + "*")
        if keys:
            link.call("UNLINK", *keys)

    @pytest.fixture
    def broker_url(self, server_url: Callable[[str], str], prefix: str) -> str:
        return f"{server_url('redis')}?global_keyprefix={prefix}"

    def test_it_is_kombus_layout(
        self, broker: Broker, exchange: str, link: Link, prefix: str
    ) -> None:
        fanout = broker.fanout()
        mailbox = fanout.subscribe(exchange, "n@here")
        channels = link.call("PUBSUB", "CHANNELS", prefix + "*")
        assert channels == [f"{prefix}/0.{exchange}".encode()]
        answers = fanout.answers(exchange, "me")
        table = f"{prefix}_kombu.binding.{exchange}"
        queue = f"me.{exchange}"
        assert link.call("SMEMBERS", table) == [f"me\x06\x16\x06\x16{queue}".encode()]
        fanout.reply(exchange, "me", Note.of(1))
        assert heard(answers, 1) == [1]
        answers.close()
        mailbox.close()
        wait_until(lambda: not link.call("PUBSUB", "CHANNELS", prefix + "*"), 5)
        assert link.call("KEYS", prefix + "*") == []

    def test_answers_to_somebody_who_died_expire(
        self, broker: Broker, exchange: str, link: Link, prefix: str
    ) -> None:
        answers = broker.fanout().answers(exchange, "me")
        link.call("CLIENT", "KILL", "ID", answers._link.number)  # type: ignore[attr-defined]
        broker.fanout().reply(exchange, "me", Note.of(1))
        with pytest.raises(BrokerUnavailable):
            wait_until(answers.receive, 5)
        for key in link.call("KEYS", prefix + "*"):
            assert link.call("TTL", key) > 0, key

    def test_what_celerys_workers_hold_is_claimed(
        self, broker: Broker, queue: str, link: Link, prefix: str
    ) -> None:
        message, other = make_message(queue), make_message(queue)
        message.headers["root_id"] = other.id
        envelope = encode_full(message).decode()
        for number, text in enumerate((envelope, envelope.replace('":', '": '))):
            link.call("HSET", f"{prefix}unacked", str(number), f'[{text}, "", "{queue}"]')
        assert set(broker.revoke([message.id, other.id], time.time() + 60) or ()) == {message.id}

    @pytest.mark.parametrize(
        ("option", "channel"),
        [("fanout_prefix=false", "{}"), ("fanout_prefix=x.", "x.{}"), ("", "/0.{}")],
    )
    def test_prefixes_of_channels(
        self, broker_url: str, exchange: str, link: Link, prefix: str, option: str, channel: str
    ) -> None:
        broker = open_broker(f"{broker_url}&{option}")
        mailbox = broker.fanout().subscribe(exchange, "n")
        name = prefix + channel.format(exchange)
        assert link.call("PUBSUB", "CHANNELS", name) == [name.encode()]
        mailbox.close()
        broker.close()


@pytest.mark.requires_server("rabbitmq")
class TestRabbitmq(FanoutConformance):
    tells_claimed = False

    @pytest.fixture
    def broker_url(self, server_url: Callable[[str], str]) -> str:
        return server_url("rabbitmq")

    @pytest.fixture
    def link(self, broker_url: str) -> Iterator[AmqpLink]:
        link = AmqpLink(parse_amqp(broker_url, {}), BrokerUnavailable)
        yield link
        link.close()

    @pytest.fixture(autouse=True)
    def tidy(self, link: AmqpLink, exchange: str, queue: str) -> Iterator[None]:
        yield
        for name in (exchange, exchange + "-other"):
            link.call(link.ready(1), m.EXCHANGE_DELETE, name, False, False)
        link.call(1, m.QUEUE_DELETE, queue, False, False, False)

    def test_it_is_kombus_layout(
        self, fanout: Fanout, listen: Listen, exchange: str, link: AmqpLink
    ) -> None:
        """Declaring what is there already fails unless it is the same."""
        mailbox = listen("subscribe", exchange, "n@here")
        listen("answers", exchange + "-other", "me")
        declare = (False, False, False, False, False, {})
        link.call(1, m.EXCHANGE_DECLARE, exchange, "fanout", *declare)
        link.call(1, m.EXCHANGE_DECLARE, exchange + "-other", "direct", *declare)
        for name in (f"n@here.{exchange}", f"me.{exchange}-other"):
            with pytest.raises(Refused, match="exclusive"):
                link.call(link.ready(1), m.QUEUE_DECLARE, name, True, *[False] * 4, {})
        mailbox.close()
        with pytest.raises(Refused, match="does not have that queue"):
            link.call(link.ready(1), m.QUEUE_DECLARE, f"n@here.{exchange}", True, *[False] * 4, {})

    def test_nodes_of_one_name_both_hear(
        self, fanout: Fanout, listen: Listen, exchange: str
    ) -> None:
        boxes = [listen("subscribe", exchange, "same@name") for _ in range(2)]
        fanout.broadcast(exchange, Note.of(1))
        for mailbox in boxes:
            assert heard(mailbox, 1) == [1]

    def test_nobody_there_is_known(self, fanout: Fanout, listen: Listen, exchange: str) -> None:
        assert fanout.broadcast(exchange, Note.of(1)) == 0
        mailbox = listen("subscribe", exchange, "n")
        assert fanout.broadcast(exchange, Note.of(2)) is None
        mailbox.close()
        assert fanout.broadcast(exchange, Note.of(3)) == 0

    def test_what_arrives_is_what_kombu_writes(
        self, fanout: Fanout, listen: Listen, exchange: str
    ) -> None:
        mailbox = listen("subscribe", exchange, "n")
        assert isinstance(mailbox, AmqpMailbox)
        fanout.broadcast(exchange, Note.of({"method": "ping"}, clock=1))
        link = mailbox._link
        link.wait_for(lambda: link.arrived)
        (content,) = link.take()
        assert decode_properties(content.header) == {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": 2,
            "priority": 0,
            "headers": {"clock": 1},
        }

    def test_a_lost_connection_is_told(self, listen: Listen, exchange: str) -> None:
        mailbox = listen("subscribe", exchange, "n")
        assert isinstance(mailbox, AmqpMailbox)
        mailbox._link.sever()
        with pytest.raises(BrokerUnavailable):
            mailbox.receive()
