"""Tables that were registered by CREATE TABLE through a proxy: proxies know them beside the file's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from shardproxy.admin.check.findings import Finding, warning
from shardproxy.backend.catalog import load_registered
from shardproxy.backend.control import Credentials
from shardproxy.backend.table_config import Registered, as_tables
from shardproxy.errors import BackendError, SqlError
from shardproxy.topology.bootstrap import with_stored
from shardproxy.topology.build import with_tables
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.model import Snapshot


async def registered_findings(
    snapshot: Snapshot, documents: Mapping[str, MapDocument], credentials: Credentials, seconds: float
) -> tuple[list[Finding], Snapshot]:
    """What is wrong with registered tables; and the file's snapshot with them and the store's maps, as proxies have it.

    Nothing is raised: that a shard cannot be asked is told by the rules about servers.
    """
    there = with_stored(snapshot, documents)  # a shard that has left knows no table that came later
    rows: list[Registered] = []
    for keyspace in there.keyspaces.values():
        try:
            rows += await load_registered(replace(there, keyspaces={keyspace.name: keyspace}), credentials, seconds)
        except (BackendError, SqlError):
            continue
    tables, unknown = as_tables(rows, [shard.name for shard in snapshot.shards])
    whole, shadowed = with_tables(snapshot, tables)
    findings = [
        warning(
            f"{row.keyspace}.{row.name}",
            f"it was registered as single on {row.shard}, which the file does not have: clients cannot use it",
            f"add {row.shard} to [shards], or the table to the file as it is now",
        )
        for row in unknown
    ]
    findings += [
        warning(
            name,
            "it is in the file, and was registered otherwise by CREATE TABLE through a proxy: the file wins",
            "correct the file if the registration is right; it goes with DROP TABLE",
        )
        for name in shadowed
    ]
    return findings, with_stored(whole, documents)
