"""The connection where a statement over scratch tables runs: which server's, and its empty tables.

A statement whose tables no shard has all of is described here too, when it is prepared: over the empty tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shardproxy.backend.connection import BackendConnection
from shardproxy.backend.gateway import MOST_SCRATCH
from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendError, PoolTimeout, UnsupportedError
from shardproxy.executor import scratch_tables, single
from shardproxy.executor.client import Client
from shardproxy.executor.prepared import Describe, ServerStatement, ensure, first_packet, homes_in_common
from shardproxy.executor.scratch_columns import Column
from shardproxy.planner.plan import Plan
from shardproxy.planner.scratch_plan import Copy, ScratchPlan
from shardproxy.protocol.mysql.commands import PrepareOk
from shardproxy.protocol.mysql.framing import packet
from shardproxy.session.profile import Profile
from shardproxy.session.session import PreparedStatement


def choose_pool(client: Client, plan: ScratchPlan, shards: Sequence[Sequence[int]], replica: bool) -> Pool:
    """The server where it runs: the configured one, else one of a shard that has all databases.

    shards: for each scratch table where its rows are. Raises UnsupportedError when there is no such server.
    """
    gateway = client.gateway
    if gateway.scratch.server:
        pool = gateway.pools.get(gateway.scratch.server)
        if pool is None:
            known = ", ".join(sorted(gateway.pools))
            raise BackendError(f"scratch.server names '{gateway.scratch.server}', which is none of {known}")
        return pool
    databases = {copy.database for copy in plan.copies}
    keyspaces = client.map.keyspaces
    fit = set.intersection(*(set(keyspaces[name].shards) for name in databases))
    near = [shard for some in shards for shard in some if shard in fit] or sorted(fit)
    if not near:
        raise UnsupportedError(
            f"no shard has all of the databases {', '.join(sorted(databases))}: name a server that has them "
            "in [scratch] of shardproxy.toml"
        )
    return single.choose_pool(client, near[0], replica)


@asynccontextmanager
async def opened(client: Client, pool: Pool) -> AsyncIterator[BackendConnection]:
    """A connection for scratch tables, in the state in which they are filled. It is closed in the end, they with it.

    It is beyond the pool's limit: statements that had one and waited for others of the same pool would wait for each
    other. At most `MOST_SCRATCH` are open in a worker; who wants a further one waits, unless its transaction holds
    connections for which others wait. Raises PoolTimeout, BackendError.
    """
    slots = client.gateway.scratch.slots
    waits = client.session.simple
    if waits:
        try:
            async with asyncio.timeout(pool.wait):
                await slots.acquire()
        except TimeoutError:
            raise PoolTimeout(
                f"{MOST_SCRATCH} statements of this worker use scratch tables, and none ended within {pool.wait:g} s"
            ) from None
    try:
        profile = scratch_tables.loading(client.session.profile)
        home = await pool.beyond(profile)
        try:
            await switch(home, profile)
            yield home
        except BaseException:
            pool.abandon(home)
            raise
        if home.sinks:
            pool.abandon(home)
        else:
            home.close()
    finally:
        if waits:
            slots.release()


async def create_tables(
    client: Client, home: BackendConnection, plan: ScratchPlan, shards: Sequence[Sequence[int]]
) -> list[list[Column]]:
    """Make the plan's tables, empty, on a connection whose profile is `scratch_tables.loading`; for each its columns.

    Raises BackendError, UnsupportedError.
    """
    if client.mariadb:
        await scratch_tables.no_log(home)
    return [await _create(client, home, copy, some) for copy, some in zip(plan.copies, shards, strict=True)]


async def _create(client: Client, home: BackendConnection, copy: Copy, shards: Sequence[int]) -> list[Column]:
    shard = next(iter(shards), _home(copy))
    pool = client.gateway.shards[shard].primary

    async def definition() -> bytes:
        return await scratch_tables.definition_of(copy, pool, client.session.profile)

    return await scratch_tables.create(home, copy, definition)


def _home(copy: Copy) -> int:
    """A shard that has the table."""
    group = copy.groups[0]
    return group.shard if group.shard is not None else group.keyspace.home


async def switch(home: BackendConnection, wanted: Profile) -> None:
    """Bring the connection into a state. Raises BackendError."""
    failed = await home.switch(wanted)
    if failed is not None:
        raise BackendError(failed.error_message, failed.error_code, failed.sqlstate)


# ── PREPARE ──


def describer(client: Client, plan: Plan) -> Describe | None:
    """What describes the statement when no one shard has all of its tables; None where one has."""
    made = plan.scratch
    if made is None or plan.shard_hint is not None or homes_in_common(plan):
        return None

    async def describe(statement: PreparedStatement) -> ServerStatement:
        return await _describe(client, made, statement, plan.read and not plan.primary)

    return describe


async def _describe(client: Client, plan: ScratchPlan, statement: PreparedStatement, replica: bool) -> ServerStatement:
    shards = [(_home(copy),) for copy in plan.copies]
    profile = client.session.profile
    async with opened(client, choose_pool(client, plan, shards, replica)) as home:
        await create_tables(client, home, plan, shards)
        await switch(home, profile)
        if plan.text is None:
            server = await ensure(home, statement)
        else:
            text = plan.text.render(statement.literals, statement.parameters)
            other = PreparedStatement(
                0, text.text, statement.entry, [], [], len(text.parameters), profile, statement.modes, statement.version
            )
            server = _in_order(await ensure(home, other), text.parameters)
        return server


def _in_order(server: ServerStatement, numbers: tuple[int, ...]) -> ServerStatement:
    """The description of a text whose n-th parameter is the client's `numbers[n]`, as that of the client's text."""
    count = len(set(numbers))
    if numbers == tuple(range(count)) or server.params != len(numbers):
        return server
    packets = []
    rest = server.response
    while rest:
        one = first_packet(rest)
        packets.append(one)
        rest = rest[4 + len(one) :]
    ok = PrepareOk.parse(packets[0])
    definitions = [packets[1 + numbers.index(number)] for number in range(count)]
    packets[: 1 + ok.params] = [PrepareOk(ok.statement_id, ok.columns, count, ok.warnings).build(), *definitions]
    response = b"".join(packet(one, 1 + i & 255) for i, one in enumerate(packets))
    return ServerStatement(server.ident, server.ident_bytes, count, response)
