"""Entries of lookup indexes whose rows a resumed schema change takes away (see backend.lookup_record)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from shardproxy.admin.lookup.verify import verify
from shardproxy.admin.lookup.work import prepare
from shardproxy.backend.catalog import asking
from shardproxy.backend.control import Credentials, open_control
from shardproxy.backend.ddl_record import Ask, Recorded
from shardproxy.backend.lookup_record import delete_entries, mark_entries
from shardproxy.topology.lookup import index_name
from shardproxy.topology.model import Keyspace, Snapshot

_BATCH = 1000


class EmptiedIndexes:
    """The lookup indexes that a change empties; there may be none. tell: takes lines for the operator."""

    def __init__(
        self,
        snapshot: Snapshot,
        credentials: Credentials,
        seconds: float,
        keyspace: Keyspace,
        record: Recorded,
        tell: Callable[[str], None],
    ) -> None:
        self._snapshot = snapshot
        self._credentials = credentials
        self._seconds = seconds
        self._keyspace = keyspace
        self._tell = tell
        found = record.change.info.get("emptied")
        self._indexes = [(str(table), str(columns)) for table, columns in found] if isinstance(found, list) else []
        self._drops = bool(record.change.info.get("drops"))

    async def mark(self) -> None:
        """Before the first shard loses its rows. Raises SqlError, BackendError."""
        async for ask, name in self._each():
            await mark_entries(ask, self._keyspace.name, name)

    async def delete(self, all_marked: bool) -> None:
        """After the last one has. all_marked: not so when rows came after the marking to a shard that only lost its
        rows now: then entries are compared with the rows that there are. Raises ShardproxyError."""
        async for ask, name in self._each():
            await delete_entries(ask, self._keyspace.name, name, marked=not self._drops)
        if all_marked or self._drops:
            return
        for table, columns in self._indexes:
            work = await prepare(
                self._snapshot, self._credentials, self._seconds, f"{self._keyspace.name}.{table}", columns, _BATCH
            )
            found = await verify(work, True, lambda rows: None, only_orphans=True)
            if found.repaired:
                self._tell(f"{index_name(table, columns.split(','))}: {found.repaired} entries without row are gone")

    async def _each(self) -> AsyncIterator[tuple[Ask, str]]:
        for shard in self._keyspace.shards if self._indexes else ():
            primary = self._snapshot.shards[shard].primary
            async with await open_control(primary, self._credentials, self._seconds) as connection:
                for table, columns in self._indexes:
                    yield asking(connection), index_name(table, columns.split(","))
