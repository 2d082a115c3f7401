"""What a broker and a result store must be able to do.

Rules that hold for every driver and that the conformance suites
(``chervil.testing``) check:

* Everything is in batches; a batch of one is not a special case.
* A call returns when what it did is stored, or raises an
  :class:`~chervil.exceptions.OperationalError` within its deadline.
* ``Broker`` and ``ResultStore`` objects may be used from any thread and, after
  a fork, from the child. A ``Consumer`` belongs to one thread, except
  ``renew``, ``recover``,
  ``tend`` and ``wake``.
* A claim belongs to its consumer until it is settled, the consumer is closed,
  or its lease runs out; what a consumer settles after that changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from chervil.drivers.chords import Arrival, JoinStore
from chervil.wire.message import Message, Outcome
from chervil.wire.notes import Note


class Features(msgspec.Struct, frozen=True):
    """What a broker can do by itself; the node makes up for the rest."""

    #: Holds messages until they are due.
    delay: bool = True
    #: Serves messages in the order of their priorities: the larger first, except on
    #: brokers that Celery uses the other way round (Redis).
    priority: bool = True
    #: Can write outcomes in the step that settles their messages.
    atomic_results: bool = False
    #: Usable from other processes than the one that opened it.
    shared: bool = True
    #: Largest head + body in bytes; 0 means no limit of its own.
    max_size: int = 0
    #: Has :meth:`Broker.fanout`, so that nodes can be asked and told things.
    fanout: bool = False
    #: Knows its delayed messages: counts them, deletes them with ``purge``, and tells when
    #: the next one is due.
    sees_delayed: bool = True
    #: Can name all of its queues, also those that this process has nothing to do with.
    lists_queues: bool = True


class Binding(msgspec.Struct, frozen=True):
    """A way from an exchange to a queue, and the exchange itself."""

    exchange: str
    exchange_type: str = "direct"
    routing_key: str = ""
    arguments: Mapping[str, Any] = {}
    durable: bool = True
    auto_delete: bool = False
    exchange_arguments: Mapping[str, Any] = {}
    #: False: the exchange is there, or somebody else declares it.
    declare: bool = True


class Queue(msgspec.Struct, frozen=True):
    """A queue that can be declared, sent to and consumed from."""

    name: str
    exchange: str = ""
    exchange_type: str = "direct"
    routing_key: str = ""
    #: ``x-max-priority`` where the broker needs to be told; None: not set.
    max_priority: int | None = None
    durable: bool = True
    queue_arguments: Mapping[str, Any] = {}
    binding_arguments: Mapping[str, Any] = {}
    auto_delete: bool = False
    exclusive: bool = False
    #: For brokers with exchanges, all of its bindings; empty: the one that is named above.
    bindings: Sequence[Binding] = ()
    #: False: it is there, or somebody else declares it.
    declare: bool = True
    #: For ``basic.consume`` of AMQP.
    consumer_arguments: Mapping[str, Any] = {}


class Delivery(msgspec.Struct, gc=False):
    """A message as a consumer claimed it."""

    #: The driver's own handle of the claim.
    tag: Any
    queue: str
    #: Envelope as JSON bytes; with ``body is None`` it includes the body.
    head: bytes
    body: bytes | None
    #: How often it was claimed, this time included; starts at 1.
    deliveries: int
    #: The task was revoked before it was claimed.
    revoked: bool = False


class Action(enum.IntEnum):
    """What becomes of a claimed message."""

    #: Done; delete it.
    ACK = 0
    #: Back to the front of its queue, at once.
    REQUEUE = 1
    #: Back to its queue at ``Settlement.until``.
    DEFER = 2
    #: To the dead-letter queue, with ``Settlement.reason``.
    DEAD = 3


class Settlement(msgspec.Struct, gc=False):
    """What to do with a claimed message, and what to store in the same step."""

    delivery: Delivery
    action: Action = Action.ACK
    #: For DEFER: Unix time in seconds.
    until: float = 0.0
    #: For DEAD: one line that says why.
    reason: str = ""
    #: For DEAD: the traceback or other detail, may be empty.
    detail: str = ""
    #: For REQUEUE and DEFER: False takes this delivery off the count
    #: (it was given back without having been started).
    counted: bool = True
    outcome: Outcome | None = None
    #: Messages to be stored in the same step: retries, callbacks, next steps.
    publish: Sequence[Message] = ()
    #: Outcomes of others that end with this one, such as the later steps of a chain.
    others: Sequence[Outcome] = ()
    #: Members of chords that end with this one.
    arrivals: Sequence[Arrival] = ()
    #: Chords that begin with what is published: ids and how many members they have.
    begins: Mapping[str, int] = {}
    #: Chords whose body is published here: what was kept for them may go.
    closes: Sequence[str] = ()


class Depth(msgspec.Struct, frozen=True):
    """How much a queue holds; None: the broker does not tell."""

    ready: int = 0
    delayed: int | None = 0
    claimed: int | None = 0
    dead: int | None = 0
    #: Seconds that the oldest ready message has waited; 0 when none waits.
    oldest: float | None = 0.0


class DeadLetter(msgspec.Struct, frozen=True):
    """A message in the dead-letter queue."""

    #: Identifies it in ``replay`` and ``drop``.
    key: str
    queue: str
    head: bytes
    body: bytes | None
    reason: str
    detail: str
    deliveries: int
    #: Unix time in seconds at which it arrived here.
    died_at: float


class Consumer(Protocol):
    """A node's claim on messages of some queues, under one lease."""

    #: How many messages more the node could start now, for brokers that send messages
    #: before they are asked; the node keeps it up to date. None: unknown.
    room: int | None

    def exchange(self, settlements: Sequence[Settlement], limit: int) -> Sequence[Delivery]:
        """Settle what is finished and claim up to ``limit`` messages, without waiting.

        Where the broker can (``Features.atomic_results``) the outcomes, arrivals and
        follow-up messages of a settlement are stored in the same transaction, and so
        are the triggers of chords that are complete with it; elsewhere the caller has
        stored outcomes and arrivals, and follow-ups are stored before the message is
        settled.

        :raises LeaseLost: the lease ran out; nothing was claimed and the
            settlements changed nothing.
        :raises BrokerUnavailable: nothing is known to be stored; call again.
        """
        ...

    def fileno(self) -> int:
        """A descriptor that is readable when ``exchange`` may find new messages."""
        ...

    def drain(self) -> bool:
        """Reset ``fileno``; True when there may be something to claim: then it may be
        readable again only after an ``exchange`` that claims."""
        ...

    def next_due(self) -> float | None:
        """Unix time at which the next delayed message is due, if one is known."""
        ...

    def renew(self) -> None:
        """Extend the lease. May be called from any thread.

        :raises LeaseLost: it had run out and the claims belong to others.
        """
        ...

    def recover(self) -> int:
        """Take back the claims of consumers that died; how many messages.

        May be called from any thread."""
        ...

    def tend(self) -> None:
        """Housekeeping of the store, about once a second, so that no commit has to wait
        for it. May be called from any thread."""
        ...

    def wake(self) -> None:
        """Make ``fileno`` readable. May be called from any thread or signal handler."""
        ...

    def close(self) -> None:
        """Give back at once whatever is not settled, uncounted, and end the lease."""
        ...


class Mailbox(Protocol):
    """Where notes arrive for one who listens. Belongs to one thread at a time.

    What comes faster than it is read is bounded: the oldest are lost.
    """

    def fileno(self) -> int:
        """A descriptor that is readable when :meth:`receive` may find something; the same
        one until it is closed."""
        ...

    def receive(self) -> Sequence[Note]:
        """What has arrived, without waiting; what is not a note is left out.

        :raises BrokerUnavailable: the connection is lost; close it and open another.
        """
        ...

    def close(self) -> None:
        """Listen no longer, and remove what it had in the broker. Never raises; doing it
        again changes nothing."""
        ...


class Fanout(Protocol):
    """Notes to all who listen at that moment, and answers to one of them.

    Nothing is kept for who listens later, and nothing outlives its owner: what a
    process leaves behind when it dies is removed by others, or expires.
    May be used from any thread and, after a fork, from the child. Each method raises
    :class:`~chervil.exceptions.BrokerUnavailable` when the broker does not answer.
    """

    def subscribe(self, exchange: str, name: str, key: str = "") -> Mailbox:
        """Hear what is broadcast from the moment on at which this returns.

        :param name: of who listens; names what the broker keeps for it.
        :param key: only notes whose key matches, ``#`` standing for any words.
        """
        ...

    def broadcast(self, exchange: str, note: Note, key: str = "") -> int | None:
        """Tell all who listen to that exchange; how many they are, None: unknown."""
        ...

    def answers(self, exchange: str, key: str) -> Mailbox:
        """Hear what is sent to this key with :meth:`reply`, from now on."""
        ...

    def reply(self, exchange: str, key: str, note: Note) -> None:
        """Answer who listens at that key; nothing happens when nobody does."""
        ...


class Broker(Protocol):
    """Stores messages until a consumer has settled them."""

    features: Features
    #: Tells how a queue is to be declared that a message is sent to; set by who opens the
    #: broker. None: as ``Queue(name)``. For brokers whose queues have to be declared.
    definition: Callable[[str], Queue] | None

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make sure that these queues exist; doing it again changes nothing."""
        ...

    def publish(self, messages: Sequence[Message]) -> None:
        """Store all messages.

        :raises BrokerUnavailable: none were stored within the deadline.
        :raises PublishError: some were not; it names them.
        """
        ...

    def consumer(self, queues: Sequence[Queue], node: str, lease: float = 10.0) -> Consumer:
        """Start to consume; ``lease`` in seconds."""
        ...

    def depths(self, queues: Sequence[str] | None = None) -> Mapping[str, Depth]:
        """What these queues hold; all queues that are known when None."""
        ...

    def purge(self, queue: str) -> int:
        """Delete the ready and delayed messages of a queue; how many."""
        ...

    def revoke(self, ids: Iterable[str], expires: float) -> Collection[str] | None:
        """Remember, until the Unix time ``expires``, that these tasks must not run.

        :returns: those that a consumer may hold a claim on, which may be running; nobody
            will start the others. None: the broker cannot tell.
        """
        ...

    def revoked(self, limit: int = 1000) -> Sequence[str]:
        """Tasks that are remembered so, up to that many. (``Features.fanout``)"""
        ...

    def fanout(self) -> Fanout:
        """Notes to all nodes, over this broker's connections. (``Features.fanout``)"""
        ...

    def dead(
        self, queue: str | None = None, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """Dead letters, oldest first, starting behind the key ``after``."""
        ...

    def replay(self, keys: Sequence[str]) -> int:
        """Put dead letters back on their queues with the count at 0; how many."""
        ...

    def drop(self, keys: Sequence[str]) -> int:
        """Delete dead letters; how many."""
        ...

    def shares(self, store: ResultStore) -> bool:
        """Whether ``exchange`` writes outcomes into that store atomically."""
        ...

    def close(self) -> None:
        """Release connections; the object can be used again afterwards."""
        ...


class Listener(Protocol):
    """A process's ear at the result store; one thread waits for all."""

    #: To be put into ``Message.reply_to``, so that the store tells this listener.
    address: str

    def watch(self, ids: Collection[str], sent_here: bool) -> bool:
        """Report these tasks. From any thread.

        ``sent_here`` says that the messages carried this listener's address.
        True when what was stored before the call is reported, too; else ``get`` it
        afterwards.
        """
        ...

    def unwatch(self, ids: Collection[str]) -> None:
        """Report them no longer. From any thread."""
        ...

    def wait(self, timeout: float) -> Sequence[Outcome]:
        """Wait up to ``timeout`` seconds for news of watched tasks.

        Intermediate states are reported too; one may be skipped when a later
        one is there already. The ends of tasks that carry this listener's address
        may be reported although nobody watches them."""
        ...

    def wake(self) -> None:
        """End a ``wait`` early. From any thread."""
        ...

    def close(self) -> None: ...


class ResultStore(JoinStore, Protocol):
    """Keeps the last outcome of each task."""

    def put(self, outcomes: Sequence[Outcome]) -> None:
        """Store; an outcome never replaces one that says SUCCESS.

        :raises BackendError: nothing is known to be stored.
        """
        ...

    def get(self, ids: Collection[str]) -> Mapping[str, Outcome]:
        """What is stored and has not expired; unknown ids are left out."""
        ...

    def forget(self, ids: Collection[str]) -> None:
        """Delete."""
        ...

    def listener(self, address: str) -> Listener:
        """Start listening for a client of that address."""
        ...

    def expire(self) -> int:
        """Delete what has expired, a bounded number at once; how many."""
        ...

    def close(self) -> None:
        """Release connections; the object can be used again afterwards."""
        ...


class PrivateStore(ResultStore, Protocol):
    """A result store that tells outcomes to who sent the task, and to nobody else.

    ``put`` drops outcomes whose address is not that of somebody who expects them. ``get``
    knows what has arrived in this process.
    """

    def expect(self, address: str, ids: Collection[str]) -> None:
        """Called before the messages of these tasks are sent, which carry that address.

        :raises BrokerUnavailable: their results could not arrive.
        """
        ...

    def awaits(self, task_id: str) -> bool:
        """Whether its outcome has arrived here or can still do so."""
        ...
