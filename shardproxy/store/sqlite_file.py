"""The SQLite file of the embedded store, as one thread sees it: blocking, one connection, one call at a time.

The file is in WAL mode: readers and the one writer do not wait for each other. It syncs at every commit, because what
the store has promised must survive a power cut, as the servers' own binlogs do; but for commits that need not last:
the next sync takes them along, so a power cut leaves all commits up to some point, and none behind it. All of a commit
is one SQLite transaction, so a process that is killed in the middle has changed nothing.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from shardproxy.errors import LeaseExpired, StoreConflict, StoreOutcomeUnknown, StoreUnavailable, WatchLost
from shardproxy.store.bell import mark, ring
from shardproxy.store.interface import (
    ABSENT,
    Change,
    Changes,
    Condition,
    Entry,
    Listing,
    Put,
    Write,
    conflict_text,
    decode,
    key_bytes,
    prefix_end,
)

FORMAT = 1  # of the tables below
KEPT = 10_000  # revisions whose changes are kept for watches
PRUNE_EVERY = 256  # revisions
_SCHEMA = (
    "CREATE TABLE store (format INTEGER NOT NULL, revision INTEGER NOT NULL, forgotten INTEGER NOT NULL)",
    "CREATE TABLE entry (key BLOB PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL, lease TEXT)"
    " WITHOUT ROWID",
    "CREATE TABLE change (revision INTEGER NOT NULL, key BLOB NOT NULL, value TEXT, PRIMARY KEY (revision, key))"
    " WITHOUT ROWID",
    "CREATE TABLE lease (id TEXT PRIMARY KEY, seconds INTEGER NOT NULL, ends REAL NOT NULL) WITHOUT ROWID",
    f"INSERT INTO store VALUES ({FORMAT}, 0, 0)",
)
_RANGE = "key >= :start AND (:end IS NULL OR key < :end)"
_ALIVE = "(lease IS NULL OR lease IN (SELECT id FROM lease WHERE ends > :now))"
_WRITE_LOCK = 120  # byte of the file "-shm": WAL_WRITE_LOCK of SQLite's file format
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_Result = TypeVar("_Result")


class Stage(Enum):
    WAITING = 1  # nothing has been changed, and can still be kept from it
    COMMITTING = 2  # what becomes of it is out of our hands
    ABANDONED = 3  # whoever asked has gone: it must not be done any more


class Attempt:
    """One change on its way: it is either abandoned in time, or begins to commit; never both."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline  # of time.monotonic()
        self.stage = Stage.WAITING
        self._lock = threading.Lock()

    def enter(self, stage: Stage) -> bool:
        """Go from WAITING to `stage`; False when it has left WAITING already."""
        with self._lock:
            if self.stage is not Stage.WAITING:
                return False
            self.stage = stage
            return True


class SqliteFile:
    """One connection to the file, which is made when it does not exist. Every method raises StoreUnavailable."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self._bells = bells_of(path)
        self._marks: set[bytes] = set()  # of what the change under way writes
        self._lasting = True  # as the connection was told last
        try:
            # Our own BEGIN and COMMIT; our own waiting for the lock, in shorter steps than SQLite's.
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            self._file = _identity(path)
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error
        try:
            self._prepare(time.monotonic() + seconds)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    # ── reading ──

    def get(self, key: str) -> Entry | None:
        """See MapStore."""
        values = {"key": key_bytes(key), "now": time.time()}
        rows = self._read(lambda: self._rows(f"SELECT value, version FROM entry WHERE key = :key AND {_ALIVE}", values))
        return Entry(key, decode(key, rows[0][0]), rows[0][1]) if rows else None

    def entries(self, prefix: str) -> Listing:
        """See MapStore.list."""
        values = {**_between(prefix), "now": time.time()}
        select = f"SELECT key, value, version FROM entry WHERE {_RANGE} AND {_ALIVE} ORDER BY key"
        rows, revision = self._read(lambda: (self._rows(select, values), self._revision()))
        found = [(key.decode(), value, version) for key, value, version in rows]
        return Listing(tuple(Entry(key, decode(key, value), version) for key, value, version in found), revision)

    def changes(self, prefix: str, after: int) -> tuple[list[Changes], int, bool]:
        """Changes after a revision, the revision up to which these are all, and whether leases wait to be swept.

        Raises WatchLost.
        """
        values = {**_between(prefix), "after": after}
        select = f"SELECT revision, key, value FROM change WHERE revision > :after AND {_RANGE} ORDER BY revision, key"
        [(current, forgotten, ends)], rows = self._read(
            lambda: (
                self._rows("SELECT revision, forgotten, (SELECT MIN(ends) FROM lease) FROM store"),
                self._rows(select, values),
            )
        )
        if not forgotten <= after <= current:
            raise WatchLost(
                f"{self._name}: changes after revision {after} are not to be had, only those after {forgotten} "
                f"to {current}: list anew"
            )
        found = []
        for revision, group in groupby(rows, key=lambda row: int(row[0])):
            changes = [(key.decode(), value) for _, key, value in group]
            found.append(Changes(revision, tuple(Change(k, None if v is None else decode(k, v)) for k, v in changes)))
        return found, current, ends is not None and ends <= time.time()

    def _read(self, ask: Callable[[], _Result]) -> _Result:
        """What `ask` finds, in one snapshot of the file."""
        try:
            self._same_file()
            self._db.execute("BEGIN")
            try:
                return ask()
            finally:
                self._db.execute("ROLLBACK")
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def _rows(self, select: str, values: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        return self._db.execute(select, values or {}).fetchall()

    def _revision(self) -> int:
        return int(self._rows("SELECT revision FROM store")[0][0])

    # ── writing ──

    def commit(
        self,
        attempt: Attempt,
        conditions: Sequence[Condition],
        writes: Sequence[Write],
        encoded: Mapping[str, str | None],
        lasting: bool = True,
    ) -> int:
        """See MapStore; `encoded` is what `checked` gave for the writes."""

        def work() -> int:
            versions = {c.key: self._version(c.key) for c in conditions}
            wrong = {c.key: versions[c.key] for c in conditions if versions[c.key] != c.version}
            if wrong:
                raise StoreConflict(conflict_text(conditions, wrong), wrong)
            for lease in {write.lease for write in writes if isinstance(write, Put) and write.lease is not None}:
                self._expect_lease(lease)
            kept = [w for w in writes if isinstance(w, Put) or self._version(w.key) != ABSENT]
            if not kept:
                return self._revision()
            revision = self._next_revision()
            for write in kept:
                hangs_on = write.lease if isinstance(write, Put) else None
                self._write(revision, key_bytes(write.key), encoded[write.key], hangs_on)
            return revision

        return self._change(attempt, work, lasting)

    def grant(self, attempt: Attempt, seconds: int) -> str:
        """See MapStore."""
        lease = os.urandom(8).hex()
        row = (lease, seconds, time.time() + seconds)
        self._change(attempt, lambda: self._db.execute("INSERT INTO lease VALUES (?, ?, ?)", row))
        return lease

    def renew(self, attempt: Attempt, lease: str) -> None:
        """See MapStore."""

        def work() -> None:
            self._expect_lease(lease)
            self._db.execute("UPDATE lease SET ends = ? + seconds WHERE id = ?", (time.time(), lease))

        self._change(attempt, work)

    def revoke(self, attempt: Attempt, lease: str) -> None:
        """See MapStore."""
        self._change(attempt, lambda: self._end_leases([lease]))

    def sweep(self, attempt: Attempt) -> None:
        """Remove the leases that have ended, and their entries: every change does so."""
        self._change(attempt, lambda: None)

    def finish(self) -> None:
        """The COMMIT itself."""
        self._db.execute("COMMIT")

    def _change(self, attempt: Attempt, work: Callable[[], _Result], lasting: bool = True) -> _Result:
        """Do the work in one transaction. Nothing has changed when it raises anything but StoreOutcomeUnknown."""
        self._marks.clear()
        try:
            self._sync(lasting)
            self._begin(attempt.deadline)
            try:
                self._same_file()
                now = time.time()
                self._end_leases(
                    [row[0] for row in self._rows("SELECT id FROM lease WHERE ends <= :now", {"now": now})]
                )
                result = work()
                if not attempt.enter(Stage.COMMITTING):
                    raise StoreUnavailable(f"{self._name}: nobody waits for this change any more")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error
        try:
            self.finish()
        except (sqlite3.Error, OSError) as error:
            # Its end may be in the file already, and be found there after a crash.
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise StoreOutcomeUnknown(f"{self._name}: the commit failed ({error}): read what is there") from error
        if self._marks:
            ring(self._bells, b"".join(self._marks))
        return result

    def _sync(self, lasting: bool) -> None:
        """Whether the next transaction of this connection waits for the disk."""
        if lasting is not self._lasting:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            self._lasting = lasting

    def _begin(self, deadline: float) -> None:
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() >= deadline:
                    raise
            time.sleep(random.uniform(0.0002, 0.001))

    def _version(self, key: str) -> int:
        rows = self._rows("SELECT version FROM entry WHERE key = :key", {"key": key_bytes(key)})
        return int(rows[0][0]) if rows else ABSENT

    def _expect_lease(self, lease: str) -> None:
        if not self._rows("SELECT 1 FROM lease WHERE id = :id", {"id": lease}):
            raise LeaseExpired(f"{self._name}: lease {lease} has ended")

    def _end_leases(self, leases: Sequence[str]) -> None:
        for lease in leases:
            keys = [row[0] for row in self._rows("SELECT key FROM entry WHERE lease = :id", {"id": lease})]
            if keys:
                revision = self._next_revision()
                for key in keys:
                    self._write(revision, key, None, None)
            self._db.execute("DELETE FROM lease WHERE id = ?", (lease,))

    def _next_revision(self) -> int:
        revision = self._revision() + 1
        self._db.execute("UPDATE store SET revision = ?", (revision,))
        if revision % PRUNE_EVERY == 0 and revision > KEPT:
            self._db.execute("DELETE FROM change WHERE revision <= ?", (revision - KEPT,))
            self._db.execute("UPDATE store SET forgotten = ?", (revision - KEPT,))
        return revision

    def _write(self, revision: int, key: bytes, value: str | None, lease: str | None) -> None:
        if value is None:
            self._db.execute("DELETE FROM entry WHERE key = ?", (key,))
        else:
            self._db.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", (key, value, revision, lease))
        self._db.execute("INSERT INTO change VALUES (?, ?, ?)", (revision, key, value))
        self._marks.add(mark(key.decode()))

    # ── the file ──

    def _prepare(self, deadline: float) -> None:
        """Set the connection's modes; make the tables in a new file. Several processes may do so at once."""
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() >= deadline:
                    raise self._unavailable(error) from error
            except sqlite3.Error as error:  # not a database at all
                raise self._unavailable(error) from error
            time.sleep(0.001)
        try:
            self._db.execute("PRAGMA synchronous = FULL")
            if not self._rows("SELECT 1 FROM sqlite_master"):
                self._make(deadline)
            [(found,)] = self._rows("SELECT format FROM store")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        if found != FORMAT:
            raise StoreUnavailable(
                f"{self._name}: it has format {found}, expected {FORMAT}: use the version that made it"
            )

    def _make(self, deadline: float) -> None:
        """Make the tables, if nobody is faster. Only now the lock is needed: who only reads a file is not kept waiting
        by a process that stands still while it writes."""
        self._begin(deadline)
        try:
            if not self._rows("SELECT 1 FROM sqlite_master"):
                for statement in _SCHEMA:
                    self._db.execute(statement)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _same_file(self) -> None:
        """Raises when the file was removed or replaced: other processes may have another map in its place by now."""
        try:
            same = _identity(self.path) == self._file
        except OSError:
            same = False
        if not same:
            raise StoreUnavailable(f"{self._name}: the file was removed or replaced while it was open: start anew")

    @property
    def _name(self) -> str:
        return f"map store {self.path}"

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
            return StoreUnavailable(f"{self._name}: {_named(writer_of(self.path))} has kept it locked for too long")
        return StoreUnavailable(f"{self._name}: {error}")


def bells_of(path: Path) -> Path:
    """The folder with the bells of those who watch the file."""
    return path.with_name(path.name + "-watchers")


def writer_of(path: Path) -> int | None:
    """The process that has the lock for writing; None when there is none or the system does not tell.

    Told by the system's list of locks: to open the file here would end our own locks when it is closed again.
    """
    try:
        end = f":{os.stat(f'{path}-shm').st_ino}"
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()  # 1: POSIX ADVISORY WRITE 4711 fe:00:10314943 120 120
        if len(words) == 8 and words[3] == "WRITE" and words[5].endswith(end) and words[6].isdigit():
            last = int(words[7]) if words[7].isdigit() else _WRITE_LOCK
            if int(words[6]) <= _WRITE_LOCK <= last and int(words[4]) > 0:
                return int(words[4])
    return None


def _named(process: int | None) -> str:
    if process is None:
        return "another process"
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return f"process {process}"
    if status[status.rindex(")") + 2] in "Tt":
        return f"process {process}, which is stopped (let it go on, or end it by SIGKILL),"
    return f"process {process}"


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _between(prefix: str) -> dict[str, object]:
    start = prefix.encode()
    return {"start": start, "end": prefix_end(start)}
