"""What a keyspace keeps on its home shard alone, when a move makes another shard the home: numbers of AUTO_INCREMENT
columns, the records of schema changes, and the states of lookup indexes.

Numbers are taken all the time, so they must never be on both. On each shard a row of `_shardproxy.sequence` without
name says with its `generation` whether the keyspace's numbers are there: 0, they are not. The coming home has it from
the beginning of the move on. After the switch, which names the new home in the map, the old one's numbers are *parked*
in one transaction: its row says 0, and each `next_value` goes into `generation` and becomes 0, so that nobody can take
numbers there any more, be its map ever so old. Only then the new home gets them, and its row says that they are there.
Whoever needs a number between the two waits. Everything may be done again, by whoever has the move's token (R1).

The rest cannot change while keys move, and is copied before the switch.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.errors import SqlError
from shardproxy.reshard.bookkeeping import StreamName, open_writer, transact
from shardproxy.reshard.columns import quote
from shardproxy.reshard.link import Link, LinkLogin
from shardproxy.topology.model import Server

_CHANGES = 100  # finished schema changes that go along, the newest: as many as `shardctl ddl` lists
_DUPLICATE = 1062
_TRIES = 10
_HERE = (
    b"INSERT INTO _shardproxy.sequence (keyspace, name, next_value, generation) VALUES (%s, '', 0, %d) "
    b"ON DUPLICATE KEY UPDATE generation = VALUES(generation)"
)
_PARK = (
    b"UPDATE _shardproxy.sequence SET generation = next_value, next_value = 0 "
    b"WHERE keyspace = %s AND name <> '' AND next_value > 0"
)
_PARKED = (
    b"SELECT name, generation, taken_at IS NOT NULL FROM _shardproxy.sequence "
    b"WHERE keyspace = %s AND name <> '' AND next_value = 0 AND generation > 1"  # 1: no number was ever taken
)
_PUT = (
    b"INSERT INTO _shardproxy.sequence (keyspace, name, next_value, taken_at) VALUES (%s, %s, %s, %s) "
    b"ON DUPLICATE KEY UPDATE next_value = GREATEST(next_value, VALUES(next_value)), "
    b"taken_at = COALESCE(VALUES(taken_at), taken_at)"
)
_STATES = b"SELECT index_name, state, placement, progress FROM _shardproxy.lookup_index WHERE keyspace = %s"
_DDL = (
    b"id", b"state", b"statement", b"in_schema", b"session", b"change_info", b"error", b"started_at", b"changed_at",
)  # fmt: skip
_DDL_SHARD = (b"place", b"shard", b"state", b"thread", b"before_it", b"error", b"changed_at")


async def expect_numbers(server: Server, login: LinkLogin, name: StreamName, keyspace: str) -> None:
    """Before the switch: the coming home's numbers are not there yet. Raises NotOurs, SqlError, BackendError."""
    async with await open_writer(server, login) as link:
        await transact(link, name, None, [_HERE % (quote(keyspace.encode()), 0)])


async def hand_numbers_over(old: Server, new: Server, login: LinkLogin, name: StreamName, keyspace: str) -> None:
    """After the switch: numbers are taken from the new home from now on. Raises as `expect_numbers`."""
    where = quote(keyspace.encode())
    async with await open_writer(old, login) as source, await open_writer(new, login) as target:
        await transact(source, name, None, [_HERE % (where, 0), _PARK % where])
        parked, states = await source.queries((_PARKED % where, _STATES % where))
        await source.query(b"COMMIT")
        puts = [
            _PUT % (where, quote(table or b""), value, b"UTC_TIMESTAMP(6)" if taken == b"1" else b"NULL")
            for table, value, taken in parked.values()
        ]
        # An index that a proxy has found no longer kept since the states were copied.
        puts += [
            b"UPDATE _shardproxy.lookup_index SET state = 'building', progress = '{}' WHERE keyspace = %s AND "
            b"index_name = %s" % (where, quote(index or b""))
            for index, state, *_ in states.values()
            if state != b"ready"
        ]
        # The row without name first, as proxies do: who locks in two orders, deadlocks.
        await transact(target, name, None, [_HERE % (where, 0), *puts, _HERE % (where, 1)])


async def copy_records(old: Server, new: Server, login: LinkLogin, name: StreamName, keyspace: str) -> None:
    """Before the switch: what cannot change meanwhile. Raises as `expect_numbers`."""
    where = quote(keyspace.encode())
    async with await open_writer(old, login) as source, await open_writer(new, login) as target:
        states = (await source.query(_STATES % where)).values()
        texts = [b"DELETE FROM _shardproxy.lookup_index WHERE keyspace = " + where]
        texts += [
            b"INSERT INTO _shardproxy.lookup_index (keyspace, index_name, state, placement, progress) VALUES "
            + _row([keyspace.encode(), *state])
            for state in states
        ]
        await transact(target, name, None, texts)
        await source.query(b"COMMIT")
        for attempt in range(_TRIES):
            try:
                await _copy_changes(source, target, name, where)
                return
            except SqlError as error:  # a change of another keyspace has just taken one of the numbers
                if error.code != _DUPLICATE or attempt == _TRIES - 1:
                    raise


async def _copy_changes(source: Link, target: Link, name: StreamName, where: bytes) -> None:
    """Records of schema changes. Each keeps its number, unless a change of another keyspace has it there."""
    found, others = (
        (
            await source.query(
                b"SELECT %s FROM _shardproxy.ddl WHERE keyspace = %s ORDER BY id DESC LIMIT %d"
                % (b", ".join(_DDL), where, _CHANGES)
            )
        ).values(),
        (await target.query(b"SELECT id FROM _shardproxy.ddl WHERE keyspace <> " + where)).values(),
    )
    taken = {int(row[0] or 0) for row in others}
    above = max([0, *taken, *(int(row[0] or 0) for row in found)])
    texts = [
        b"DELETE FROM _shardproxy.ddl_shard WHERE ddl_id IN "
        b"(SELECT id FROM _shardproxy.ddl WHERE keyspace = %s)" % where,
        b"DELETE FROM _shardproxy.ddl WHERE keyspace = " + where,
    ]
    for row in reversed(found):
        number = int(row[0] or 0)
        if number in taken:
            number = above = above + 1
        texts.append(
            b"INSERT INTO _shardproxy.ddl (keyspace, %s) VALUES (%s, %d, %s)"
            % (b", ".join(_DDL), where, number, _list(row[1:]))
        )
        shards = await source.query(
            b"SELECT %s FROM _shardproxy.ddl_shard WHERE ddl_id = %d" % (b", ".join(_DDL_SHARD), int(row[0] or 0))
        )
        texts += [
            b"INSERT INTO _shardproxy.ddl_shard (ddl_id, %s) VALUES (%d, %s)"
            % (b", ".join(_DDL_SHARD), number, _list(shard))
            for shard in shards.values()
        ]
    await source.query(b"COMMIT")
    await transact(target, name, None, texts)


def _list(values: Sequence[bytes | None]) -> bytes:
    return b", ".join(b"NULL" if value is None else quote(value) for value in values)


def _row(values: Sequence[bytes | None]) -> bytes:
    return b"(" + _list(values) + b")"
