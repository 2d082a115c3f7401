"""Outcomes in an SQLite file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chervil import clock
from chervil.drivers.chords import Arrival, Joined
from chervil.drivers.sqlite import joins, outcomes
from chervil.drivers.sqlite.database import Database, Link, blob
from chervil.drivers.sqlite.listener import SqliteListener
from chervil.drivers.sqlite.location import parse
from chervil.drivers.sqlite.wake import Bell, Places
from chervil.exceptions import BackendError
from chervil.wire.message import Message, Outcome

#: Outcomes that are deleted in one go.
_EXPIRE = 1000
#: Triggers that are found again in one go.
_UNSENT = 100


class SqliteResults:
    """See :class:`chervil.drivers.contracts.ResultStore`.

    :param url: as for :class:`chervil.drivers.sqlite.broker.SqliteBroker`; with the
        same file as the broker, outcomes are stored with the acknowledgements.
    :param options: the same as there.
    :raises ImproperlyConfigured: the URL or an option is wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.location = parse(url, options or {})
        self.places = Places(self.location.path)
        self.database = Database(self.location, BackendError)
        self._bell = Bell(self.places)

    def put(self, outcomes_: Sequence[Outcome]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.put`."""
        if not outcomes_:
            return

        def work(link: Link) -> outcomes.News:
            sure = outcomes.put(link, outcomes_, clock.now())
            return outcomes.news(link, outcomes_, sure)

        gone: list[str] = []
        for names, datagram in self.database.write(work):
            gone += self._bell.ring(names, datagram)
        if gone:
            outcomes.forget_listeners(self.database, self.places, gone)

    def get(self, ids: Collection[str]) -> Mapping[str, Outcome]:
        """See :meth:`chervil.drivers.contracts.ResultStore.get`."""
        if not ids:
            return {}
        found = self.database.read(lambda link: outcomes.get(link, ids, clock.now()))
        return {outcome.task_id: outcome for outcome in found}

    def forget(self, ids: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.forget`."""
        if ids:
            self.database.write(
                lambda link: link.executemany(
                    "DELETE FROM results WHERE task_id = ?", [(task_id,) for task_id in ids]
                )
            )

    def listener(self, address: str) -> SqliteListener:
        """See :meth:`chervil.drivers.contracts.ResultStore.listener`."""
        return SqliteListener(self.database, self.places, address)

    # --- chords and groups

    joins = True

    def announce(self, wanted: Mapping[str, int]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.announce`; members say it themselves."""

    def arrive(self, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """See :meth:`chervil.drivers.contracts.ResultStore.arrive`."""
        if not arrivals:
            return ()
        now = clock.now()
        return self.database.write(lambda link: joins.arrive(link, arrivals, now, again=True))

    def sent(self, names: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.sent`."""
        self.database.write(lambda link: joins.sent(link, names))

    def unsent(self, age: float) -> Mapping[str, Message]:
        """See :meth:`chervil.drivers.contracts.ResultStore.unsent`."""
        now = clock.now()
        if not self.database.read(lambda link: joins.some_unsent(link, now - age)):
            return {}
        return self.database.write(lambda link: joins.unsent(link, now - age, now, _UNSENT))

    def joined(self, join: str) -> Joined | None:
        """See :meth:`chervil.drivers.contracts.ResultStore.joined`."""
        return self.database.read(lambda link: joins.joined(link, join))

    def widen(self, join: str, by: int) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.widen`."""
        self.database.write(lambda link: joins.widen(link, join, by, clock.now()))

    def close_joins(self, names: Collection[str]) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.close_joins`."""
        self.database.write(lambda link: joins.close(link, names, clock.now()))

    def put_group(self, group: str, payload: bytes, expires: float) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.put_group`."""
        row = (group, expires, blob(payload))
        self.database.write(
            lambda link: link.execute("INSERT OR REPLACE INTO groups VALUES (?, ?, ?)", row)
        )

    def get_group(self, group: str) -> bytes | None:
        """See :meth:`chervil.drivers.contracts.ResultStore.get_group`."""
        row = self.database.read(
            lambda link: link.execute(
                "SELECT payload FROM groups WHERE name = ? AND (expires <= 0 OR expires > ?)",
                (group, clock.now()),
            ).fetchone()
        )
        return None if row is None else bytes(row[0])

    def forget_group(self, group: str) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.forget_group`."""
        self.database.write(
            lambda link: link.execute("DELETE FROM groups WHERE name = ?", (group,))
        )

    def expire(self) -> int:
        """See :meth:`chervil.drivers.contracts.ResultStore.expire`."""
        now = clock.now()
        if self.database.read(lambda link: joins.something_expired(link, now)):
            self.database.write(lambda link: joins.expire(link, now, _EXPIRE))
        old = "FROM results WHERE expires > 0 AND expires <= ?"
        # Most of the time there is nothing, and looking takes no write lock.
        if not self.database.read(
            lambda link: link.execute(f"SELECT 1 {old} LIMIT 1", (now,)).fetchone()
        ):
            return 0
        return self.database.write(
            lambda link: (
                link.execute(
                    f"DELETE FROM results WHERE id IN (SELECT id {old} ORDER BY expires LIMIT ?)",
                    (now, _EXPIRE),
                ).rowcount
            )
        )

    def close(self) -> None:
        """See :meth:`chervil.drivers.contracts.ResultStore.close`."""
        self.database.close()
        self._bell.close()
