"""The maps in the store: read, and the file's put there as the first."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from shardproxy.errors import DocumentError, StoreConflict, StoreOutcomeUnknown
from shardproxy.store.interface import ABSENT, MapStore
from shardproxy.topology.bootstrap import missing
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.model import Snapshot
from shardproxy.topology.stored import MAPS


@dataclass(frozen=True, slots=True)
class StoredMaps:
    """All maps of one moment, by keyspace; the versions of their entries; the store's revision, to watch from."""

    documents: Mapping[str, MapDocument]
    versions: Mapping[str, int]
    revision: int


async def read_maps(store: MapStore) -> StoredMaps:
    """The maps that the store has. Raises DocumentError, StoreUnavailable."""
    listing = await store.list(MAPS)
    documents, versions = {}, {}
    for entry in listing.entries:
        document = MapDocument.read(entry.key, entry.value)
        if entry.key != MAPS + document.keyspace:
            raise DocumentError(f"map store: {entry.key}: found the map of keyspace {document.keyspace}")
        documents[document.keyspace] = document
        versions[document.keyspace] = entry.version
    return StoredMaps(documents, versions, listing.revision)


async def maps_with_first(store: MapStore, snapshot: Snapshot) -> StoredMaps:
    """The maps of the store; for keyspaces of the file that it does not have, the file's map is put there before.

    Of several proxies that start at once with different files, the first one's map is everybody's. Raises as read_maps.
    """
    while True:
        maps = await read_maps(store)
        lacking = missing(snapshot, maps.documents)
        if not lacking:
            return maps
        for document in lacking:
            # Where there is one by now, or perhaps, the next look shows it.
            with contextlib.suppress(StoreConflict, StoreOutcomeUnknown):
                await store.put(MAPS + document.keyspace, document.document(), ABSENT)
