"""A node's claims: what it took, settles, gives back, and loses with its lease."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from chervil import clock
from chervil.drivers.contracts import Action, Delivery, Queue, Settlement
from chervil.drivers.redis import joining, outcomes
from chervil.drivers.redis.link import Argument, Link, Refused
from chervil.drivers.redis.scripts import load
from chervil.drivers.redis.sending import envelope, groups, parts
from chervil.drivers.redis.waking import Ear
from chervil.exceptions import BrokerUnavailable, DecodeError, LeaseLost, OperationalError
from chervil.wire.envelope import decode_head

if TYPE_CHECKING:
    from chervil.drivers.redis.broker import RedisBroker
    from chervil.drivers.redis.names import Names
    from chervil.wire.message import Message, Outcome

_ATTACH = load("attach.lua")
_EXCHANGE = load("exchange.lua")
_LOOK = load("look.lua")

#: Claims in one exchange; others of the server's clients wait as long.
_MOST: Final = 1000
#: Seconds between looks without being told, in case that something was lost on the way.
_LOOK_AGAIN: Final = 5.0
#: The same where the server cannot tell.
_POLL: Final = 0.5


class _Work:
    """What one exchange has to settle, as the arguments of the script."""

    __slots__ = ("acks", "joining", "outcomes", "publish", "settled", "tags")

    def __init__(self, settlements: Sequence[Settlement], held: set[bytes]) -> None:
        #: All claims that are settled here.
        self.tags: list[bytes] = []
        self.acks: list[bytes] = []
        self.settled: list[Settlement] = []
        self.outcomes: list[Outcome] = []
        self.publish: list[Message] = []
        #: What concerns chords, if anything does.
        self.joining: list[Settlement] = []
        ack = Action.ACK
        for settlement in settlements:
            tag = settlement.delivery.tag
            if tag not in held:
                continue  # not ours, or not any more: it changes nothing
            held.discard(tag)  # so that a second settlement finds it gone
            self.tags.append(tag)
            if settlement.action == ack:
                self.acks.append(tag)
            else:
                self.settled.append(settlement)
            if settlement.outcome is not None:
                self.outcomes.append(settlement.outcome)
            if settlement.publish:
                self.publish.extend(settlement.publish)
            if settlement.others:
                self.outcomes.extend(settlement.others)
            if settlement.arrivals or settlement.begins or settlement.closes:
                self.joining.append(settlement)

    def joins(self, names: Names, now: float) -> tuple[int, list[Argument]]:
        """What concerns chords, as the script takes it: how many groups, and the groups."""
        if not self.joining:
            return 0, []
        begins = {join: n for s in self.joining for join, n in s.begins.items()}
        arrivals = [arrival for s in self.joining for arrival in s.arrivals]
        closes = [join for s in self.joining for join in s.closes]
        count, found = joining.arrivals_of(
            arrivals,
            lambda a: (names.inner_list(a.trigger.queue), envelope(a.trigger, now)),
        )
        found = joining.begins_of(begins) + found + joining.closes_of(closes)
        return len(begins) + count + len(closes), found

    def others(self) -> list[Argument]:
        """What is settled otherwise."""
        found: list[Argument] = []
        # Of what goes back to the front, the last one to go is the first one there.
        requeued = [s for s in reversed(self.settled) if s.action == Action.REQUEUE]
        for settlement in (*(s for s in self.settled if s.action != Action.REQUEUE), *requeued):
            action = Action(settlement.action)
            found += (
                settlement.delivery.tag,
                action.name.lower(),
                1 if settlement.counted else 0,
                repr(float(settlement.until)),
                settlement.delivery.queue,
                settlement.reason.encode("utf-8", "backslashreplace"),
                settlement.detail.encode("utf-8", "backslashreplace"),
            )
        return found


class RedisConsumer:
    """See :class:`chervil.drivers.contracts.Consumer`.

    Two connections: one to work on, and one on which the server tells of news (see
    :mod:`chervil.drivers.redis.waking`). Renewing and recovering use the broker's.
    """

    def __init__(
        self, broker: RedisBroker, queues: Sequence[Queue], node: str, lease: float
    ) -> None:
        self._broker = broker
        self._names = names = broker.names
        self._queues = list(dict.fromkeys(queue.name for queue in queues))
        self._node = node
        self._lease = lease
        self._id = uuid.uuid4().hex
        #: Counts connections, so that what an old one still brings to the server is void.
        self._connection = 0
        self._queue_of = {key: queue for queue in self._queues for key in names.lists_of(queue)}
        self._list_count = len(self._queue_of)
        self._turns = [self._keys(turn) for turn in range(len(self._queues))]
        self._turn = 0
        #: Number of the next claim.
        self._number = 1
        self._held: set[bytes] = set()
        #: Claims that an answer told of which never arrived.
        self._found: list[Delivery] = []
        self._next_due: float | None = None
        #: The server tells when there is something; until then there is nothing.
        self._armed = False
        self._looked = 0.0
        self._tracked = True
        self._closed = False
        self._pid = os.getpid()
        self._link: Link | None = None
        self._ear = Ear()
        try:
            self._connect()
        except BaseException:
            self._ear.close()
            raise

    def _keys(self, turn: int) -> list[Argument]:
        """All lists in the order in which they are served, then the delayed sets.

        Each priority step of all queues comes before the next step, as in kombu; which
        queue is the first among them changes with the turn.
        """
        order = self._queues[turn:] + self._queues[:turn]
        by_queue = [self._names.lists_of(queue) for queue in order]
        found: list[Argument] = [key for step in zip(*by_queue, strict=True) for key in step]
        return found + [self._names.delayed(queue) for queue in self._queues]

    # --- connecting

    def _connect(self) -> Link:
        """Begin, or come back: find out what the server says that we hold."""
        new = self._connection == 0
        link = Link(self._broker.location, BrokerUnavailable)
        try:
            self._tracked = self._ear.listen(self._broker.location, link)
            self._connection += 1
            answer = link.script(_ATTACH, (), *self._attachment(self._connection, 1 if new else 0))
            if answer is None:
                raise self._lost()
            self._armed = False
            self._reconcile(dict(zip(answer[::2], answer[1::2], strict=True)))
            self._link = link
            self._look(link)
        except Refused as exc:
            link.close()
            raise link.refused(exc) from None
        except BaseException:
            link.close()
            raise
        return link

    def _attachment(self, connection: int | str, new: int) -> tuple[Argument, ...]:
        return (
            self._names.prefix,
            self._id,
            connection,
            new,
            self._node,
            max(1, int(self._lease * 1000)),
            int((clock.now() + self._lease) * 1000),
            *self._queues,
        )

    def _reconcile(self, claims: dict[bytes, bytes]) -> None:
        """An exchange may have been carried out although its answer never arrived."""
        self._found = [d for d in self._found if d.tag in claims]
        waiting = {delivery.tag for delivery in self._found}
        self._held &= claims.keys()
        lost = [tag for tag in claims if tag not in self._held and tag not in waiting]
        lost.sort(key=lambda tag: int(tag.partition(b":")[0]))
        self._found += [self._delivery(tag, claims[tag]) for tag in lost]

    def _lost(self) -> LeaseLost:
        self._held.clear()
        self._found.clear()
        return LeaseLost(
            f"the lease of {self._lease:g} s ran out without being renewed, "
            "and the claims were given to others"
        )

    # --- claiming and settling

    def exchange(self, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
        """See :meth:`chervil.drivers.contracts.Consumer.exchange`."""
        if self._closed:
            raise LeaseLost("this consumer is closed")
        link = self._link
        if link is None or not link.open or (self._tracked and not self._ear.connected):
            link = self._reconnect()
        found, self._found = self._found[:limit], self._found[limit:]
        work = _Work(settlements, self._held)
        try:
            claimed = self._exchange(link, work, max(0, min(limit - len(found), _MOST)))
        except BaseException:
            # What was done there and what was not is seen when we come back.
            self._held.update(work.tags)
            self._found = found + self._found
            link.close()
            raise
        if found:
            self._held.update(delivery.tag for delivery in found)
            return found + claimed
        return claimed

    def _reconnect(self) -> Link:
        if self._link is not None:
            self._link.close()
            self._link = None
        return self._connect()

    def _exchange(self, link: Link, work: _Work, limit: int) -> list[Delivery]:
        if not work.tags and not limit:
            return []
        now = clock.now()
        names = self._names
        count, messages = groups(work.publish, names, now) if work.publish else (0, [])
        joins, chords = work.joins(names, now)
        self._turn = turn = (self._turn + 1) % len(self._turns)
        number = self._number
        self._number += limit
        self._ear.drain()  # it says nothing that we shall not see
        try:
            answer = link.script(
                _EXCHANGE,
                self._turns[turn],
                names.prefix,
                self._id,
                self._connection,
                repr(now),
                limit,
                number,
                self._list_count,
                self._broker.results,
                len(work.outcomes),
                count,
                len(work.settled),
                len(work.acks),
                joins,
                self._broker.groups,
                *outcomes.arguments(work.outcomes, now),
                *messages,
                *work.others(),
                *work.acks,
                *chords,
            )
        except Refused as exc:
            raise link.refused(exc) from None
        if answer is None:
            raise self._lost()
        return self._understand(link, answer, now)

    def _understand(self, link: Link, answer: Any, now: float) -> list[Delivery]:
        nothing_left, due, revocations = answer[:3]
        self._armed = bool(nothing_left) and self._tracked
        self._looked = clock.monotonic()
        self._next_due = float(due) if due else None
        if len(answer) == 3:
            return []
        delivery = self._delivery
        found = [delivery(answer[n], answer[n + 1]) for n in range(3, len(answer), 2)]
        if revocations:
            self._mark(link, found, now)
        self._held.update(answer[3::2])
        return found

    def _delivery(self, tag: bytes, envelope: bytes) -> Delivery:
        _, deliveries, key = tag.split(b":", 2)
        queue = self._queue_of[key]
        head, body = parts(envelope)
        return Delivery(tag, queue, head, body, int(deliveries))

    def _mark(self, link: Link, found: Sequence[Delivery], now: float) -> None:
        """Mark the deliveries of tasks that were revoked."""
        by_id: dict[str, list[Delivery]] = {}
        for delivery in found:
            try:
                task_id = decode_head(delivery.head).id
            except DecodeError:  # whoever runs it finds out and reports it
                continue
            by_id.setdefault(task_id, []).append(delivery)
        if not by_id:
            return
        scores = link.call("ZMSCORE", self._names.own("revoked"), *by_id)
        for score, deliveries in zip(scores, by_id.values(), strict=True):
            if score is not None and float(score) > now:
                for delivery in deliveries:
                    delivery.revoked = True

    # --- waiting

    def fileno(self) -> int:
        """See :meth:`chervil.drivers.contracts.Consumer.fileno`."""
        return self._ear.fileno()

    def drain(self) -> bool:
        """See :meth:`chervil.drivers.contracts.Consumer.drain`."""
        woken = self._ear.unring()
        heard = self._ear.drain()
        link = self._link
        if link is None or not link.open or (self._tracked and not self._ear.connected):
            return True  # the exchange connects again, or says what is wrong
        try:
            if heard:
                # It tells once: ask it to tell again, and go on without waiting for that.
                self._armed = False
                link.defer("EXISTS", *self._turns[0])
                return True
            late = clock.monotonic() - self._looked > _LOOK_AGAIN
            if (not self._armed or late) and self._look(link):
                return True
        except (OperationalError, Refused):
            return True  # the exchange says what is wrong
        due = self._next_due
        return woken or bool(self._found) or (due is not None and due <= clock.now())

    def _look(self, link: Link) -> bool:
        """Whether something is ready; if not, the server will tell."""
        full, due = link.script(_LOOK, self._turns[0], self._list_count)
        self._armed = not full and self._tracked
        self._looked = clock.monotonic()
        self._next_due = float(due) if due else None
        return bool(full)

    def next_due(self) -> float | None:
        """See :meth:`chervil.drivers.contracts.Consumer.next_due`.

        Where the server cannot tell of news, it is twice a second.
        """
        if self._tracked:
            return self._next_due
        soon = clock.now() + _POLL
        return soon if self._next_due is None else min(soon, self._next_due)

    def wake(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.wake`."""
        self._ear.ring()

    # --- the lease

    def renew(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.renew`."""
        with self._broker.pool.link() as link:
            answer = link.script(_ATTACH, (), *self._attachment("", 0))
        if answer is None:
            raise LeaseLost(
                f"the lease of {self._lease:g} s ran out without being renewed, "
                "and the claims were given to others"
            )

    def recover(self) -> int:
        """See :meth:`chervil.drivers.contracts.Consumer.recover`."""
        return self._broker.recover(self._id)

    def tend(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.tend`; Redis needs nothing."""

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.close`."""
        if self._closed:
            return
        self._closed = True
        self._held.clear()
        if self._link is not None:
            self._link.close()
        self._ear.close()
        if self._pid == os.getpid():  # else the lease is the parent's
            self._broker.dismiss(self._id, self._queues)
