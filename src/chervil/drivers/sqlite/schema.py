"""The tables of a database file, and the check that a file is one of ours.

A message's row is written once and deleted once. What changes while it waits and
runs is kept apart in small tables, so that claiming a message of 50 MB costs as
much as claiming one of 50 bytes. Each message has exactly one row in one of
``ready``, ``delayed`` and ``claims``.

The alternative, one table with an ``owner`` column and partial indexes on it,
rewrites the row at each claim: with 700 bytes a message that made a batched
exchange a fifth slower, and gains nothing elsewhere.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from chervil.exceptions import ImproperlyConfigured

#: Marks the file as ours (``PRAGMA application_id``): "Chrv".
APPLICATION_ID: Final = 0x43687276
#: Grows with each change to the tables (``PRAGMA user_version``).
VERSION: Final = 4

TABLES: Final = (
    # Queues are numbered, so that long names cost nothing in indexes. Rows stay.
    """CREATE TABLE queues (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    )""",
    # rank is the priority with its sign changed: smaller goes first.
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        queue INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        head BLOB NOT NULL,
        body BLOB NOT NULL
    )""",
    # May be claimed; its primary key is the order in which that happens.
    # since: Unix time from which on it waits.
    """CREATE TABLE ready (
        queue INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        id INTEGER NOT NULL,
        deliveries INTEGER NOT NULL,
        since REAL NOT NULL,
        PRIMARY KEY (queue, rank, id)
    ) WITHOUT ROWID""",
    # To be moved to ready at the Unix time due.
    """CREATE TABLE delayed (
        queue INTEGER NOT NULL,
        due REAL NOT NULL,
        id INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        deliveries INTEGER NOT NULL,
        PRIMARY KEY (queue, due, id)
    ) WITHOUT ROWID""",
    # Claimed by the consumer `owner`. As many rows as nodes have taken: no index.
    """CREATE TABLE claims (
        id INTEGER PRIMARY KEY,
        owner INTEGER NOT NULL,
        deliveries INTEGER NOT NULL
    )""",
    """CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        deliveries INTEGER NOT NULL,
        died_at REAL NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        head BLOB NOT NULL,
        body BLOB NOT NULL
    )""",
    "CREATE INDEX dead_letters_queue ON dead_letters (queue)",
    # AUTOINCREMENT: the number of a consumer is never given to another one.
    # lease_until is on the clock that starts with the machine (CLOCK_MONOTONIC).
    """CREATE TABLE consumers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        node TEXT NOT NULL,
        lease_until REAL NOT NULL
    )""",
    # Sockets to knock at when something was put into a queue.
    """CREATE TABLE wants (
        queue INTEGER NOT NULL,
        name TEXT NOT NULL,
        PRIMARY KEY (queue, name)
    ) WITHOUT ROWID""",
    # Sockets to send outcomes to; foreign: also to be told that others' came.
    """CREATE TABLE listeners (
        name TEXT PRIMARY KEY,
        address TEXT NOT NULL,
        foreign_ids INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    "CREATE INDEX listeners_address ON listeners (address)",
    "CREATE INDEX listeners_foreign ON listeners (name) WHERE foreign_ids",
    # Not WITHOUT ROWID: payloads would lie in the order of the ids, and each
    # write would touch a page of its own; that took 2.5 times as long.
    """CREATE TABLE results (
        id INTEGER PRIMARY KEY,
        task_id TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL,
        expires REAL NOT NULL,
        payload BLOB NOT NULL
    )""",
    "CREATE INDEX results_expires ON results (expires) WHERE expires > 0",
    """CREATE TABLE revoked (
        task_id TEXT PRIMARY KEY,
        expires REAL NOT NULL
    ) WITHOUT ROWID""",
)

#: What was added after version 1; made in older files when they are opened.
ADDED: Final = (
    # Sockets of who listens to notes; answers: for what is sent to its key alone.
    """CREATE TABLE IF NOT EXISTS mailboxes (
        name TEXT PRIMARY KEY,
        exchange TEXT NOT NULL,
        key TEXT NOT NULL,
        answers INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # Notes that they have not read; few, and not for long: no index.
    """CREATE TABLE IF NOT EXISTS notes (
        id INTEGER PRIMARY KEY,
        mailbox TEXT NOT NULL,
        note BLOB NOT NULL
    )""",
    # Chords. size: 0 while nobody said it. fired: the member that completed it, or failed first.
    # closed: the body was sent.
    """CREATE TABLE IF NOT EXISTS joins (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL DEFAULT 0,
        wider INTEGER NOT NULL DEFAULT 0,
        arrived INTEGER NOT NULL DEFAULT 0,
        fired TEXT,
        closed INTEGER NOT NULL DEFAULT 0,
        expires REAL NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS joins_expires ON joins (expires)",
    """CREATE TABLE IF NOT EXISTS arrivals (
        id INTEGER PRIMARY KEY,
        join_id INTEGER NOT NULL,
        member TEXT NOT NULL,
        place INTEGER NOT NULL,
        value BLOB NOT NULL,
        UNIQUE (join_id, member)
    )""",
    # Triggers that somebody was to publish since a Unix time; few, and not for long: no index.
    """CREATE TABLE IF NOT EXISTS triggers (
        join_id INTEGER PRIMARY KEY,
        since REAL NOT NULL,
        message BLOB NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS groups (
        name TEXT PRIMARY KEY,
        expires REAL NOT NULL,
        payload BLOB NOT NULL
    ) WITHOUT ROWID""",
)


def check(connection: sqlite3.Connection, path: str) -> int:
    """The version of the tables that are there, 0 for none; changes nothing.

    :raises ImproperlyConfigured: the file is another program's, or of a newer version.
    """
    # In this order: another process may create the tables at any moment.
    tables = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        if version > VERSION:
            raise ImproperlyConfigured(
                f"{path} was written by a newer Chervil (tables of version {version}, this "
                f"one knows {VERSION}): upgrade Chervil here, or name another file"
            )
        return int(version)
    if application or tables:
        raise ImproperlyConfigured(
            f"{path} is a database of another program; name another file, Chervil creates it"
        )
    return 0


def create(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables that are not there."""
    if check(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = check(connection, path)  # another process may have been faster
        if version < VERSION:
            for statement in (*(() if version else TABLES), *ADDED):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
