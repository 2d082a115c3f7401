"""``rpc://``: results as messages to who sent the task, as Celery's backend of that name."""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from chervil import clock
from chervil.drivers.amqp.link import Link
from chervil.drivers.amqp.listener import RpcListener
from chervil.drivers.amqp.location import Location, parse
from chervil.drivers.amqp.pool import PUBLISHING, Pool
from chervil.drivers.amqp.properties import encode_properties, frames
from chervil.drivers.amqp.replies import Inbox, ReplyOptions
from chervil.drivers.chords import NoJoins
from chervil.exceptions import (
    BackendError,
    BrokerUnavailable,
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
)
from chervil.wire import serializers
from chervil.wire.message import Outcome
from chervil.wire.outcomes import split_compression, status_in

logger = logging.getLogger("chervil.result")
_BROKERS: Final = ("amqp", "amqps", "pyamqp")
_open: weakref.WeakSet[RpcResults] = weakref.WeakSet()


class RpcResults(NoJoins):
    """See :class:`chervil.drivers.contracts.PrivateStore`.

    A result is sent to the queue that the task's message names in ``reply_to``, which is a
    queue of the process that has sent it. Where that queue is no more, the result is
    dropped. Celery's clients and workers can be at either end.

    :param url: ``rpc://`` uses the broker's address; ``rpc://user:password@host:port/vhost``
        another RabbitMQ.
    :param options: see :class:`chervil.drivers.amqp.location.Location` and
        :class:`chervil.drivers.amqp.replies.ReplyOptions`; and the settings that the
        registry names for this driver.
    :raises ImproperlyConfigured: the URL or an option is wrong, or the broker is no RabbitMQ.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        given = dict(options or {})
        self.options = _reply_options(given)
        self.location = _location(url, given)
        self._content_type, self._encoding, _ = serializers.dumps(None, self.options.serializer)
        self._pool = Pool(self.location, BackendError, "chervil results")
        #: By their addresses; mostly there is one.
        self._inboxes: dict[str, Inbox] = {}
        _open.add(self)

    # --- sending

    def put(self, outcomes: Sequence[Outcome]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.put`."""
        wanted = [outcome for outcome in outcomes if outcome.reply_to]
        if not wanted:
            return
        now = clock.now()
        with self._pool.link() as link:
            packed = [p for outcome in wanted if (p := self._packed(outcome, link, now))]
            failures = link.publish(packed, link.ready(PUBLISHING, confirm=True))
            if failures:
                raise BackendError(
                    f"RabbitMQ at {link.server.name} has refused {len(failures.refused)} results: "
                    "a queue is full or has no leader"
                )

    def _packed(self, outcome: Outcome, link: Link, now: float) -> bytes | None:
        payload, headers = outcome.payload, {}
        try:
            how, payload = split_compression(payload)
            if how:
                headers["compression"] = how
        except DecodeError:
            pass  # not a document of ours; whoever reads it is told
        properties: dict[str, Any] = {
            "content_type": self._content_type,
            "content_encoding": self._encoding,
            "headers": headers,
            "delivery_mode": 2 if self.options.persistent else 1,
            "priority": 0,
            "correlation_id": outcome.task_id,
        }
        if outcome.expires:
            properties["expiration"] = str(max(0, int((outcome.expires - now) * 1000)))
        if status_in(payload) != outcome.status:
            properties["type"] = outcome.status
        try:
            head = encode_properties(properties)
            return frames(
                head, payload, "", outcome.reply_to, link.session.frame_max, mandatory=False
            )
        except EncodeError as exc:  # no client of ours or of Celery's is called so
            logger.error("the result of task %s cannot be sent: %s", outcome.task_id, exc)
            return None

    # --- receiving

    def expect(self, address: str, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.PrivateStore.expect`."""
        inbox = self._inboxes.get(address) or self._inbox(address)
        try:
            inbox.expect(ids)
        except BackendError as exc:
            raise BrokerUnavailable(f"the results could not arrive: {exc}") from exc

    def _inbox(self, address: str) -> Inbox:
        return self._inboxes.setdefault(address, Inbox(self.location, address, self.options))

    def awaits(self, task_id: str) -> bool:
        """See :meth:`chervil.drivers.contracts.PrivateStore.awaits`."""
        return any(inbox.awaits(task_id) for inbox in list(self._inboxes.values()))

    def get(self, ids: Collection[str]) -> Mapping[str, Outcome]:
        """See :meth:`chervil.drivers.contracts.ResultStore.get`."""
        found: dict[str, Outcome] = {}
        for inbox in list(self._inboxes.values()):
            found.update(inbox.get(ids))
        return found

    def forget(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.forget`; what is still to come
        is kept when it comes."""
        for inbox in list(self._inboxes.values()):
            inbox.forget(ids)

    def listener(self, address: str) -> RpcListener:
        """See :meth:`chervil.drivers.contracts.ResultStore.listener`."""
        return RpcListener(self._inboxes.get(address) or self._inbox(address))

    def expire(self) -> int:
        """See :meth:`chervil.drivers.contracts.ResultStore.expire`."""
        return sum(inbox.kept.forget_old() for inbox in list(self._inboxes.values()))

    # --- the end

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.close`; results that have not been
        read are lost."""
        while self._inboxes:
            self._inboxes.popitem()[1].close()
        self._pool.close()

    def _after_fork(self) -> None:
        inboxes, self._inboxes = self._inboxes, {}
        for inbox in inboxes.values():
            inbox.leave()


def _reply_options(options: dict[str, Any]) -> ReplyOptions:
    """Takes its own out of the options."""
    kept = options.pop("kept_bytes", None)
    try:
        most = ReplyOptions().kept_bytes if kept is None else int(kept)
    except (TypeError, ValueError):
        most = 0
    if most <= 0:
        raise ImproperlyConfigured(f"kept_bytes of rpc:// is a number of bytes, not {kept!r}")
    return ReplyOptions(
        serializer=options.pop("result_serializer", "json"),
        persistent=bool(options.pop("result_persistent", False)),
        expires=float(options.pop("result_expires", 86400.0) or 0.0),
        kept_bytes=most,
    )


def _location(url: str, options: dict[str, Any]) -> Location:
    broker = options.pop("broker_url", "amqp://")
    for_broker = options.pop("broker_transport_options", {})
    rest = url.partition("://")[2]
    if rest.partition("?")[0].strip("/"):
        return parse(f"amqp://{rest}", options)
    scheme = broker.partition(":")[0]
    if scheme not in _BROKERS:
        raise ImproperlyConfigured(
            f"rpc:// sends results through the broker, which has to be RabbitMQ for that, not "
            f"{scheme}://; name one (rpc://user:password@host/vhost), or leave result_backend out"
        )
    query = rest.partition("?")[2]
    if query:
        broker += ("&" if "?" in broker.rpartition(";")[2] else "?") + query
    return parse(broker, {**for_broker, **options})


def _at_exit() -> None:
    """Queues whose process ends are of no use to anybody."""
    for store in list(_open):
        while store._inboxes:
            store._inboxes.popitem()[1].close(patience=1.0)


def _after_fork() -> None:
    for store in list(_open):
        store._after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
