"""The maps in the store beside the file's."""

from __future__ import annotations

from collections.abc import Mapping

from shardproxy.admin.check.findings import Finding, error, warning
from shardproxy.config import Config
from shardproxy.errors import StoreError
from shardproxy.store.maps import read_maps
from shardproxy.store.opening import open_store
from shardproxy.topology.bootstrap import differences
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.model import Snapshot


async def store_findings(config: Config, snapshot: Snapshot) -> tuple[list[Finding], Mapping[str, MapDocument]]:
    """Where file and store differ, or why the store cannot be read; and the store's maps by keyspace, none where they
    cannot be used. A store file that is not there yet is fine: the first proxy makes it.

    Raises ConfigError for a password or certificate that cannot be had.
    """
    where = "store"
    if config.store.kind == "embedded":
        path = config.resolve(config.store.path)
        if not path.exists():
            return [], {}
        where = f"store {path}"
    try:
        store = await open_store(config)
        try:
            maps = await read_maps(store)
        finally:
            await store.close()
    except StoreError as problem:
        return [error(where, str(problem), "proxies that start now wait for the store; those that run go on")], {}
    found = differences(snapshot, maps.documents)
    findings = [(error if d.serious else warning)(f"keyspace {d.keyspace}", d.what, d.fix) for d in found]
    if any(d.serious for d in found):
        return findings, {}
    return findings, maps.documents
