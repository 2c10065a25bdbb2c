"""A consistent view of a source's rows, together with the place in its history that it shows.

MariaDB: START TRANSACTION WITH CONSISTENT SNAPSHOT and the status variables binlog_snapshot_…, which must be asked for
more than once (see `_shown_place`): exact and without a lock, but for one case. An outer XA COMMIT is in the binlog,
and counts as part of the snapshot's place, a moment before its rows are visible (ordinary commits are made visible in
one go with their place). So the snapshot says which branches were prepared just before it, and from which place on
commits are in doubt: see `doubts`.

MySQL: LOCK TABLES … READ on one connection, the snapshot on another, gtid_executed, UNLOCK. Locked tables have no
commit under way, prepared branches included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import uniform

from shardproxy.errors import BackendError, ReshardError, SqlError
from shardproxy.reshard.columns import SQL_MODE, TableShape
from shardproxy.reshard.link import Answer, Link, LinkLogin, connect
from shardproxy.reshard.position import Coordinates, MySQLPosition, Position, coordinates, parse_position
from shardproxy.reshard.query_events import xid_text
from shardproxy.topology.model import Server

Pause = Callable[[], Awaitable[object]]

LOCK_PATIENCE = 0.25  # seconds that LOCK TABLES may wait, and hold up writers behind it
_TRIES = 40
_ALIKE, _APART = 5, 0.002  # equal answers in turn that tell a place, and seconds between two of them at the most

SESSION = (
    b"SET SESSION sql_mode = '" + SQL_MODE + b"', time_zone = '+00:00', net_write_timeout = 600, lock_wait_timeout = 2,"
    b" transaction_isolation = 'REPEATABLE-READ'"
)


def session_settings(mariadb: bool) -> bytes:
    """The statement that readies a session to read rows as they are stored."""
    return SESSION.replace(b"transaction_isolation", b"tx_isolation") if mariadb else SESSION


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    """link: in a transaction that shows the rows at `position` (MySQL) or `place` (MariaDB, in its binlog files).

    since: place at which doubt begins; prepared: xids of branches prepared just before.
    """

    link: Link
    position: Position | None
    place: Coordinates = (0, 0)
    file: bytes = b""
    since: Coordinates = (0, 0)
    prepared: frozenset[bytes] = frozenset()

    def doubts(self, xid: bytes, place: Coordinates) -> bool:
        """Whether the branch that committed at this place of the binlog may be invisible in the snapshot, though the
        snapshot's place is behind it."""
        return self.position is None and place <= self.place and (place > self.since or xid in self.prepared)

    async def gtids(self) -> Position:
        """The position as GTIDs. On MariaDB it reads the binlog file up to the place: for the start of a stream."""
        if self.position is not None:
            return self.position
        [text] = (await self.link.query(b"SELECT BINLOG_GTID_POS('%s', %d)" % (self.file, self.place[1]))).one()
        if text is None:
            raise ReshardError(f"{self.link.server.name} does not know its own binlog position {self.file.decode()}")
        return parse_position(text.decode(), True)


async def prepared_branches(link: Link) -> frozenset[bytes]:
    """The xids of all prepared branches of a server, as `query_events.meaning` gives them."""
    return _xids(await link.query(b"XA RECOVER" if link.is_mariadb else b"XA RECOVER CONVERT XID"), link.is_mariadb)


def _xids(answer: Answer, mariadb: bool) -> frozenset[bytes]:
    # FORMAT='SQL' of MariaDB would give printable ones in quotes and others in hex: not what its binlog has.
    found = []
    for format_id, gtrid_length, _, data in answer.values():
        raw = data or b""
        if not mariadb:
            raw = bytes.fromhex(raw[2:].decode())  # MySQL, asked to convert
        length = int(gtrid_length or 0)
        found.append(xid_text(int(format_id or 0), raw[:length], raw[length:]))
    return frozenset(found)


async def source_position(link: Link) -> Position:
    """Where a server's history is now: it covers every transaction whose COMMIT was answered before."""
    variable = b"@@GLOBAL.gtid_binlog_pos" if link.is_mariadb else b"@@GLOBAL.gtid_executed"
    [text] = (await link.query(b"SELECT " + variable)).one()
    return parse_position((text or b"").decode(), link.is_mariadb)


async def take_snapshot(
    server: Server, login: LinkLogin, tables: Sequence[TableShape], position_first: Pause | None = None
) -> SourceSnapshot:
    """A snapshot of the tables; whoever takes it closes its link. Raises BackendError when MySQL's tables could not be
    locked for a minute: try again.

    position_first: the mistake of reading the position this pause before the snapshot is taken, for tests that
    must catch it.
    """
    link = await connect(server, login)
    try:
        await link.query(session_settings(link.is_mariadb))
        if link.is_mariadb:
            return await _mariadb(link, position_first)
        return await _mysql(link, login, tables, position_first)
    except BaseException:
        link.close()
        raise


async def _mariadb(link: Link, position_first: Pause | None) -> SourceSnapshot:
    early = (await link.query(b"SHOW MASTER STATUS")).values() if position_first is not None else []
    if position_first is not None:
        await position_first()
    [before] = await link.queries((b"SHOW MASTER STATUS",))
    await xa_statements_ended(link)
    prepared, _ = await link.queries((b"XA RECOVER", b"START TRANSACTION WITH CONSISTENT SNAPSHOT"))
    first = before.values()
    if not first:
        raise ReshardError(f"{link.server.name} writes no binlog (log_bin): its changes cannot be followed")
    since = coordinates((first[0][0] or b"").decode(), int(first[0][1] or 0))
    file, offset = await _shown_place(link)
    if early:
        file, offset = early[0][0] or b"", int(early[0][1] or 0)
    return SourceSnapshot(link, None, coordinates(file.decode(), offset), file, since, _xids(prepared, True))


async def _shown_place(link: Link) -> tuple[bytes, int]:
    """File and offset of a session's snapshot.

    MariaDB answers SHOW STATUS from variables that all sessions share: one that asks at the same moment, whatever for,
    leaves its snapshot's place there, or the newest. Beside one that asked all the time, one answer in a hundred was
    wrong. So it is asked until some answers in turn are the same; at random times, as two that ask in step would be
    wrong in step.
    """
    alike, last = 0, (b"", 0)
    while alike < _ALIKE:
        if alike:
            await asyncio.sleep(uniform(0, _APART))
        status = await link.query(b"SHOW STATUS LIKE 'binlog\\_snapshot\\_%'")
        values = {(name or b"").lower(): value or b"" for name, value in status.values()}
        found = values[b"binlog_snapshot_file"], int(values[b"binlog_snapshot_position"] or 0)
        alike, last = alike + 1 if found == last else 1, found
    return last


_XA_RUNNING = b"SELECT id, query_id FROM information_schema.processlist WHERE info LIKE 'XA%' AND id <> CONNECTION_ID()"


async def xa_statements_ended(link: Link) -> None:
    """Wait until the XA statements that are under way on a MariaDB have ended.

    An XA PREPARE stands in the binlog before XA RECOVER lists its branch. An XA COMMIT does too, and XA RECOVER lists
    its branch no more, before its rows can be seen.
    """
    left = set(map(tuple, (await link.query(_XA_RUNNING)).values()))
    while left:
        await asyncio.sleep(0.001)
        left &= set(map(tuple, (await link.query(_XA_RUNNING)).values()))


async def _mysql(
    link: Link, login: LinkLogin, tables: Sequence[TableShape], position_first: Pause | None
) -> SourceSnapshot:
    begin = b"START TRANSACTION WITH CONSISTENT SNAPSHOT"
    executed = b"SELECT @@GLOBAL.gtid_executed"
    if position_first is not None:
        gtids = await link.query(executed)
        await position_first()
        await link.query(begin)
        return SourceSnapshot(link, _position(gtids.one()))
    names = b", ".join(table.quoted + b" READ" for table in tables)
    async with await connect(link.server, login, (SESSION,)) as locker:
        pause = 0.05
        for attempt in range(_TRIES):
            if await in_time(locker, link, b"LOCK TABLES " + names):
                break
            # Writers that stood behind us go first.
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 1.5)
            if attempt == _TRIES - 1:
                raise BackendError(  # the stream is opened again, and goes on where it was
                    f"{link.server.name}: {', '.join(t.name for t in tables)} could not be locked for the moment that "
                    f"a snapshot takes, {_TRIES} times: a long transaction or a prepared branch holds them all the "
                    "time (see information_schema.innodb_trx, and XA RECOVER); wait for its end, or end it"
                )
        await link.query(begin)
        gtids = await link.query(executed)
        await locker.query(b"UNLOCK TABLES")
    return SourceSnapshot(link, _position(gtids.one()))


def _position(row: Sequence[bytes | None]) -> MySQLPosition:
    return MySQLPosition.parse((row[0] or b"").decode())


async def in_time(locker: Link, other: Link, sql: bytes) -> bool:
    """Run a statement that needs a table lock. Whether the lock was had within LOCK_PATIENCE; `other` ends it else."""
    asked = asyncio.create_task(locker.query(sql))
    done, _ = await asyncio.wait((asked,), timeout=LOCK_PATIENCE)
    if not done:
        await other.query(b"KILL QUERY %d" % locker.thread)
    try:
        await asked
    except SqlError as error:
        if error.code in (1205, 1317, 3024):
            return False
        raise
    return True
