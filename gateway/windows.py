"""Windows: counted requests, exact across the processes of one machine. One SQLite file that they all open.

A window is fixed: it starts with the first request that it counts and lasts ``length_ms``. What was counted stays
counted, also if the process that counted it is killed the moment after; what was refused is not counted.

A check is a statement that SQLite runs from its lock to its commit in one step, *without the GIL*. That is what keeps
it cheap: a lock of the file that is held across a return to Python waits for the GIL of a busy worker, up to 5 ms a
switch, and all other workers wait with it. Hence no RETURNING (its commit is a second step) and no lock of our own
across processes. A statement that meets another process' lock is tried again after a short pause; SQLite's own pauses
grow to 0.1 s.

**When the file cannot be used** (disk full, permissions, a frozen process that holds its lock), `Windows.take` raises
`Uncountable`, at the latest after a quarter of a second, and for the next second at once, so that no queue builds up. A
file that was removed is made anew within a second, by all processes; its windows start again.

SQLite's write-ahead log survives a SIGKILL of any process at any moment. It is not synced against a power failure and
need not be: each start begins with an empty file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from gateway.settings import Settings

_log = logging.getLogger(__name__)

VARIABLE: Final = "RATE_LIMIT_FILE"
"""Hands the file from gunicorn's master to its workers."""
_FILE_NAME: Final = "rate-limits.sqlite"
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_LOW_BYTE: Final = 0xFF  # of an extended result code: the primary one
_PAUSE_SECONDS: Final = 0.000_1
_PATIENCE_SECONDS: Final = 0.25
"""How long a check waits for another worker's: ten thousand times what one takes."""
_APPLICATION_ID: Final = int.from_bytes(b"BLRL")
_APPLICATION_ID_AT: Final = 68  # in SQLite's file header
_SECOND_NS: Final = 1_000_000_000

_CREATE: Final = """
    CREATE TABLE IF NOT EXISTS windows (key TEXT PRIMARY KEY, count INTEGER NOT NULL, ends INTEGER NOT NULL)
    WITHOUT ROWID
"""
_TAKE: Final = """
    INSERT INTO windows (key, count, ends) VALUES (:key, 1, :now + :length)
    ON CONFLICT (key) DO UPDATE SET
        count = CASE WHEN ends <= :now THEN 1 ELSE count + 1 END,
        ends = CASE WHEN ends <= :now THEN excluded.ends ELSE ends END
    WHERE ends <= :now OR count < :limit
"""
_READ: Final = "SELECT count, ends FROM windows WHERE key = :key"
_SWEEP: Final = "DELETE FROM windows WHERE ends <= :now"


class Uncountable(Exception):
    """The file cannot be used now."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a limit says of one request; ``reset_seconds`` until the window ends, rounded up, at least 1."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """As a client is told."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_seconds),
        }


class Windows:
    """Counted windows in a file that the processes of an instance share. Thread-safe; opened at the first use.

    Times are of the monotonic clock, which is the same for all processes of a machine and never set back.
    """

    def __init__(
        self, file: Path, length_ms: int, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._file: Final = file
        self._length: Final = length_ms * 1_000_000
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._looked_at = 0
        self._swept_at = 0
        self._left_alone_until = 0

    def take(self, key: str, limit: int) -> Tally:
        """Count a request of ``key``, unless ``limit`` are counted in its window. Raises Uncountable."""
        self._check_usable()
        with self._lock:
            self._check_usable()  # a failure while this thread waited ends its wait, too
            try:
                return self._take(key, limit)
            except (sqlite3.Error, OSError) as error:
                self._left_alone_until = self._clock() + _SECOND_NS
                self._close()
                raise Uncountable(str(error)) from error

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        with self._lock:
            self._close()

    def _check_usable(self) -> None:
        if self._clock() < self._left_alone_until:
            raise Uncountable("it failed less than a second ago")

    def _take(self, key: str, limit: int) -> Tally:
        now = self._clock()
        if now >= self._swept_at + self._length:
            self._run(_SWEEP, {})
            self._swept_at = now
        values: dict[str, str | int] = {"key": key, "length": self._length, "limit": limit}
        allowed = self._run(_TAKE, values).rowcount == 1
        # As it is by now: others may have counted since or, with the window over, swept it away.
        row = self._run(_READ, {"key": key}).fetchone()
        count, ends = row or (1, now + self._length)
        return Tally(
            allowed,
            limit,
            remaining=max(0, limit - count) if allowed else 0,
            reset_seconds=max(1, ceil((ends - self._clock()) / _SECOND_NS)),
        )

    def _run(self, statement: str, values: Mapping[str, str | int]) -> sqlite3.Cursor:
        """Run one statement, a transaction of its own. What met another process' lock did nothing: it is run again."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            now = self._clock()
            try:
                return self._opened(now).execute(statement, {**values, "now": now})
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & _LOW_BYTE not in _BUSY or time.monotonic() >= give_up:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _opened(self, now: int) -> sqlite3.Connection:
        """The database; opened again if its file is another one than a second ago."""
        if self._database is not None and now >= self._looked_at + _SECOND_NS:
            self._looked_at = now
            if _identity(self._file) != self._identity:
                _log.warning("%s was removed: the windows of rate limits start again", self._file)
                self._close()
        if self._database is None:
            self._database = _open(self._file)
            self._identity = _identity(self._file)
        return self._database

    def _close(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None


def prepare(settings: Settings, folder: Path) -> None:
    """In gunicorn's master, before it forks: an empty file, in ``folder`` unless it is set, handed to the workers.

    Does nothing when no limit is on. Raises Uncountable if the file cannot be used, so that a wrong path ends the start
    instead of the limits.
    """
    if not (settings.rate_limit_global_requests or settings.rate_limit_tenant_requests):
        return
    file = settings.rate_limit_file or folder / _FILE_NAME
    try:
        if not _may_be_removed(file):
            raise FileExistsError("it holds something else")
        # The file itself last: the workers of a master that is being replaced join the new one when they miss theirs,
        # and must not lose parts of it again.
        for suffix in ("-journal", "-shm", "-wal", ""):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        _open(file).close()
    except (sqlite3.Error, OSError) as error:
        raise Uncountable(f"{VARIABLE}: cannot use {str(file)!r} ({error})") from error
    os.environ[VARIABLE] = str(file)


def _open(file: Path) -> sqlite3.Connection:
    """A connection for all threads, used by one at a time. Raises sqlite3.Error, also where it meets a lock."""
    database = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA synchronous = OFF")
        if database.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
            # Before there is a write-ahead log, so that it stands in the file itself.
            database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(_CREATE)
    except BaseException:
        database.close()
        raise
    return database


def _may_be_removed(file: Path) -> bool:
    """Whether a file is not there, empty or one of ours: a path that is set by mistake shall cost nobody a database."""
    try:
        with file.open("rb") as content:
            header = content.read(_APPLICATION_ID_AT + 4)
    except FileNotFoundError:
        return True
    return not header or header[_APPLICATION_ID_AT:] == _APPLICATION_ID.to_bytes(4)


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells a file from another one with the same name; None if there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
