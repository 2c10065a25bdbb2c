"""Deadlocks over shards: found by the shards' lock waits, ended by rolling one transaction back.

A worker looks only when a statement of one of its transactions over several shards has had no answer for a while.
Mostly it waits for a lock and no ring is near: then the look shows nobody who waits for the transaction on another
shard, and that was all. Else the transaction is announced in `_shardproxy.lock_wait`, for other workers and proxies
look too, and only its own knows which server transactions are one; and all shards are looked at.

A ring counts when the same waits are seen in two looks, one after the other. The looks at the shards are not
simultaneous, but a wait that both show lasted from the first to the second: at the moment between them all were there.
InnoDB makes its picture of transactions and locks anew only when nobody has looked at it for 100 ms. So each look says
who looks, in a comment that the picture then contains: an old picture has an old mark, and is no second look.

All who see a ring choose the same victim, and the worker that runs it ends it: KILL QUERY of what waits, and the
server's answer to that (1317) becomes the one of a deadlock (1213). From there on everything is as if the server had
found it: the transaction is rolled back on all its shards.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from time import perf_counter

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.backend.gateway import Gateway
from shardproxy.errors import BackendLost, ProtocolError, SqlError
from shardproxy.executor.transaction import Transaction
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_err
from shardproxy.protocol.mysql.response import ERR, ResponseScanner
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.session.lock_waits import Local, Look, Wait, crosses, read_look, victims, write_members
from shardproxy.session.profile import Profile
from shardproxy.session.xid import TransactionId, shard_word

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
APART = 0.11  # seconds between two looks; InnoDB shows the same picture for 0.1
LONGEST_PAUSE = 1.0  # seconds between two looks, when so many look that the picture stays old
SHARE = 0.1  # of the worker's time that reading what servers show may take
MOST_WAITS = 10_000  # read of one server: of 150 that queue for one row, each waits for all before it
KEPT_OPEN = 10.0  # seconds that connections for looking outlive the last look
_INTERRUPTED = 1317
_DEADLOCK = 1213, "40001", "Deadlock found when trying to get lock; try restarting transaction"
_HELD_BACK = 1024  # bytes of an answer within which an ERR may come in pieces

_BEGIN = b"START TRANSACTION WITH CONSISTENT SNAPSHOT"  # only so is who looks in the picture
_TRANSACTIONS = (
    b"/* shardproxy looks: %s.%d */ SELECT trx_id, trx_mysql_thread_id, trx_started, trx_requested_lock_id, "
    b"trx_wait_started, trx_lock_structs, IF(trx_query LIKE '/* shardproxy looks:%%', LEFT(trx_query, 60), NULL) "
    b"FROM information_schema.innodb_trx"
)
_WAITS_MARIADB = (
    b"SELECT requesting_trx_id, requested_lock_id, blocking_trx_id FROM information_schema.innodb_lock_waits "
    b"LIMIT %d" % MOST_WAITS
)
_WAITS_MYSQL = (
    b"SELECT requesting_engine_transaction_id, requesting_engine_lock_id, blocking_engine_transaction_id "
    b"FROM performance_schema.data_lock_waits WHERE engine = 'INNODB' LIMIT %d" % MOST_WAITS
)
_ANNOUNCED = b"SELECT xid, members FROM _shardproxy.lock_wait"
_SETTINGS = b"SET autocommit=1, innodb_lock_wait_timeout=1"


class DeadlockWatch:
    """One a worker. ended: transactions rolled back; looks, failed: looks at one shard."""

    def __init__(self) -> None:
        self.ended = 0
        self.looks = 0
        self.failed = 0
        self._gateway: Gateway
        self._mariadb = False
        self._silent: dict[BackendConnection, tuple[int, float]] = {}  # → its turns, and since when
        self._before: dict[int, Look] = {}
        self._pause = 0.0
        self._number = 0  # of looks
        self._spent = 0.0  # seconds that reading the last looks took
        self._profile: Profile
        self._announced: dict[TransactionId, tuple[int, str]] = {}  # → shard and members
        self._eyes: dict[str, BackendConnection] = {}  # by server name
        self._looked = 0.0
        self._told: dict[str, str] = {}

    async def watch(self, gateway: Gateway, mariadb: bool, after: float) -> None:
        """Look again and again until cancelled. after: seconds that a statement may wait first; 0: never."""
        try:
            await self._watch(gateway, mariadb, after)
        finally:
            for eye in list(self._eyes.values()):
                eye.close()

    async def _watch(self, gateway: Gateway, mariadb: bool, after: float) -> None:
        self._gateway, self._mariadb = gateway, mariadb
        loop = asyncio.get_running_loop()
        pause = after
        while after > 0:
            await asyncio.sleep(pause)
            pause = after / 2
            waiting = self._waiting(loop.time() - after) if gateway.spanning else []
            try:
                if waiting:
                    self._spent = 0.0
                    await self._round(waiting)
                    pause = max(APART, self._pause) * random.uniform(1, 1.5) + self._spent / SHARE
                elif self._announced or self._eyes:
                    await self._rest(loop.time())
            except (SqlError, ProtocolError, OSError) as error:
                self._tell("", str(error))

    def _waiting(self, since: float) -> list[Transaction]:
        """Transactions with a statement that has been without a word of the server since then."""
        now = asyncio.get_running_loop().time()
        silent: dict[BackendConnection, tuple[int, float]] = {}
        found = []
        for transaction in list(self._gateway.spanning):
            if transaction.ending:
                continue
            for connection in transaction.connections:
                if not connection.sinks or connection.closed:
                    continue
                turns, begun = self._silent.get(connection, (-1, now))
                if turns != connection.turns:
                    begun = now
                silent[connection] = (connection.turns, begun)
                if begun <= since and transaction not in found:
                    found.append(transaction)
        self._silent = silent
        return found

    async def _rest(self, now: float) -> None:
        """Nobody waits: take back what was announced, close what has not been used for a while."""
        self._before.clear()
        self._pause = 0.0
        await self._take_back(())
        if now - self._looked > KEPT_OPEN:
            for connection in self._eyes.values():
                connection.close()
            self._eyes.clear()

    # ── a round ──

    async def _round(self, waiting: list[Transaction]) -> None:
        """Look where the transactions are; only where a ring may run through one, look everywhere."""
        self._profile = waiting[0].first.profile
        taking_part = {shard for transaction in waiting for shard in transaction.by_shard}
        looks = await self._look(taking_part)
        members = {transaction: _members(transaction, looks) for transaction in waiting}
        waits = [wait for look in looks.values() for wait in look.waits]
        crossing = [transaction for transaction in waiting if crosses(members[transaction], waits)]
        await self._take_back([transaction.ident for transaction in crossing])
        if not crossing:
            self._before.clear()
            return
        for transaction in crossing:
            await self._announce(transaction, members[transaction])
        everywhere = set(range(len(self._gateway.shards)))
        looks |= await self._look(everywhere - taking_part)
        parts = {local: ident for look in looks.values() for local, ident in look.parts.items()}
        for transaction in crossing:  # and no others: everybody must have the same ones to choose from
            parts.update(dict.fromkeys(members[transaction], transaction.ident))
        chosen = victims(self._lasting(looks), parts)
        ours = [transaction for transaction in crossing if transaction.ident in chosen]
        await asyncio.gather(*(self._end(transaction, chosen[transaction.ident]) for transaction in ours))

    def _lasting(self, looks: dict[int, Look]) -> set[Wait]:
        """Waits that this look and the one before it show."""
        old = {shard for shard, look in looks.items() if not look.mark or look.mark == self._mark_before(shard)}
        self._pause = min(2 * self._pause + 0.1, LONGEST_PAUSE) if old else 0.0
        lasting: set[Wait] = set()
        for shard, look in looks.items():
            if shard not in old:
                if shard in self._before:
                    lasting.update(set(look.waits) & set(self._before[shard].waits))
                self._before[shard] = look
        return lasting

    def _mark_before(self, shard: int) -> str:
        return self._before[shard].mark if shard in self._before else ""

    async def _end(self, transaction: Transaction, stuck: Iterable[Local]) -> None:
        """The transaction is the victim, unless it has gone on since the looks."""
        threads = {(local.shard, local.thread) for local in stuck}
        for shard, connection in transaction.by_shard.items():
            known = self._silent.get(connection)
            if (
                (self._word(shard), connection.server_thread) not in threads
                or known is None
                or known[0] != connection.turns
                or transaction.ending
                or not connection.sinks
                or connection.closed
            ):
                continue
            log.warning("deadlock over shards: transaction %s is rolled back", transaction.ident.text)
            verdict = Verdict(connection.sinks[0], self._count)
            connection.sinks[0] = verdict
            await connection.pool.end_statement(connection)
            verdict.deliver()
            return

    def _count(self) -> None:
        self.ended += 1

    # ── looking ──

    async def _look(self, shards: Iterable[int]) -> dict[int, Look]:
        """What those shards show now, as far as they can be asked."""
        wanted = list(shards)
        answers = await asyncio.gather(*(self._look_at(shard) for shard in wanted))
        return {shard: look for shard, look in zip(wanted, answers, strict=True) if look is not None}

    async def _look_at(self, shard: int) -> Look | None:
        name = self._gateway.shards[shard].primary.server.name
        waits = _WAITS_MARIADB if self._mariadb else _WAITS_MYSQL
        self._looked = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                eye = await self._eye(shard)
                self._number += 1
                mine = _TRANSACTIONS % (self._gateway.coordinator.encode(), self._number)
                replies = await eye.queries((_BEGIN, mine, waits, b"ROLLBACK", _ANNOUNCED))
        except (SqlError, TimeoutError) as error:
            self._blind(name, str(error) or "no answer")
            return None
        failed = next((reply for reply in replies if reply.failed), None)
        if failed is not None:
            eye.close()
            self._blind(name, failed.error_message)
            return None
        self.looks += 1
        self._told.pop(name, None)
        begun = perf_counter()
        shown, waiting, announced = (
            parse_resultset(replies[i].data, eye.scanner.deprecate_eof).rows for i in (1, 2, 4)
        )
        look = read_look(self._word(shard), shown, waiting, announced)
        self._spent += perf_counter() - begun
        return look

    async def _eye(self, shard: int) -> BackendConnection:
        """A connection of the watch's own to the primary. Raises SqlError."""
        pool = self._gateway.shards[shard].primary
        connection = self._eyes.get(pool.server.name)
        if connection is not None and not connection.closed and connection.pool is pool:
            return connection
        connection = await pool.beyond(self._profile)
        texts = (_SETTINGS, b"SET SESSION TRANSACTION READ WRITE", b"SELECT @@performance_schema")
        replies = await connection.queries(texts)
        failed = next((reply for reply in replies if reply.failed), None)
        if failed is not None:
            connection.close()
            raise SqlError(failed.error_message, failed.error_code, failed.sqlstate)
        if not self._mariadb and parse_resultset(replies[2].data, connection.scanner.deprecate_eof).rows[0][0] == b"0":
            connection.close()
            raise SqlError("performance_schema is OFF: MySQL shows its lock waits only there")
        self._eyes[pool.server.name] = connection
        return connection

    def _blind(self, server: str, why: str) -> None:
        self.failed += 1
        self._tell(server, why)

    def _tell(self, server: str, why: str) -> None:
        """Once, until it changes."""
        if self._told.get(server) != why:
            self._told[server] = why
            log.warning("deadlocks over shards are not found on %s: %s", server or "any server", why)

    def _word(self, shard: int) -> str:
        return shard_word(self._gateway.shards[shard].name)

    # ── announcing ──

    async def _announce(self, transaction: Transaction, members: set[Local]) -> None:
        """Let others know which server transactions are one. Raises SqlError."""
        text = write_members(sorted(members, key=lambda member: member.shard))
        where = (transaction.first_shard, text)
        if self._announced.get(transaction.ident) == where:
            return
        self._announced[transaction.ident] = where
        await self._write(
            transaction.first_shard,
            b"REPLACE INTO _shardproxy.lock_wait (xid, members) VALUES ('%s', '%s')"
            % (transaction.ident.text.encode(), text.encode()),
            b"DELETE FROM _shardproxy.lock_wait WHERE written_at < NOW() - INTERVAL 1 HOUR",
        )

    async def _take_back(self, but: Iterable[TransactionId]) -> None:
        """Delete what was announced of transactions that do not wait in a possible ring any more. Raises SqlError."""
        kept = set(but)
        for ident in [ident for ident in self._announced if ident not in kept]:
            shard, _ = self._announced.pop(ident)
            await self._write(shard, b"DELETE FROM _shardproxy.lock_wait WHERE xid = '%s'" % ident.text.encode())

    async def _write(self, shard: int, *texts: bytes) -> None:
        async with asyncio.timeout(LOOK_SECONDS):
            eye = await self._eye(shard)
            for reply in await eye.queries(texts):
                if reply.failed:
                    raise SqlError(f"_shardproxy.lock_wait: {reply.error_message}", reply.error_code, reply.sqlstate)


def _members(transaction: Transaction, looks: dict[int, Look]) -> set[Local]:
    """The transaction on each server that has been looked at."""
    found = set()
    for shard, connection in transaction.by_shard.items():
        local = looks[shard].of_thread(connection.server_thread) if shard in looks else None
        if local is not None:
            found.add(local)
    return found


class Verdict(Sink):
    """Stands before the sink of a victim's statement: "interrupted" becomes "deadlock".

    An answer that is another one came before the KILL, which must not strike the session's next statement: it is kept
    until the KILL is over (`deliver`). Both servers forget a KILL QUERY that finds nothing to end.
    """

    def __init__(self, inner: Sink, struck: Callable[[], None]) -> None:
        self._inner = inner
        self._struck = struck
        self._over = False
        self._begin: bytes | None = b""  # of the answer; None when too much of it has come to be the ERR
        self._kept: tuple[bytes, BackendConnection] | None = None

    def shape(self) -> int:
        return self._inner.shape()

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        if self._begin is not None:
            data = self._begin + data
            if len(data) <= _HELD_BACK:
                self._begin = data
                return
            self._begin = None
        self._inner.response_chunk(data, connection)

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        data = (self._begin or b"") + data
        scanner = connection.scanner
        if scanner.outcome == ERR and scanner.error_code == _INTERRUPTED:
            self._struck()
            self._inner.response_end(as_deadlock(data, scanner), connection)
        elif self._over or connection.sinks:
            self._inner.response_end(data, connection)
        else:
            self._kept = (data, connection)

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        self._inner.response_lost(error, connection)

    def redo(self) -> bool:
        return self._inner.redo()

    def unwanted(self) -> bool:
        return self._inner.unwanted()

    def deliver(self) -> None:
        """The KILL is over, whatever it did."""
        self._over = True
        kept, self._kept = self._kept, None
        if kept is not None:
            self._inner.response_end(*kept)


def as_deadlock(data: bytes, scanner: ResponseScanner) -> bytes:
    """The end of an answer, with another ERR in the place of its last packet; the scanner says so too."""
    code, state, message = _DEADLOCK
    at = len(data) - len(scanner.error) - 4
    if at < 0 or data[at + 4 :] != scanner.error:
        return data
    scanner.error = build_err(code, state, message)
    scanner.error_code = code
    return data[:at] + packet(scanner.error, data[at + 3])
