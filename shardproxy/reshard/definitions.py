"""Definitions that a target needs before rows come: its tables; on a shard that joins a keyspace views too, and which
tables were registered while proxies ran. Everything may be done again."""

from __future__ import annotations

from shardproxy.errors import ReshardError, SqlError
from shardproxy.reshard.columns import quote, quote_name
from shardproxy.reshard.link import Link, connect
from shardproxy.reshard.stream import StreamPlan

_REGISTERED = b"SELECT table_name, kind, key_column, shard FROM _shardproxy.table_config WHERE keyspace = %s"
_REGISTER = (
    b"REPLACE INTO _shardproxy.table_config (keyspace, table_name, kind, key_column, shard) VALUES (%s, %s, %s, %s, %s)"
)


async def create_tables(plan: StreamPlan) -> None:
    """Make the stream's tables on its target where they are missing, as the source has them."""
    async with await connect(plan.source, plan.login) as source, await connect(plan.target, plan.login) as target:
        database = quote_name(plan.database)
        [_, made] = (await source.query(b"SHOW CREATE DATABASE " + database)).one()
        await target.query((made or b"").replace(b"CREATE DATABASE ", b"CREATE DATABASE IF NOT EXISTS ", 1))
        await target.queries((b"SET SESSION foreign_key_checks = 0, sql_mode = ''", b"USE " + database))
        for table in (*(name for name, _ in plan.tables), *plan.references):
            [_, made] = (await source.query(b"SHOW CREATE TABLE " + database + b"." + quote_name(table))).one()
            await target.query((made or b"").replace(b"CREATE TABLE ", b"CREATE TABLE IF NOT EXISTS ", 1))


async def join_keyspace(plan: StreamPlan) -> None:
    """What a shard that joins needs beside tables. Raises ReshardError for a view that cannot be made."""
    async with await connect(plan.source, plan.login) as source, await connect(plan.target, plan.login) as target:
        await _views(plan, source, target)
        keyspace = quote(plan.database.encode())
        for row in (await source.query(_REGISTERED % keyspace)).values():
            values = [b"NULL" if value is None else quote(value) for value in row]
            await target.query(_REGISTER % (keyspace, *values))


async def _views(plan: StreamPlan, source: Link, target: Link) -> None:
    """One view may read another: those that fail are tried again as long as others succeed."""
    listed = b"SELECT table_name FROM information_schema.views WHERE table_schema = " + quote(plan.database.encode())
    there = {row[0] for row in (await target.query(listed)).values()}
    missing = [row[0] or b"" for row in (await source.query(listed)).values() if row[0] not in there]
    database = quote_name(plan.database)
    await target.query(b"USE " + database)
    while missing:
        failed: list[bytes] = []
        why: SqlError | None = None
        for name in missing:
            shown = await source.query(b"SHOW CREATE VIEW " + database + b"." + quote_name(name.decode()))
            _, text, _, collation = shown.one()
            try:
                # The text comes as utf8mb4, whatever it was written in.
                settings = b"SET character_set_client = utf8mb4, collation_connection = " + (collation or b"")
                await target.queries((settings, text or b""))
            except SqlError as error:
                failed.append(name)
                why = error
        if len(failed) == len(missing):
            raise ReshardError(
                f"{plan.target.name}: view {failed[0].decode()} cannot be made as {plan.source.name} has it ({why}): "
                "make it by hand, then go on"
            )
        missing = failed


async def tables_of(link: Link, database: str) -> frozenset[str]:
    """Names of a database's tables."""
    sql = b"SELECT table_name FROM information_schema.tables WHERE table_schema = " + quote(database.encode())
    return frozenset((row[0] or b"").decode() for row in (await link.query(sql)).values())
