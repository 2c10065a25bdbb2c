"""Reading rows, only when asked to (`--data`): reference tables are equal, and sharded rows live where the map says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from shardproxy.admin.check.facts import ServerFacts, TableFacts
from shardproxy.admin.check.findings import Finding, error
from shardproxy.admin.check.tables import primaries_by_shard
from shardproxy.backend.control import Credentials, open_control
from shardproxy.errors import BackendError, SqlError
from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.maps import INT_MAX, INT_MIN, RangeMap
from shardproxy.topology.model import Keyspace, Server, Snapshot, TableKind

_AGAIN = "look again while nobody writes; if it stays, copy the rows of the right shard to the others"


@dataclass(frozen=True, slots=True)
class _Question:
    """One statement for one primary, and the table it is about."""

    shard: int
    where: str
    sql: str


async def data_findings(
    snapshot: Snapshot, facts: Sequence[ServerFacts], credentials: Credentials, seconds: float
) -> list[Finding]:
    """All findings about rows; scans every table once per shard, shards side by side. Nothing is raised.

    seconds: limit for each table.
    """
    by_shard = primaries_by_shard(snapshot, facts)
    contents: list[_Question] = []
    strays: list[_Question] = []
    for keyspace in snapshot.keyspaces.values():
        for table in keyspace.tables.values():
            where = f"{keyspace.name}.{table.name}"
            for shard in keyspace.shards:
                definition = by_shard[shard].tables.get((keyspace.name, table.name)) if shard in by_shard else None
                if definition is None or definition.schema.is_view:
                    continue
                if table.kind is TableKind.REFERENCE:
                    contents.append(_Question(shard, where, content_sql(definition)))
                elif table.kind is TableKind.SHARDED and shard in keyspace.map.all_shards and table.key is not None:
                    strays.append(_Question(shard, where, stray_sql(keyspace, table.name, table.key, shard)))
    servers = {i: shard.primary for i, shard in enumerate(snapshot.shards)}
    answers, failures = await _ask_all(servers, contents + strays, credentials, seconds)
    return [
        *failures,
        *_unequal([(q, answers[q]) for q in contents if q in answers], snapshot),
        *_strays([(q, answers[q]) for q in strays if q in answers], snapshot),
    ]


def content_sql(table: TableFacts) -> str:
    """A statement with one row `n`, `x`, `s` that is the same on two servers if the tables' rows are the same.

    The order of rows does not matter: XOR and SUM over a checksum of each row (both, because equal rows cancel in XOR).
    """
    columns = [f"`{c.name.replace('`', '``')}`" for c in table.schema.columns]
    values = ", ".join(f"ISNULL({c}), IFNULL(CAST({c} AS BINARY), '')" for c in columns)
    row = f"CRC32(CONCAT_WS(CHAR(31), {values}))"
    name = _quoted(table.schema.database, table.schema.name)
    return f"SELECT COUNT(*) AS n, BIT_XOR({row}) AS x, IFNULL(SUM({row}), 0) AS s FROM {name}"  # noqa: S608  (names are quoted)


def stray_sql(keyspace: Keyspace, table: str, key: str, shard: int) -> str:
    """A statement that counts, as `n`, the rows on this shard that the map looks for elsewhere; without those that a
    move has brought, or will take away: who deleted them would break it."""
    column = f"`{key.replace('`', '``')}`"
    if isinstance(keyspace.map, RangeMap):
        here = [r for r in keyspace.map.ranges if r.shard == shard]
        inside = " OR ".join(_between(column, r.start, r.end) for r in here)
    else:
        value = f"RTRIM(CONVERT({column} USING utf8mb4))" if keyspace.key_type is KeyType.TEXT else column
        buckets = [i for i, owner in enumerate(keyspace.map.buckets) if owner == shard]
        inside = f"CRC32(CRC32({value})) % {BUCKETS} IN ({', '.join(map(str, buckets))})"
    move = keyspace.move
    if move is not None and (move.table is None or move.table.name == table):
        inside = " OR ".join([inside, *(keys.condition(key).decode() for keys in move.hidden.get(shard, ()))])
    name = _quoted(keyspace.name, table)
    return f"SELECT COUNT(*) AS n FROM {name} WHERE {column} IS NULL OR NOT ({inside})"  # noqa: S608  (names are quoted)


def _between(column: str, start: int, end: int) -> str:
    parts = [f"{column} >= {start}" if start > INT_MIN else "", f"{column} < {end}" if end <= INT_MAX else ""]
    return "(" + (" AND ".join(p for p in parts if p) or "TRUE") + ")"


def _quoted(database: str, table: str) -> str:
    return ".".join(f"`{name.replace('`', '``')}`" for name in (database, table))


async def _ask_all(
    servers: dict[int, Server], questions: Sequence[_Question], credentials: Credentials, seconds: float
) -> tuple[dict[_Question, tuple[int, ...]], list[Finding]]:
    """Answers as tuples of numbers, and a finding for each question that failed."""
    answers: dict[_Question, tuple[int, ...]] = {}
    failures: list[Finding] = []

    async def one_server(shard: int) -> None:
        for question in (q for q in questions if q.shard == shard):
            try:
                async with await open_control(servers[shard], credentials, seconds) as connection:
                    [row] = await connection.query(question.sql)
            except (BackendError, SqlError) as problem:
                failures.append(error(question.where, f"its rows cannot be read: {problem}", "see the message"))
            else:
                answers[question] = tuple(int(v) for v in row.values())

    await asyncio.gather(*(one_server(shard) for shard in sorted({q.shard for q in questions})))
    return answers, failures


def _unequal(answers: Sequence[tuple[_Question, tuple[int, ...]]], snapshot: Snapshot) -> list[Finding]:
    tables: dict[str, dict[tuple[int, ...], list[str]]] = {}
    for question, content in answers:
        tables.setdefault(question.where, {}).setdefault(content, []).append(snapshot.shards[question.shard].name)
    return [
        error(
            where,
            "the reference table's rows differ between shards: "
            + "; ".join(f"{content[0]} rows on {', '.join(shards)}" for content, shards in groups.items()),
            _AGAIN,
        )
        for where, groups in tables.items()
        if len(groups) > 1
    ]


def _strays(answers: Sequence[tuple[_Question, tuple[int, ...]]], snapshot: Snapshot) -> list[Finding]:
    return [
        error(
            question.where,
            f"{count} rows on {snapshot.shards[question.shard].name} have a key that the map looks for elsewhere: "
            "reads by key do not find them",
            "move them to the shard of their key, or delete them",
        )
        for question, (count,) in answers
        if count
    ]
