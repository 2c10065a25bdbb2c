"""EXPLAIN ROUTE statement: what the proxy would do with it, as rows. No server is asked, but for lookup indexes."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

from shardproxy.errors import SqlError
from shardproxy.executor import lookups
from shardproxy.executor.client import Client
from shardproxy.executor.request import text_request
from shardproxy.planner.key_values import key_value
from shardproxy.planner.plan import Plan, Rung, Spread, StatementKind
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Cap
from shardproxy.protocol.mysql.text import resultset
from shardproxy.router.route import Resolved, ValueReader, route
from shardproxy.sql.digest import scan

COLUMNS = ("shard", "role", "rung", "opcode", "reason", "not_above", "sql")
_RUNGS = {Rung.ONE_SHARD: "one shard", Rung.MERGE: "merge", Rung.SCRATCH: "scratch", Rung.ERROR: "error"}
# The statement's words before the explained one; comments between them were refused by the planner.
_PREFIX = re.compile(rb"\s*(?:EXPLAIN|DESCRIBE|DESC)\s+ROUTE\s+", re.IGNORECASE)
# Answered by the proxy, or sent to whatever server the session holds.
NOWHERE = frozenset((
    StatementKind.BEGIN, StatementKind.COMMIT, StatementKind.ROLLBACK, StatementKind.SAVEPOINT, StatementKind.USE,
    StatementKind.SET_TRANSACTION, StatementKind.SHOW_WARNINGS, StatementKind.KILL, StatementKind.EMPTY,
    StatementKind.SET, StatementKind.EXPLAIN_ROUTE,
))  # fmt: skip
HIDES = "; without rows that are on their way between shards"
_REWRITTEN = (Spread.MERGE, Spread.SCRATCH, Spread.WRITE)


def answer(client: Client, plan: Plan, sql: bytes, wire: bytes) -> Coroutine[Any, Any, None] | None:
    """Write the rows and finish. Raises SqlError, also the one that the explained statement would get at parsing."""
    inner = _PREFIX.sub(b"", sql, count=1)
    digest, literals = scan(inner, client.session.modes)
    explained = client.plan(digest, inner).plan
    if explained.lookups:
        return _looked_up(client, explained, inner, literals, wire)
    _write(client, _rows(client, explained, inner, literals))
    return None


async def _looked_up(client: Client, plan: Plan, sql: bytes, literals: list[bytes], wire: bytes) -> None:
    """The same for a statement that asks lookup indexes: they are asked here, too."""
    modes = client.session.modes
    read: ValueReader = lambda value, key_type: key_value(literals[value.index], value.negative, key_type, modes)  # noqa: E731
    resolved = await lookups.resolve(text_request(client, plan, sql, literals, read, wire))
    _write(client, _rows(client, plan, sql, literals, resolved))


def _write(client: Client, shown: list[list[str | None]]) -> None:
    rows = [[None if value is None else value.encode() for value in row] for row in shown]
    columns = [ColumnDefinition(name.encode(), length=65_535 * 4) for name in COLUMNS]
    deprecate_eof = bool(client.session.profile.capabilities & Cap.DEPRECATE_EOF)
    client.session.affected = -1
    client.write(resultset(columns, rows, client.status(), 0, deprecate_eof, client.seq))
    client.finish()


def _rows(
    client: Client, plan: Plan, sql: bytes, literals: list[bytes], resolved: Resolved | None = None
) -> list[list[str | None]]:
    """One row for each shard; one row without a shard when none is asked, or when the statement gets an error."""
    snapshot = client.map
    modes = client.session.modes
    read: ValueReader = lambda value, key_type: key_value(literals[value.index], value.negative, key_type, modes)  # noqa: E731
    if plan.rung is Rung.ERROR or plan.local or plan.kind in NOWHERE:
        role = None if plan.rung is Rung.ERROR else "proxy"
        return [_row(plan, None, role, plan.rung, plan.reason, None)]
    try:
        found = route(plan, read, snapshot, client.session.shard, resolved)
    except SqlError as error:
        return [_row(plan, None, None, Rung.ERROR, f"{error.code}: {error}", None)]
    one = len(found.shards) == 1 and plan.spread is not Spread.SCRATCH
    by_key = one and (resolved is None or len(route(plan, read, snapshot, client.session.shard).shards) == 1)
    rung = Rung.ONE_SHARD if one else plan.rung
    role = "replica" if found.replica else "primary"
    rows = []
    for shard in found.shards:
        shown, reason = sql, plan.reason
        if not by_key and plan.hides_on(shard):
            reason += HIDES
            shown = sql if plan.text is None else plan.text.render(literals, (), 0, shard).text
        text = shown.decode("utf-8", "replace") if one or plan.spread not in _REWRITTEN else None
        rows.append(_row(plan, snapshot.shards[shard].name, role, rung, reason, text))
    return rows


def _row(plan: Plan, shard: str | None, role: str | None, rung: Rung, reason: str, sql: str | None) -> list[str | None]:
    above = plan.not_above if rung is not Rung.ONE_SHARD else ""
    return [shard, role, f"{int(rung)}: {_RUNGS[rung]}", plan.opcode.value, reason, above, sql]
