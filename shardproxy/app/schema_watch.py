"""Looks, time after time, whether the schema changed behind the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from shardproxy import logs
from shardproxy.backend.catalog import lookups_as_told, schema_digest
from shardproxy.backend.control import Credentials, open_control
from shardproxy.errors import BackendError, SqlError
from shardproxy.topology.model import Server, Snapshot

log = logs.Log("supervisor")


class SchemaWatch:
    """seconds: limit per connection and statement. databases: all keyspaces. loaded: what plans go by at present.
    renew: reads all anew and voids the plans; raises BackendError, SqlError."""

    def __init__(
        self,
        credentials: Credentials,
        seconds: float,
        databases: Sequence[str],
        loaded: Callable[[], Snapshot],
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        self._credentials = credentials
        self._seconds = seconds
        self._databases = databases
        self._loaded = loaded
        self._renew = renew

    async def run(self, server: Server, interval: float) -> None:
        """Look at one server every `interval` seconds."""
        last: tuple[object, ...] | None = None  # from the first look, at once: changes count from the start
        while True:
            try:
                async with await open_control(server, self._credentials, self._seconds) as connection:
                    seen = await schema_digest(connection, self._databases)
                    # States of lookup indexes are compared with those that are gone by: they may have been read while
                    # this server was away, or just before they were again as they are in `last`.
                    told = await lookups_as_told(connection, self._loaded())
                if (last is not None and seen != last) or not told:
                    log.info("schema_changed", server=server.name)
                    await self._renew()
                last = seen
            except (BackendError, SqlError) as error:
                log.warning("schema_not_read", server=server.name, reason=str(error))
            await asyncio.sleep(interval)
