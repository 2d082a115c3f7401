"""A node's claims: what the server sent it, what it settles, and what it loses."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from chervil import clock
from chervil.drivers.amqp import dead_letters
from chervil.drivers.amqp import methods as m
from chervil.drivers.amqp.heads import Heads
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.properties import (
    DELIVERIES,
    decode_properties,
    encode_properties,
    is_history,
)
from chervil.drivers.amqp.reading import Content
from chervil.drivers.amqp.revocations import Revoked
from chervil.drivers.amqp.sending import Parcel, delay_until, parcels
from chervil.drivers.amqp.trouble import Refused
from chervil.drivers.amqp.waking import Ear
from chervil.drivers.amqp.window import Window
from chervil.drivers.contracts import Action, Delivery, Queue, Settlement
from chervil.exceptions import (
    BrokerUnavailable,
    DecodeError,
    LeaseLost,
    OperationalError,
    PublishError,
)
from chervil.wire.envelope import decode_head

if TYPE_CHECKING:
    from chervil.drivers.amqp.broker import AmqpBroker

logger = logging.getLogger("chervil.worker")
#: Channels of a consumer's connection; another one is for declarations.
CLAIMING: Final = 1
_REVOKED: Final = 3
_ACK: Final = b"\x01\x00\x01\x00\x00\x00\x0d" + m.BASIC_ACK.id


class AmqpConsumer:
    """See :class:`chervil.drivers.contracts.Consumer`.

    One connection, on which the server sends messages before they are asked for, as many
    as the node has room for. What it publishes goes over the broker's connections, so that
    a server that takes no messages for want of memory still takes acknowledgements.

    The claims are the connection's: when it ends, they are gone, and so is this consumer.
    """

    room: int | None = None

    def __init__(
        self, broker: AmqpBroker, queues: Sequence[Queue], node: str, lease: float
    ) -> None:
        self._broker = broker
        self._lease = lease
        self._heads = Heads()
        self._revoked = Revoked(_REVOKED)
        #: Sent by the server and not settled: delivery tag -> message, in that order.
        self._unsettled: dict[int, Content] = {}
        #: Of these, the ones that the node has not taken yet.
        self._waiting: deque[tuple[int, Content]] = deque()
        #: Tags whose follow-ups are stored although they could not be acknowledged yet.
        self._followed: set[int] = set()
        self._closed = False
        self._pid = os.getpid()
        #: Held while the connection is read.
        self._lock = threading.Lock()
        self._heartbeat = max(1, round(lease / 2))
        self._ear = Ear()
        try:
            self._link = Link(
                broker.location, BrokerUnavailable, f"chervil node {node}", self._heartbeat
            )
            try:
                self._begin(queues)
            except Refused as exc:
                self._link.close()
                raise self._link.refused(exc) from None
            except BaseException:
                self._link.close()
                raise
        except BaseException:
            self._ear.close()
            raise

    def _begin(self, queues: Sequence[Queue]) -> None:
        link, writer = self._link, self._broker.revocations
        self._ear.listen(link.fileno())
        self._broker.topology.declare(link, queues, own=True)
        self._window = Window(link, CLAIMING, queues, self._broker.topology)
        self._revoked.follow(link, writer)
        if self._revoked.following:
            with self._broker.pool.link() as other:
                mark = writer.mark(other)
            while not self._revoked.has_read(mark):
                link.wait_for(lambda: link.arrived)
                self._take_arrived()

    # --- claiming and settling

    def exchange(self, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
        """See :meth:`chervil.drivers.contracts.Consumer.exchange`."""
        self._check()
        try:
            with self._lock:
                if limit > 0:
                    self._link.pump()
                self._take_arrived()
                self._adjust(limit, len(settlements))
            if settlements:
                self._settle(settlements)
            with self._lock:
                return self._claim(limit)
        except LeaseLost:
            raise
        except Refused as exc:
            raise self._lost(exc) from exc
        except OperationalError as exc:
            if self._link.open:
                raise  # it is the other connection's
            raise self._lost(exc) from exc

    def _claim(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        waiting = self._waiting
        if limit <= 0:
            if waiting:  # read by the way, so that the descriptor does not tell of it
                self._ear.ring()
            return found
        read, queue_of = self._heads.read, self._window.queue_of
        while waiting and len(found) < limit:
            tag, content = waiting.popleft()
            arguments = content.arguments
            queue = queue_of[arguments[: 1 + arguments[0]]]
            redelivered = arguments[arguments[0] + 9]
            try:
                head, before = read(content, queue)
            except DecodeError as exc:
                self._give_up(tag, content, queue, exc)
                continue
            if redelivered and not before:
                before = 1  # a classic queue says no more than that
            found.append(Delivery((tag, content), queue, head, content.body, 1 + before))
        if self._revoked:
            self._mark(found)
        return found

    def _adjust(self, limit: int, settled: int) -> None:
        """Have the server send as much as there is room for, before that gets larger."""
        held = len(self._unsettled) - len(self._waiting) - settled
        room = self.room
        if room is None:
            if limit or self._window.size:
                self._window.open(held + limit)
        elif room > 0 or limit > 0:
            self._window.open(held + max(room, limit))
        elif self._window.size:
            self._window.close()
            self._return_waiting()

    def _return_waiting(self) -> None:
        """Nothing more can be started here: others may have what waits here."""
        self._link.pump()
        self._take_arrived()
        tags = [tag for tag, _ in self._waiting]
        self._waiting.clear()
        self._give_back(tags)

    def _mark(self, found: Sequence[Delivery]) -> None:
        """Mark the deliveries of tasks that were revoked."""
        for delivery in found:
            try:
                delivery.revoked = decode_head(delivery.head).id in self._revoked
            except DecodeError:
                continue  # whoever runs it finds out and reports it

    def _give_up(self, tag: int, content: Content, queue: str, exc: DecodeError) -> None:
        logger.error(
            "A message on queue %r cannot be read and was put into the dead-letter queue: %s",
            queue,
            exc,
        )
        parcel = dead_letters.parcel({}, content.body, queue, f"unreadable: {exc}", "", 1)
        self._broker.send([parcel])
        self._acknowledge([tag])

    # --- settling

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        unsettled = self._unsettled
        acks: list[int] = []
        returned: list[int] = []
        items: list[tuple[int, Parcel]] = []
        settled: set[int] = set()
        for settlement in settlements:
            tag, content = settlement.delivery.tag
            if unsettled.get(tag) is not content or tag in settled:
                continue  # not ours, or not any more: it changes nothing
            settled.add(tag)
            if settlement.action == Action.ACK and not settlement.publish:
                acks.append(tag)
                continue
            if tag not in self._followed:
                items += [(tag, parcel) for parcel in self._parcels(settlement)]
            (returned if self._goes_back_as_it_is(settlement) else acks).append(tag)
        if items:
            self._send(items)
            self._followed -= settled
        self._give_back(returned)
        self._acknowledge(acks)

    def _send(self, items: Sequence[tuple[int, Parcel]]) -> None:
        """Store what takes the place of claims; if that fails, nothing is settled yet."""
        try:
            self._broker.send([parcel for _, parcel in items])
        except PublishError as exc:
            failed = set(exc.failed)
            left = {tag for tag, parcel in items if parcel.id in failed}
            # The others are settled later, and not sent again then.
            self._followed |= {tag for tag, _ in items} - left
            raise

    def _give_back(self, tags: Sequence[int]) -> None:
        for tag in tags:
            del self._unsettled[tag]
        if tags:
            self._link.send_parts(m.pack(CLAIMING, m.BASIC_NACK, t, False, True) for t in tags)

    def _acknowledge(self, tags: list[int]) -> None:
        """In one write; the oldest ones together, as far as none is left out."""
        if not tags:
            return
        unsettled = self._unsettled
        for tag in tags:
            del unsettled[tag]
        oldest = next(iter(unsettled), None)
        if oldest is None:
            self._link.send(m.pack(CLAIMING, m.BASIC_ACK, max(tags), True))
            return
        below = max((tag for tag in tags if tag < oldest), default=0)
        parts = [b"%b%b\x00\xce" % (_ACK, tag.to_bytes(8, "big")) for tag in tags if tag > oldest]
        if below:
            parts.append(m.pack(CLAIMING, m.BASIC_ACK, below, True))
        self._link.send_parts(parts)

    def _goes_back_as_it_is(self, settlement: Settlement) -> bool:
        """Whether the server puts it where it was; a quorum queue would count that."""
        delivery = settlement.delivery
        return (
            settlement.action == Action.REQUEUE
            and not settlement.counted
            and not self._window.is_quorum(delivery.queue)
        )

    def _parcels(self, settlement: Settlement) -> list[Parcel]:
        """What is stored before a message is settled."""
        delivery = settlement.delivery
        items = parcels(settlement.publish, clock.now()) if settlement.publish else []
        for parcel in items:
            if parcel.exchange and parcel.id == _id_of(delivery):
                # Its next run: other queues of the exchange have copies of their own.
                parcel.exchange, parcel.routing_key = "", parcel.queue
        if settlement.action != Action.ACK and not self._goes_back_as_it_is(settlement):
            items.append(self._again(settlement, delivery.tag[1]))
        return items

    def _again(self, settlement: Settlement, content: Content) -> Parcel:
        """The message that takes the place of a claimed one."""
        delivery = settlement.delivery
        properties = decode_properties(content.header)
        if settlement.action == Action.DEAD:
            return dead_letters.parcel(
                properties,
                content.body,
                delivery.queue,
                settlement.reason,
                settlement.detail,
                delivery.deliveries,
            )
        times = delivery.deliveries if settlement.counted else delivery.deliveries - 1
        headers = {k: v for k, v in (properties.get("headers") or {}).items() if not is_history(k)}
        if times:
            headers[DELIVERIES] = times
        delay = 0.0
        if settlement.action == Action.DEFER:
            delay = delay_until(settlement.until)
            properties.pop("expiration", None)
        encoded = encode_properties({**properties, "headers": headers})
        task_id = str(properties.get("correlation_id") or "")
        queue = delivery.queue
        return Parcel(task_id, queue, "", queue, encoded, content.body, delay)

    # --- what arrives

    def _take_arrived(self) -> None:
        """Sort what the server has sent."""
        link = self._link
        if link.arrived:
            news = []
            unsettled, waiting = self._unsettled, self._waiting
            for content in link.take():
                if content.channel == CLAIMING:
                    tag = content.tag()[0]
                    unsettled[tag] = content
                    waiting.append((tag, content))
                else:
                    news.append(content)
            if news:
                self._revoked.take(link, news)
        if link.cancelled:
            self._window.cancelled(link.cancelled)
            link.cancelled = []
        refused = link.is_closed(CLAIMING)
        if refused is not None:
            raise refused

    # --- waiting

    def fileno(self) -> int:
        """See :meth:`chervil.drivers.contracts.Consumer.fileno`."""
        return self._ear.fileno()

    def drain(self) -> bool:
        """See :meth:`chervil.drivers.contracts.Consumer.drain`."""
        woken = self._ear.unring()
        try:
            with self._lock:
                self._link.pump()
                self._take_arrived()
                if self.room:
                    self._adjust(0, 0)
                elif self.room is None and not self._window.size:
                    self._window.open(1)
        except (OperationalError, Refused):
            return True  # the exchange says what is wrong
        return woken or bool(self._waiting)

    def next_due(self) -> float | None:
        """See :meth:`chervil.drivers.contracts.Consumer.next_due`; the server does not tell."""
        return None

    def wake(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.wake`."""
        self._ear.ring()

    # --- the lease

    def _check(self) -> None:
        if self._closed:
            raise LeaseLost("this consumer is closed")
        link = self._link
        refused = link.is_closed(CLAIMING)
        if refused is not None or not link.open:
            raise self._lost(refused)

    def _lost(self, why: Exception | None) -> LeaseLost:
        """The claims are the server's again, and what was claimed here is void."""
        self._unsettled.clear()
        self._waiting.clear()
        if isinstance(why, Refused):
            why = self._link.refused(why)
        self._link.close()
        return LeaseLost(
            f"{why or 'the connection to RabbitMQ broke'}; the claims of this node went back to "
            "their queues"
        )

    def renew(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.renew`: a heartbeat.

        The hub may be busy for long, in the solo pool with a task; so what the server sent
        meanwhile is read here, lest it waits to be rid of it.
        """
        link = self._link
        if self._closed or not link.open or link.is_silent(2 * self._heartbeat + 1):
            link.sever()
            raise LeaseLost("the connection to RabbitMQ broke, and with it went the claims")
        try:
            link.beat()
        except OperationalError as exc:
            raise LeaseLost(f"{exc}; the claims went back to their queues") from exc
        if clock.monotonic() - link.heard_at > self._heartbeat and self._lock.acquire(False):
            try:
                link.pump()
            except OperationalError as exc:
                raise LeaseLost(f"{exc}; the claims went back to their queues") from exc
            finally:
                self._lock.release()
            if link.arrived or link.is_closed(CLAIMING):
                self._ear.ring()

    def recover(self) -> int:
        """See :meth:`chervil.drivers.contracts.Consumer.recover`; the server does it."""
        return 0

    def tend(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.tend`."""
        self._revoked.forget_old()

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.Consumer.close`."""
        if self._closed:
            return
        self._closed = True
        self._unsettled.clear()
        self._waiting.clear()
        self._ear.close()
        self._link.close()


def _id_of(delivery: Delivery) -> Any:
    try:
        return decode_head(delivery.head).id
    except DecodeError:
        return None
