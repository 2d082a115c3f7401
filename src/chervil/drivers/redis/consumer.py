"""A node's claims: what it took, settles, gives back, and loses with its lease."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from chervil import clock
from chervil.drivers.contracts import Delivery, Queue, Settlement
from chervil.drivers.redis import outcomes
from chervil.drivers.redis.link import Argument, Link, Refused
from chervil.drivers.redis.scripts import Script, load
from chervil.drivers.redis.sending import groups, parts
from chervil.drivers.redis.trouble import says
from chervil.drivers.redis.waking import Ear
from chervil.drivers.redis.work import Work
from chervil.exceptions import BrokerUnavailable, DecodeError, LeaseLost, OperationalError
from chervil.wire.envelope import decode_head

if TYPE_CHECKING:
    from chervil.drivers.redis.broker import RedisBroker

logger = logging.getLogger("chervil.redis")
_ATTACH = load("attach.lua")
_CLAIM = load("claim.lua")
_EXCHANGE = load("exchange.lua")
_DRAIN = load("drain.lua")
_SETTLE = load("settle.lua")
_LOOK = load("look.lua")

#: Claims in one exchange; others of the server's clients wait as long.
_MOST: Final = 1000
#: Of so many rounds through the queues the inner lists are served first in one.
_TURNS: Final = 8
#: Seconds between looks without being told, in case that something was lost on the way.
_LOOK_AGAIN: Final = 5.0
#: What the server tells may arrive so many seconds after what is seen.
_GRACE: Final = 0.1
#: Seconds between looks where the server cannot tell.
_POLL: Final = 0.5
#: In what the server tells: in keys of ours, and at the end of what tells of all keys.
_OWN: Final = b"_chervil."
_FLUSHED: Final = b"*-1\r\n"
#: More than so many bytes are not looked through.
_MUCH: Final = 4096


class RedisConsumer:
    """See :class:`chervil.drivers.contracts.Consumer`.

    Two connections: one to work on, and one on which the server tells of news (see
    :mod:`chervil.drivers.redis.waking`). Renewing and recovering use the broker's.
    """

    room: int | None = None

    def __init__(
        self, broker: RedisBroker, queues: Sequence[Queue], node: str, lease: float
    ) -> None:
        self._broker = broker
        self._names = names = broker.names
        self._queues = list(dict.fromkeys(queue.name for queue in queues))
        self._node = node
        self._location = broker.location.named(node)
        self._lease = lease
        self._id = uuid.uuid4().hex
        #: Counts connections, so that what an old one still brings to the server is void.
        self._connection = 0
        self._queue_of = {key: queue for queue in self._queues for key in names.lists_of(queue)}
        self._list_count = len(self._queue_of)
        consumers, claims = names.own("consumers"), names.own(f"claims.{self._id}")
        self._hashes = names.prefix, consumers, claims, self._id
        self._revoked = names.own("revoked")
        self._turns = [self._keys(turn) for turn in range(_TURNS * len(self._queues))]
        self._lists = [keys[: self._list_count] for keys in self._turns]
        self._turn = 0
        #: Number of the next claim.
        self._number = 1
        self._held: set[bytes] = set()
        #: Claims that an answer told of which never arrived.
        self._found: list[Delivery] = []
        self._next_due: float | None = None
        #: The server tells when there is something; until then there is nothing.
        self._armed = False
        #: Likewise for the delayed sets: what is known of them still holds.
        self._due_known = False
        self._looked = 0.0
        self._tracked = True
        #: Its memory was full the last time.
        self._full = False
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
        queue is the first among them changes with the turn. The inner lists, which are
        empty most of the time, come second, so that looking there costs nothing more; that
        they are not forgotten while the first is always full, now and then they come first.
        """
        queues, names = self._queues, self._names
        first = turn % len(queues)
        order = queues[first:] + queues[:first]
        inner: list[Argument] = [names.inner_list(queue) for queue in order]
        by_queue = [names.lists_of(queue)[1:] for queue in order]
        found: list[Argument] = [key for step in zip(*by_queue, strict=True) for key in step]
        before = 0 if turn // len(queues) == _TURNS - 1 else 1
        found[before:before] = inner
        return found + [names.delayed(queue) for queue in queues]

    # --- connecting

    def _connect(self) -> Link:
        """Begin, or come back: find out what the server says that we hold."""
        new = self._connection == 0
        link = Link(self._location, BrokerUnavailable)
        try:
            self._tracked = self._ear.listen(link)
            self._connection += 1
            answer = link.script(_ATTACH, (), *self._attachment(self._connection, 1 if new else 0))
            if answer is None:
                raise self._lost()
            self._armed = self._due_known = False
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
        work = Work(settlements, self._held)
        try:
            claimed = self._exchange(link, work, max(0, min(limit - len(found), _MOST)))
        except BaseException as exc:
            # What was done there and what was not is seen when we come back.
            self._held.update(work.tags)
            self._found = found + self._found
            link.close()
            if isinstance(exc, Refused):
                raise link.refused(exc) from None
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

    def _exchange(self, link: Link, work: Work, limit: int) -> list[Delivery]:
        if not work.tags and not limit:
            return []
        now = clock.now()
        # What we change ourselves the server does not tell us of.
        changing = bool(work.publish or work.settled or work.joining)
        if not limit and not changing and not self._full:
            return self._settle(link, work, now)
        keys = self._to_look_at(now, changing or self._full)
        also_delayed = len(keys) > self._list_count
        answer = self._carry_out(link, work, limit, keys, now)
        if answer is None:
            raise self._lost()
        self._looked_at(answer[0], answer[1], also_delayed)
        if not limit and not answer[0]:
            self._ear.ring()
        return self._understand(link, answer, now)

    def _settle(self, link: Link, work: Work, now: float) -> list[Delivery]:
        try:
            answer = link.script(
                _SETTLE,
                (),
                *self._hashes,
                self._connection,
                self._broker.results,
                len(work.outcomes),
                *outcomes.arguments(work.outcomes, now),
                *work.acks,
            )
        except Refused as exc:
            self._see_full(link, exc)
            answer = self._do_all(_DRAIN, link, work, 0, self._lists[self._turn], now)
        if answer is None:
            raise self._lost()
        return []

    def _carry_out(
        self, link: Link, work: Work, limit: int, keys: Sequence[Argument], now: float
    ) -> Any:
        """An exchange; where memory is full, messages must go for there to be room again."""
        try:
            if work.tags or len(keys) > self._list_count:
                answer = self._do_all(_EXCHANGE, link, work, limit, keys, now)
            else:
                answer = self._claim(link, limit)
        except Refused as exc:
            self._see_full(link, exc)
            return self._do_all(_DRAIN, link, work, limit, keys, now)
        self._full = False
        return answer

    def _see_full(self, link: Link, exc: Refused) -> None:
        """
        :raises Refused: it is not for want of memory.
        """
        if not says(str(exc), "OOM"):
            raise exc
        if not self._full:
            self._full = True
            logger.warning(
                "Redis at %s is out of memory (maxmemory) and takes no new messages; this "
                "node works off those that are there",
                link.location.name,
            )

    def _claim(self, link: Link, limit: int) -> Any:
        number = self._number
        self._number += limit
        return link.script(
            _CLAIM,
            self._lists[self._turn],
            self._hashes[1],
            self._hashes[2],
            self._revoked,
            self._id,
            self._connection,
            limit,
            number,
        )

    def _do_all(
        self,
        script: Script,
        link: Link,
        work: Work,
        limit: int,
        keys: Sequence[Argument],
        now: float,
    ) -> Any:
        names, number = self._names, self._number
        self._number += limit
        count, messages = groups(work.publish, names, now) if work.publish else (0, [])
        joins, chords = work.joins(names, now) if work.joining else (0, [])
        return link.script(
            script,
            keys,
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

    def _to_look_at(self, now: float, changing: bool) -> Sequence[Argument]:
        """The keys that an exchange looks at."""
        if self._armed:
            self._hear()  # it says nothing that we shall not see
        self._turn = turn = (self._turn + 1) % len(self._turns)
        due = self._next_due
        if changing or not self._due_known or (due is not None and due <= now):
            return self._turns[turn]
        return self._lists[turn]

    def _looked_at(self, nothing_left: int, due: bytes, also_delayed: bool) -> None:
        self._armed = bool(nothing_left) and self._tracked
        self._looked = clock.monotonic()
        if also_delayed:
            self._due_known = self._tracked
            self._next_due = float(due) if due else None

    def _understand(self, link: Link, answer: Any, now: float) -> list[Delivery]:
        if len(answer) == 3:
            return []
        delivery = self._delivery
        found = [delivery(answer[n], answer[n + 1]) for n in range(3, len(answer), 2)]
        if answer[2]:
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
        scores = link.call("ZMSCORE", self._revoked, *by_id)
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
        armed = self._armed
        heard = self._hear()
        woken = not heard and self._ear.unring()
        link = self._link
        if link is None or not link.open or (self._tracked and not self._ear.connected):
            return True  # the exchange connects again, or says what is wrong
        if heard and armed:
            return True  # the exchange asks it to tell again
        if not heard and link.has_ended():
            link.close()
            return True
        try:
            late = clock.monotonic() - self._looked > _LOOK_AGAIN
            armed = self._armed
            if (not armed or late) and self._look(link):
                if armed and not self._ear.hears(_GRACE):
                    logger.warning(
                        "Redis at %s did not tell of new messages: the connection on which it "
                        "should have is replaced",
                        link.location.name,
                    )
                    self._ear.hang_up()  # the exchange connects anew
                return True
        except (OperationalError, Refused):
            return True  # the exchange says what is wrong
        due = self._next_due
        return woken or bool(self._found) or (due is not None and due <= clock.now())

    def _look(self, link: Link) -> bool:
        """Whether something is ready; if not, the server will tell."""
        full, due = link.script(_LOOK, self._turns[0], self._list_count)
        self._looked_at(not full, due, True)
        return bool(full)

    def _hear(self) -> bool:
        """Take in what the server told: True when it did."""
        told = self._ear.drain()
        if not told:
            return False
        self._armed = False
        if _OWN in told or told.endswith(_FLUSHED) or len(told) > _MUCH:
            self._due_known = False
        return True

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
