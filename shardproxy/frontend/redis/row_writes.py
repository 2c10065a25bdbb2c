"""Redis commands that write rows of MySQL tables (`write = true` in `[cache.rows]`): SET, HSET, HMSET, DEL, UNLINK.

A row is locked, then inserted or changed by its key, so that no other row can be meant: an INSERT … ON DUPLICATE KEY
UPDATE would change the one that has the same value of another unique key.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count

from shardproxy.cache.patterns import CachedRows
from shardproxy.cache.row_writes import BadValue, RowSql
from shardproxy.errors import BackendError, BackendLost
from shardproxy.frontend.mysql.front import Front
from shardproxy.frontend.mysql.inner import InnerSession
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.protocol.redis import encode
from shardproxy.topology.schema import Column

_AT_ONCE = 64  # writes of a worker
# A write that is a deadlock's victim is tried again, so often at least, and for so many seconds. Of many that insert
# into one gap of an index only one gets on; so the others wait, at random, longer after each try.
_TRIES, _PATIENCE = 5, 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.004, 0.25
_AGAIN = frozenset((1213, 9122))
_OK = b"+OK\r\n"
_USER = "(rows)"

Found = Sequence[tuple[CachedRows, tuple[int, ...]]]


class RowWriter:
    """What a worker's clients share."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._idle: list[InnerSession] = []

    async def write(self, name: bytes, words: Sequence[bytes], found: Found) -> bytes:
        """The reply. name: of the command, upper case; words: the command; found: the rows of its keys."""
        rows, parts = found[0]
        try:
            if name in (b"DEL", b"UNLINK"):
                return encode.integer(await self._within(lambda session: self._delete(session, found)))
            sql = self._sql(rows)
            if name == b"SET":
                if len(words) != 3:
                    raise BadValue("SET of a row takes no options: rows do not expire")
                values = sql.of_document(parts, words[2])
                await self._within(lambda session: _put(session, sql, parts, values, ()))
                return _OK
            if len(words) % 2:
                raise BadValue("a field without a value")
            values = sql.of_fields(parts, words[2:])
            fields = {word.decode(errors="replace").lower() for word in words[2::2]}
            told = [column for column in sql.columns if column.name.lower() in fields]
            new = await self._within(lambda session: _put(session, sql, parts, values, told))
            return _OK if name == b"HMSET" else encode.integer(new)
        except BadValue as error:
            return encode.error(f"ERR shardproxy: {rows.label}: {error}")
        except BackendLost as error:
            return encode.error(f"ERR shardproxy: {rows.label}: {error}; read the row to see")
        except BackendError as error:
            return encode.error(f"ERR shardproxy: {rows.label}: {error} ({error.code})")

    def _sql(self, rows: CachedRows) -> RowSql:
        schema = self._front.plans.context.catalog.get(rows.database, rows.table)
        if schema is None:
            raise BadValue("its columns could not be read from the servers")
        return RowSql(rows, schema)

    async def _delete(self, session: InnerSession, found: Found) -> int:
        return sum([(await session.run(self._sql(rows).delete(parts))).affected for rows, parts in found])

    def _session(self) -> InnerSession:
        while self._idle:
            session = self._idle.pop()
            if not session.closed:
                return session
        return InnerSession(self._front, _USER)

    async def _within(self, work: Callable[[InnerSession], Awaitable[int]]) -> int:
        """Do it in a transaction; again when it was a deadlock's victim. Raises BackendError; BackendLost when its
        outcome is not known."""
        async with self._free:
            clock = asyncio.get_running_loop().time
            late = clock() + _PATIENCE
            for tries in count(1):
                session = self._session()
                try:
                    await session.run(b"BEGIN")
                    result = await work(session)
                    await session.run(b"COMMIT")
                except BackendError as error:
                    session.close()  # which rolls back
                    if error.code not in _AGAIN or (tries >= _TRIES and clock() > late):
                        raise
                    await asyncio.sleep(random.uniform(0, min(_FIRST_PAUSE * 2**tries, _LONGEST_PAUSE)))
                except BaseException:
                    session.close()
                    raise
                else:
                    self._idle.append(session)
                    return result
            raise AssertionError("counting does not end")


async def _put(
    session: InnerSession, sql: RowSql, parts: Sequence[int], values: Mapping[str, bytes], told: Sequence[Column]
) -> int:
    """Insert the row, or change it. How many of the columns `told` had no value before."""
    reply = await session.run(sql.lock(parts, told))
    rows = parse_resultset(reply.data, True).rows
    if not rows:
        await session.run(sql.insert(parts, values))
        return len(told)
    if values:
        await session.run(sql.update(parts, values))
    return sum(value is None for value in rows[0][: len(told)])
