"""Statements that write keys on their way to another shard: held, fenced, or told to be run again.

ARMED: they take the fence (executor.fence). CLOSING to SWITCHED: those of transactions that have not begun wait here
for the next map, and are planned anew under it; those of a transaction that has begun go on if it has the fence, else
it is rolled back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from shardproxy.errors import MovingError
from shardproxy.executor import everywhere, fence, fenced, lookup_writes, lookups, scatter, several, single
from shardproxy.executor.client import Client
from shardproxy.executor.fence import FenceClosedError, FenceUnreadError, Mode
from shardproxy.executor.request import Request
from shardproxy.planner.plan import Plan, Spread, StatementKind
from shardproxy.router.moving import Touch, touched
from shardproxy.router.route import Route, ValueReader
from shardproxy.topology.moves import OVER

Work = Coroutine[Any, Any, None]
SOON = 0.01  # seconds until a fence that is not armed yet is read again


def touches(client: Client, plan: Plan, read: ValueReader, found: Route | None) -> tuple[Touch, ...]:
    """What keeps a statement from running as ever; (): nothing. found: None when its shards are not known yet."""
    if fence.mode is Mode.OFF and not any_held(client):
        return ()
    met = touched(plan, read, client.map, None if found is None else found.shards)
    if met:
        client.touching = client.started
    return met


def check_definitions(client: Client, plan: Plan) -> None:
    """Raise MovingError for a schema change in a keyspace whose keys move: streams could not follow it."""
    if plan.kind is not StatementKind.DDL or plan.shard_hint is not None:
        return
    named = [group.keyspace for group in plan.groups]
    for keyspace in named if plan.keyspace is None else [*named, plan.keyspace]:
        move = keyspace.move
        if move is not None and move.phase not in OVER:
            raise MovingError(
                f"no schema changes while {fence.moving_keys(keyspace.name, move)}: complete or cancel the move first"
            )


def any_held(client: Client) -> bool:
    """Whether writes to keys of some keyspace have to wait now."""
    return any(k.move is not None and k.move.held for k in client.map.keyspaces.values())


async def write(request: Request, found: Route | None, met: tuple[Touch, ...], again: Callable[[], None]) -> None:
    """The rest of a command that touches moving keys. again: runs it anew, under the newest map. Raises SqlError."""
    client = request.client
    client.crossing = met
    fenced.check_kind(request)
    begun = client.held is not None and not fenced.alone(client)
    closing = next((touch for touch in met if touch.move.held and not (begun and fence.goes_on(client, touch))), None)
    if closing is not None:
        if begun:
            await fence.roll_back(client)
            raise fence.retriable(closing.keyspace, closing.move)
        await next_map(client, closing, False)
        again()
        return
    owed = client.session.begin, client.session.next_transaction
    try:
        await _attempt(request, found)
    except FenceClosedError as closed:
        if begun:
            await fence.roll_back(client)
            raise fence.retriable(closed.keyspace, closed.move) from None
        if client.held is not None and not client.session.pins:
            client.let_go()  # nothing but its beginning has been done
        client.session.begin, client.session.next_transaction = owed
        client.session.refresh()
        await next_map(client, Touch(closed.keyspace, closed.move, closed.move.sources), closed.early)
        again()
    except FenceUnreadError:
        if begun:
            await fence.roll_back(client)
        elif client.held is not None and not client.session.pins:
            client.let_go()
        raise


async def _attempt(request: Request, found: Route | None) -> None:
    client, plan = request.client, request.plan
    if found is None:
        await lookups.run(request)
    elif plan.entries is not None:
        await lookup_writes.write(request, found)
    elif len(found.shards) == 1 and (plan.groups or plan.spread is not Spread.SCRATCH):
        await on_one(request, found.shards[0])
    elif plan.spread is Spread.ALL:
        await everywhere.write(client, plan, found.shards, request.run)
    elif plan.spread is Spread.CONCAT:
        await scatter.scatter(client, plan, found.shards, False, request.wire_on, _ready(request))
    else:
        await several.run(request, found)


def _ready(request: Request) -> scatter.Ready | None:
    return None if request.execution is None else request.prepared_on


async def on_one(request: Request, shard: int) -> None:
    """On one shard: its answer is the client's. Raises SqlError."""
    client, plan = request.client, request.plan
    if not fenced.alone(client):
        connection = await single.take(client, plan, shard, False)
        client.relay_from(connection, await request.wire_for(connection), shard)
    elif plan.locks and client.session.simple and not (plan.pins or plan.assigns or plan.needs_insert_id):
        await scatter.scatter(client, plan, (shard,), False, request.wire_on, _ready(request))
    else:
        await fenced.one(request, shard)


# ── waiting ──


async def next_map(client: Client, touch: Touch, soon: bool) -> None:
    """Wait for a newer map; soon: or for a moment. Raises MovingError when it takes too long, and what a KILL says."""
    held = client.gateway.held_writes
    if client.map is not client.gateway.snapshot:
        return  # it came between the plan and the wait
    loop = asyncio.get_running_loop()
    command = client.started
    if client.waited[0] != command:  # else it has waited before
        client.waited = (command, loop.time())
        held.count += 1
    since = client.waited[1]
    until = since + held.timeout
    waiter: asyncio.Future[None] = loop.create_future()
    held.waiters.append(waiter)
    held.now.add(command)
    client.waiting = waiter
    try:
        async with asyncio.timeout_at(min(until, loop.time() + SOON) if soon else until):
            await waiter
    except TimeoutError:
        if not soon or loop.time() >= until:
            raise MovingError(
                f"the write has waited {held.timeout:g} s (transactions.hold_timeout) for "
                f"{fence.moving_keys(touch.keyspace, touch.move)}; nothing was done: try again, and see "
                "`shardctl rebalance status` for why the switch takes so long"
            ) from None
    finally:
        client.waiting = None
        held.waited(command, loop.time() - since)
        if waiter in held.waiters:
            held.waiters.remove(waiter)
