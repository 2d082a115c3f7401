"""Outcomes in Redis, under the keys of Celery's result backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chervil import clock
from chervil.drivers.redis import outcomes
from chervil.drivers.redis.link import Pool
from chervil.drivers.redis.listener import RedisListener
from chervil.drivers.redis.location import parse
from chervil.drivers.redis.names import Names, result_prefix
from chervil.drivers.redis.scripts import load
from chervil.exceptions import BackendError
from chervil.wire.message import Outcome

_STORE = load("outcomes.lua")
#: Outcomes that are stored by one call of the script; others wait as long.
_AT_ONCE = 500


class RedisResults:
    """See :class:`chervil.drivers.contracts.ResultStore`.

    A result is the value of ``celery-task-meta-<id>`` and is published on the channel of
    the same name. Redis deletes it when it expires.

    :param url: as for :class:`chervil.drivers.redis.broker.RedisBroker`; in the same
        database as the broker's, outcomes are stored with the acknowledgements.
    :param options: see :class:`chervil.drivers.redis.location.Location`.
    :raises ImproperlyConfigured: the URL or an option is wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.location = parse(url, options or {})
        self.prefix = result_prefix(self.location)
        self._names = Names(self.location)
        self._pool = Pool(self.location, BackendError)

    def put(self, outcomes_: Sequence[Outcome]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.put`."""
        for start in range(0, len(outcomes_), _AT_ONCE):
            part = outcomes_[start : start + _AT_ONCE]
            arguments = outcomes.arguments(part, clock.now())
            with self._pool.link() as link:
                link.script(_STORE, (), self._names.prefix, self.prefix, len(part), *arguments)

    def get(self, ids: Collection[str]) -> Mapping[str, Outcome]:
        """See :meth:`chervil.drivers.contracts.ResultStore.get`."""
        if not ids:
            return {}
        with self._pool.link() as link:
            found = outcomes.get(link, self._names, self.prefix, ids)
        return {outcome.task_id: outcome for outcome in found}

    def forget(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.forget`."""
        if not ids:
            return
        keys = [self.prefix + task_id.encode() for task_id in ids]
        keys += [self._names.own(f"status.{task_id}") for task_id in ids]
        with self._pool.link() as link:
            for start in range(0, len(keys), _AT_ONCE):
                link.call("UNLINK", *keys[start : start + _AT_ONCE])

    def listener(self, address: str) -> RedisListener:
        """See :meth:`chervil.drivers.contracts.ResultStore.listener`."""
        return RedisListener(self.location, self._names, self.prefix, self._pool, address)

    def expire(self) -> int:
        """See :meth:`chervil.drivers.contracts.ResultStore.expire`; Redis does it by itself."""
        return 0

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.close`."""
        self._pool.close()
