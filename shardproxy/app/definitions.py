"""What the servers say of tables and lookup indexes: read at the start, and anew when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shardproxy import logs
from shardproxy.backend.catalog import (
    LoadedCatalog,
    load_catalog,
    load_lookups,
    load_registered,
    lookups_as_told,
    schema_digest,
)
from shardproxy.backend.control import Credentials, open_control
from shardproxy.backend.table_config import as_tables
from shardproxy.errors import BackendError, SqlError
from shardproxy.sql.session_text import ASSUMED
from shardproxy.topology.build import with_tables
from shardproxy.topology.model import Server, Snapshot

log = logs.Log("supervisor")


class Definitions:
    """seconds: limit per connection and statement. with_maps: the snapshot with the present maps of the store.

    tables: the file's map with registered tables and the state of lookup indexes. loaded: None before the first `load`.
    sql_mode: the servers' own. session_defaults: variables that they have otherwise than is taken for granted.
    """

    def __init__(
        self, file: Snapshot, credentials: Credentials, seconds: float, with_maps: Callable[[Snapshot], Snapshot]
    ) -> None:
        self.tables = file
        self.loaded: LoadedCatalog | None = None
        self.sql_mode = ""
        self.session_defaults: dict[str, str] = {}
        self._file = file
        self._credentials = credentials
        self._seconds = seconds
        self._with_maps = with_maps
        self._lock = asyncio.Lock()

    @property
    def mariadb(self) -> bool:
        """Whether the servers are of MariaDB; False before the first `load`."""
        return self.loaded is not None and "mariadb" in self.loaded.server_version.lower()

    async def load(self) -> None:
        """Read all of it. Raises BackendError, SqlError: then nothing has changed here."""
        async with self._lock:
            version = self.loaded.catalog.version + 1 if self.loaded else 1
            tables = await self._with_registered()
            found = await load_lookups(self._with_maps(tables), self._credentials, self._seconds)
            loaded = await load_catalog(found, self._credentials, self._seconds, version)
            if not self.sql_mode:
                await self._read_globals(self._file.shards[0].primary)
            self.loaded = loaded
            self.tables = found
            for line in loaded.unread:
                log.warning("table_not_read", reason=line)

    async def _read_globals(self, server: Server) -> None:
        asked = ", ".join(f"@@GLOBAL.{name} AS {name}" for name in ("sql_mode", *ASSUMED))
        async with await open_control(server, self._credentials, self._seconds) as connection:
            [found] = await connection.query(f"SELECT {asked}")
        self.sql_mode = str(found["sql_mode"])
        literals = {name: str(found[name]) for name in ASSUMED}
        self.session_defaults = {name: value for name, value in literals.items() if value != ASSUMED[name]}

    async def watch(self, server: Server, interval: float, renew: Callable[[], Awaitable[None]]) -> None:
        """Look at one server every `interval` seconds whether something changed behind the proxy; then `renew`."""
        last: tuple[object, ...] | None = None  # from the first look, at once: changes count from the start
        while True:
            try:
                async with await open_control(server, self._credentials, self._seconds) as connection:
                    seen = await schema_digest(connection, list(self._file.keyspaces))
                    # States of lookup indexes are compared with those that are gone by: they may have been read while
                    # this server was away, or just before they were again as they are in `last`.
                    told = await lookups_as_told(connection, self._with_maps(self.tables))
                if (last is not None and seen != last) or not told:
                    log.info("schema_changed", server=server.name)
                    await renew()
                last = seen
            except (BackendError, SqlError) as error:
                log.warning("schema_not_read", server=server.name, reason=str(error))
            await asyncio.sleep(interval)

    async def _with_registered(self) -> Snapshot:
        """The file's map with the tables that were registered while proxies ran."""
        rows = await load_registered(self._with_maps(self._file), self._credentials, self._seconds)
        found, unknown = as_tables(rows, [shard.name for shard in self._file.shards])
        for row in unknown:
            log.warning("registered_table_left_out", table=f"{row.keyspace}.{row.name}", shard=row.shard)
        snapshot, shadowed = with_tables(self._file, found)
        for name in shadowed:
            log.warning("registered_otherwise", table=name, why="shardproxy.toml names the table too, and wins")
        return snapshot
