"""Triggers that refuse writes of moving keys at the shard that gives them away, but for proxies and for us.

Their names begin with `_shardproxy_` and the move's number, and end with a digest of what they say: whoever finds one
of the right name need not make it. They are no part of a table's definition to anybody else of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from shardproxy.errors import ReshardError
from shardproxy.reshard.columns import SQL_MODE, quote, quote_name
from shardproxy.reshard.link import Link, LinkLogin, connect
from shardproxy.reshard.snapshot import LOCK_PATIENCE, in_time
from shardproxy.reshard.stream import StreamPlan
from shardproxy.topology.model import Server

_EVENTS = {b"INSERT": (b"NEW",), b"UPDATE": (b"OLD", b"NEW"), b"DELETE": (b"OLD",)}
_LONGEST_PAUSE = 2.0


@dataclass(frozen=True)
class Trigger:
    """sql: what follows CREATE TRIGGER and the name."""

    name: str
    sql: bytes


def triggers(plans: Sequence[StreamPlan], move: int, accounts: Iterable[str]) -> list[Trigger]:
    """Those of one shard. plans: of the streams from there; accounts: names of users that may write."""
    allowed = b", ".join(quote(account.encode()) for account in sorted(accounts))
    by_table: dict[str, list[tuple[StreamPlan, str]]] = {}
    for plan in plans:
        for table, key in plan.tables:
            by_table.setdefault(table, []).append((plan, key))
    found = []
    for table, those in by_table.items():
        database = those[0][0].database
        says = quote(f"shardproxy: rows of {table[:40]} are moving to another shard: write through the proxy".encode())
        for event, sides in _EVENTS.items():
            moving = b" OR ".join(_condition(plan, key, side) for plan, key in those for side in sides)
            sql = (
                b" BEFORE %s ON %s.%s FOR EACH ROW IF SUBSTRING_INDEX(USER(), '@', 1) NOT IN (%s) AND (%s) THEN "
                b"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = %s; END IF"
                % (event, quote_name(database), quote_name(table), allowed, moving, says)
            )
            digest = sha256(sql).hexdigest()[:16]
            found.append(Trigger(f"{_begin(move)}{event.decode().lower()}_{digest}", sql))
    return found


def _begin(move: int) -> str:
    return f"_shardproxy_{move}_"


def _condition(plan: StreamPlan, key: str, side: bytes) -> bytes:
    condition = plan.moving.condition_on(side + b"." + quote_name(key))
    if plan.also is None:
        return condition
    column, others = plan.also
    return b"(%s AND %s)" % (condition, others.condition_on(side + b"." + quote_name(column)))


async def guard(
    server: Server, login: LinkLogin, database: str, move: int, wanted: Sequence[Trigger], seconds: float
) -> None:
    """Have these triggers of a move on a server, and no others. Nobody waits for a lock behind us for more than
    LOCK_PATIENCE at a time. Raises ReshardError when the locks could not be had within `seconds`, SqlError."""
    async with await connect(server, login) as link, await connect(server, login) as killer:
        await link.query(b"SET SESSION sql_mode = '" + SQL_MODE + b"', lock_wait_timeout = 2")
        begin = _begin(move)
        listed = b"SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = %s AND LEFT(%s, %d) = %s"
        sql = listed % (quote(database.encode()), b"trigger_name", len(begin), quote(begin.encode()))
        there = {(row[0] or b"").decode() for row in (await link.query(sql)).values()}
        deadline = asyncio.get_running_loop().time() + seconds
        names = {trigger.name for trigger in wanted}
        for name in sorted(there - names):
            await _patiently(link, killer, b"DROP TRIGGER IF EXISTS " + _named(database, name), deadline)
        for trigger in wanted:
            if trigger.name not in there:
                text = b"CREATE TRIGGER " + _named(database, trigger.name) + trigger.sql
                await _patiently(link, killer, text, deadline)


def _named(database: str, trigger: str) -> bytes:
    return quote_name(database) + b"." + quote_name(trigger)


async def _patiently(link: Link, killer: Link, sql: bytes, deadline: float) -> None:
    pause = 0.1
    while not await in_time(link, killer, sql):
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            raise ReshardError(
                f"{link.server.name}: {sql[:120].decode('utf-8', 'replace')} … got no lock within {LOCK_PATIENCE:g} s, "
                "many times: a transaction has used the table all the time; end it, and go on"
            )
        await asyncio.sleep(min(pause, left))
        pause = min(_LONGEST_PAUSE, pause * 1.5)
