"""What every broker's fan-out must do, as tests; used like
:class:`~chervil.testing.brokers.BrokerConformance`."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chervil.drivers.contracts import Broker, Fanout, Mailbox
from chervil.ids import new_id
from chervil.testing.harness import (
    PATIENCE,
    BrokerHarness,
    Consume,
    claim,
    in_fork,
    make_message,
    wait_for,
)
from chervil.wire.notes import Note

_JSON = frozenset({"application/json"})

#: Starts mailboxes that are closed at the end: ``listen("subscribe", exchange, name)``.
Listen = Callable[..., Mailbox]


def heard(mailbox: Mailbox, count: int) -> list[Any]:
    """The next ``count`` notes' values, waiting on the descriptor alone."""
    found = [note.value(_JSON) for note in mailbox.receive()]
    poll = select.poll()
    poll.register(mailbox.fileno(), select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    while len(found) < count:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            pytest.fail(f"{len(found)} of {count} notes within {PATIENCE:g} s")
        found += [note.value(_JSON) for note in mailbox.receive()]
    return found


class FanoutConformance(BrokerHarness):
    """Notes to all, and answers to one."""

    #: Whether ``revoke`` tells which tasks are claimed; else it must say that it cannot.
    tells_claimed = True

    @pytest.fixture
    def exchange(self) -> str:
        return f"exchange-{new_id()}"

    @pytest.fixture
    def fanout(self, broker: Broker) -> Fanout:
        assert broker.features.fanout
        return broker.fanout()

    @pytest.fixture
    def listen(self, fanout: Fanout) -> Iterator[Listen]:
        made: list[Mailbox] = []

        def start(how: str, *args: str, **kwargs: str) -> Mailbox:
            made.append(getattr(fanout, how)(*args, **kwargs))
            return made[-1]

        yield start
        for mailbox in made:
            mailbox.close()

    def test_all_who_listen_hear_it(self, fanout: Fanout, listen: Listen, exchange: str) -> None:
        fanout.broadcast(exchange, Note.of("nobody hears this"))
        boxes = [listen("subscribe", exchange, f"n{i}") for i in range(3)]
        for word in ("first", "second"):
            assert fanout.broadcast(exchange, Note.of(word)) in (3, None)
        for mailbox in boxes:
            assert heard(mailbox, 2) == ["first", "second"]
            assert not mailbox.receive()

    def test_a_note_arrives_as_it_was_sent(
        self, fanout: Fanout, listen: Listen, exchange: str
    ) -> None:
        mailbox = listen("subscribe", exchange, "n")
        value = {"method": "x", "arguments": {"ä": [1, None, "\0"]}, "large": "y" * 300_000}
        fanout.broadcast(exchange, Note.of(value, clock=3, ticket="t"))
        (note,) = wait_for(mailbox.receive, "a note")
        assert note.value(_JSON) == value
        assert note.headers == {"clock": 3, "ticket": "t"}
        assert note.content_type == "application/json"

    def test_exchanges_are_apart(self, fanout: Fanout, listen: Listen, exchange: str) -> None:
        mine = listen("subscribe", exchange, "n")
        other = listen("subscribe", exchange + "-other", "n")
        fanout.broadcast(exchange + "-other", Note.of("other"))
        fanout.broadcast(exchange, Note.of("mine"))
        assert heard(mine, 1) == ["mine"]
        assert heard(other, 1) == ["other"]

    def test_keys_and_patterns(self, fanout: Fanout, listen: Listen, exchange: str) -> None:
        everything = listen("subscribe", exchange, "a", key="#")
        workers = listen("subscribe", exchange, "b", key="worker.#")
        exact = listen("subscribe", exchange, "c", key="worker.online")
        for key in ("task.sent", "worker.offline", "worker.online"):
            fanout.broadcast(exchange, Note.of(key), key)
        assert heard(everything, 3) == ["task.sent", "worker.offline", "worker.online"]
        assert heard(workers, 2) == ["worker.offline", "worker.online"]
        assert heard(exact, 1) == ["worker.online"]

    def test_answers_reach_who_waits_for_them(
        self, fanout: Fanout, listen: Listen, exchange: str
    ) -> None:
        mine = listen("answers", exchange, "me")
        other = listen("answers", exchange, "somebody")
        fanout.reply(exchange, "nobody", Note.of(0))
        for number in range(20):
            fanout.reply(exchange, "me", Note.of(number, ticket="t"))
        fanout.reply(exchange, "somebody", Note.of("else"))
        assert heard(mine, 20) == list(range(20))
        assert heard(other, 1) == ["else"]

    def test_who_has_closed_hears_nothing(
        self, fanout: Fanout, listen: Listen, exchange: str
    ) -> None:
        gone, there = listen("subscribe", exchange, "a"), listen("subscribe", exchange, "b")
        gone.close()
        gone.close()
        fanout.broadcast(exchange, Note.of(1))
        assert heard(there, 1) == [1]

    def test_what_is_not_read_is_bounded(
        self, fanout: Fanout, listen: Listen, exchange: str
    ) -> None:
        lazy = listen("subscribe", exchange, "lazy")
        for number in range(1500):
            fanout.broadcast(exchange, Note.of(number))
        found = heard(lazy, 1)
        while found[-1] != 1499:
            found += heard(lazy, 1)
        assert found == sorted(found)

    def test_other_processes(
        self, fanout: Fanout, broker: Broker, listen: Listen, exchange: str
    ) -> None:
        if not broker.features.shared:
            pytest.skip("exists in one process only")
        mailbox = listen("subscribe", exchange, "n")
        assert in_fork(lambda: fanout.broadcast(exchange, Note.of("from a child"))) == 0
        assert heard(mailbox, 1) == ["from a child"]

    # --- revoked tasks

    def test_revoke_tells_what_is_claimed(
        self, broker: Broker, queue: str, consume: Consume
    ) -> None:
        claimed, waits = make_message(queue), make_message(queue)
        broker.publish([claimed, waits])
        claim(consume(), 1)
        until = time.time() + 60
        told = broker.revoke([claimed.id, waits.id, "unknown"], until)
        assert (None if told is None else set(told)) == (
            {claimed.id} if self.tells_claimed else None
        )
        assert {claimed.id, waits.id, "unknown"} <= set(broker.revoked())
        assert not broker.revoked(0)
