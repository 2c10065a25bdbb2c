"""The bookkeeping schema `_shardproxy` on every primary: which files there are, and applying those that are missing.

A file `NNNN_name.sql` is applied once and recorded in `_shardproxy`.migration with its checksum. Its statements may be
run again, so a run that dies in the middle is repaired by the next one. A lock on each server keeps two runs apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from shardproxy.backend.control import ControlConnection, Credentials, open_control, text
from shardproxy.errors import BackendError, ShardproxyError, SqlError
from shardproxy.topology.model import Snapshot

SCHEMA = "_shardproxy"
_LOCK = "shardproxy.migrate"
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_TABLE_EXISTS = (
    "SELECT COUNT(*) AS n FROM information_schema.tables "
    "WHERE table_schema = '_shardproxy' AND table_name = 'migration'"
)
_RECORD_TABLE = (
    "CREATE DATABASE IF NOT EXISTS _shardproxy",
    """CREATE TABLE IF NOT EXISTS _shardproxy.migration (
  number     INT UNSIGNED NOT NULL,
  name       VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  checksum   CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (number)
) ENGINE = InnoDB""",
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name without number and ".sql", its statements, SHA-256 of its text in hex."""

    number: int
    name: str
    statements: tuple[str, ...]
    checksum: str

    def __str__(self) -> str:
        return f"{self.number:04d}_{self.name}"


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What happened on one primary.

    applied: files applied by this run (with dry_run: none); pending: files still to apply; present: files that were
    there before; newer: numbers recorded there that this version of shardproxy does not have; error: why it stopped.
    """

    shard: str
    applied: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    newer: tuple[int, ...] = ()
    error: str | None = None


def migrations_folder() -> Traversable:
    """Where the files are: inside an installed package, or at the top of a checkout. Raises ShardproxyError."""
    packaged = files("shardproxy") / "_migrations"
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).parents[2] / "migrations"
    if checkout.is_dir():
        return checkout
    raise ShardproxyError(f"migrations: found neither {packaged} nor {checkout}; the installation is incomplete")


def read_migrations(folder: Traversable) -> tuple[Migration, ...]:
    """All files in order of number. Raises ShardproxyError on a strange name or a number that is missing or doubled."""
    found = []
    for entry in folder.iterdir():
        if not entry.name.endswith(".sql"):
            continue
        match = _FILE.fullmatch(entry.name)
        if match is None:
            raise ShardproxyError(f"migrations: found {entry.name!r}; expected a name like 0001_what_it_does.sql")
        found.append(_migration(int(match[1]), match[2], entry.read_text("utf-8")))
    found.sort(key=lambda m: m.number)
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise ShardproxyError(f"migrations: found {', '.join(map(str, found))}; expected 0001, 0002, … each once")
    return tuple(found)


def _migration(number: int, name: str, sql: str) -> Migration:
    sql = sql.replace("\r\n", "\n")  # a checkout on Windows is the same file
    checksum = hashlib.sha256(sql.encode()).hexdigest()
    return Migration(number, name, split_statements(sql), checksum)


def split_statements(sql: str) -> tuple[str, ...]:
    """The statements of one of our own files: they end with ";" at the end of a line; lines of "--" are comments."""
    code = "\n".join(line.rstrip() for line in sql.split("\n") if not line.lstrip().startswith("--"))
    return tuple(s.strip() for s in (code + "\n").split(";\n") if s.strip())


async def migrate(
    snapshot: Snapshot,
    credentials: Credentials,
    seconds: float,
    migrations: Sequence[Migration],
    dry_run: bool = False,
) -> list[ShardReport]:
    """Apply what is missing on each primary, one shard after the other; an error on one does not stop the others.

    seconds: limit for connecting, for the lock and for each statement. Nothing is raised: errors are in the reports.
    dry_run: write nothing, not even the record table.
    """
    reports = []
    for shard in snapshot.shards:
        try:
            async with await open_control(shard.primary, credentials, seconds) as connection:
                report = await _migrate_server(connection, migrations, seconds, dry_run)
        except (BackendError, SqlError, ShardproxyError) as error:
            report = ShardReport(shard.name, error=str(error))
        reports.append(report)
    return reports


async def _migrate_server(
    connection: ControlConnection, migrations: Sequence[Migration], seconds: float, dry_run: bool
) -> ShardReport:
    shard = connection.server.shard
    if dry_run:
        return _compare(shard, migrations, await _recorded(connection))
    async with _alone(connection, seconds):
        for statement in _RECORD_TABLE:
            await connection.execute(statement)
        before = _compare(shard, migrations, await _recorded(connection))
        if before.error is not None:
            return before
        applied: list[str] = []
        try:
            for migration in (m for m in migrations if str(m) in before.pending):
                await _apply(connection, migration)
                applied.append(str(migration))
        except SqlError as error:
            return ShardReport(
                shard, tuple(applied), before.pending[len(applied) :], before.present, before.newer, str(error)
            )
    return ShardReport(shard, applied=tuple(applied), present=before.present, newer=before.newer)


async def _apply(connection: ControlConnection, migration: Migration) -> None:
    for i, statement in enumerate(migration.statements, 1):
        try:
            await connection.execute(statement)
        except SqlError as error:
            # A BackendLost stays one: whether the statement ran is unknown, and the next run will tell.
            kind = type(error)
            raise kind(f"{migration}, statement {i}: {error}", error.code, error.sqlstate) from error
    await connection.execute(
        "INSERT INTO _shardproxy.migration (number, name, checksum) VALUES (%s, %s, %s)",
        (migration.number, migration.name, migration.checksum),
    )


@asynccontextmanager
async def _alone(connection: ControlConnection, seconds: float) -> AsyncIterator[None]:
    """Hold the server's advisory lock. Raises ShardproxyError when another run has it."""
    patience = max(1, int(seconds) - 1)  # less than the statement's own limit, which would break the connection
    [row] = await connection.query("SELECT GET_LOCK(%s, %s) AS held", (_LOCK, patience))
    if row["held"] != 1:
        raise ShardproxyError(
            f"{connection.server.name}: another `shardctl migrate` has held the lock for {patience} s; try again later"
        )
    try:
        yield
    finally:
        # The lock ends with the connection anyway; a broken one needs no release.
        try:
            await connection.query("SELECT RELEASE_LOCK(%s) AS released", (_LOCK,))
        except SqlError:
            connection.abort()


async def _recorded(connection: ControlConnection) -> dict[int, tuple[str, str]]:
    """Applied files: number → (name, checksum). Empty where the table does not exist yet."""
    [row] = await connection.query(_TABLE_EXISTS)
    if not row["n"]:
        return {}
    rows = await connection.query("SELECT number, name, checksum FROM _shardproxy.migration ORDER BY number")
    return {int(r["number"]): (str(text(r["name"])), str(text(r["checksum"]))) for r in rows}


def _compare(shard: str, migrations: Sequence[Migration], recorded: dict[int, tuple[str, str]]) -> ShardReport:
    known = {m.number for m in migrations}
    changed = [
        f"{m} was applied as {recorded[m.number][0]!r} with checksum {recorded[m.number][1][:12]}…, "
        f"but the file here has {m.checksum[:12]}…"
        for m in migrations
        if m.number in recorded and recorded[m.number] != (m.name, m.checksum)
    ]
    return ShardReport(
        shard,
        pending=tuple(str(m) for m in migrations if m.number not in recorded),
        present=tuple(str(m) for m in migrations if m.number in recorded),
        newer=tuple(n for n in recorded if n not in known),
        error=f"{'; '.join(changed)}: an applied file never changes; put the change in a new file" if changed else None,
    )
