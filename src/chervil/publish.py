"""Sending messages: the one way from a client to the broker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chervil import clock, signals
from chervil.exceptions import ImproperlyConfigured, OperationalError, PublishError
from chervil.groupcommit import GroupCommit
from chervil.messages import MessageBuilder

if TYPE_CHECKING:
    import asyncio

    from chervil.app import Chervil
    from chervil.drivers.contracts import Broker
    from chervil.wire.message import Message


class Publisher(MessageBuilder):
    """Builds and sends the messages of one app."""

    def __init__(self, app: Chervil) -> None:
        super().__init__(app)
        self._commit = GroupCommit(self.send)

    def send(
        self,
        messages: Sequence[Message],
        options: Mapping[str, Any] | None = None,
        bodies: Sequence[Any] = (),
    ) -> None:
        """Store messages in the broker, trying again within ``publish_timeout``.

        :param options: ``retry``, ``retry_policy``, ``producer`` and ``connection`` of
            ``apply_async``.
        :param bodies: for ``after_task_publish``: (args, kwargs, embed) of each message.
        :raises BrokerUnavailable: none were stored.
        :raises PublishError: some were not; it names them.
        """
        broker = self._app.broker
        if options is not None:
            broker = _broker_of(options) or broker
        began = clock.monotonic()
        try:
            if self._app.has_private_results:
                self._expect(messages)
            broker.publish(messages)
        except OperationalError as exc:
            self._try_again(broker, messages, exc, options or {}, began)
        if signals.after_task_publish.receivers:
            _after(messages, bodies)

    def _expect(self, messages: Sequence[Message]) -> None:
        """Tell a private store what is sent, before it is."""
        store, address = self._app.private_backend, self._app.address
        ids = [
            message.id
            for message in messages
            if message.reply_to == address and not message.headers.get("ignore_result")
        ]
        if ids and store is not None:
            store.expect(address, ids)

    def _try_again(
        self,
        broker: Broker,
        messages: Sequence[Message],
        error: OperationalError,
        options: Mapping[str, Any],
        began: float,
    ) -> None:
        conf = self._app.conf
        retry = options.get("retry")
        if not (conf.task_publish_retry if retry is None else retry):
            raise error
        policy = {**conf.task_publish_retry_policy, **(options.get("retry_policy") or {})}
        most, attempt = policy["max_retries"], 0
        deadline = began + conf.publish_timeout
        while most is None or attempt < most:
            pause = policy["interval_start"] + policy["interval_step"] * attempt
            pause = min(pause, policy["interval_max"])
            if clock.monotonic() + pause >= deadline:
                break
            time.sleep(pause)
            attempt += 1
            if isinstance(error, PublishError) and error.failed:
                failed = set(error.failed)
                messages = [message for message in messages if message.id in failed]
            try:
                if self._app.has_private_results:
                    self._expect(messages)
                broker.publish(messages)
            except OperationalError as exc:
                error = exc
            else:
                return
        raise error

    async def asend(self, messages: Sequence[Message]) -> None:
        """:meth:`send` for coroutines, together with what others send at the same time."""
        import asyncio  # whoever calls this has it already

        await self.submit(messages, asyncio.get_running_loop())

    def submit(
        self, messages: Sequence[Message], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[None]:
        """Have messages stored by the publisher thread; see :class:`GroupCommit`."""
        return self._commit.submit(messages, loop)

    def reset(self) -> None:
        """In the child after a fork: the parent's thread is not here."""
        self._commit.reset()

    def close(self) -> None:
        """Send what is waiting, and stop the publisher thread."""
        self._commit.close()


def _broker_of(options: Mapping[str, Any]) -> Broker | None:
    """An open broker that was given as ``producer`` or ``connection``."""
    for key in ("producer", "publisher", "connection"):
        given = options.get(key)
        if given is not None:
            if not hasattr(given, "publish") or not hasattr(given, "depths"):
                raise ImproperlyConfigured(
                    f"{key}={given!r}: must be a broker, such as app.broker; leave it out to "
                    "use the app's own"
                )
            broker: Broker = given
            return broker
    return None


def _after(messages: Sequence[Message], bodies: Sequence[Any]) -> None:
    for number, message in enumerate(messages):
        signals.after_task_publish.send(
            sender=message.headers["task"],
            body=bodies[number] if number < len(bodies) else None,
            exchange=message.exchange,
            routing_key=message.routing_key,
            headers=message.headers,
            properties=message.properties,
        )
