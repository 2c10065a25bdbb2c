"""The file's maps and the store's: the file's are the first; from then on the store's are in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from shardproxy.errors import ConfigError
from shardproxy.topology.lookup import placement
from shardproxy.topology.map_document import FIRST_EPOCH, MapDocument
from shardproxy.topology.map_form import HashForm, RangeForm, form_of
from shardproxy.topology.model import Keyspace, Snapshot


@dataclass(frozen=True, slots=True)
class Difference:
    """Where file and store differ. serious: the keyspace cannot be served so."""

    keyspace: str
    what: str
    fix: str
    serious: bool


def first_document(snapshot: Snapshot, keyspace: Keyspace) -> MapDocument:
    """What is stored for a keyspace of which the store knows nothing: the file's map, epoch 1."""
    names = [shard.name for shard in snapshot.shards]
    return MapDocument(
        keyspace=keyspace.name,
        key_type=keyspace.key_type.value,
        epoch=FIRST_EPOCH,
        map=form_of(keyspace.map, names),
        home=names[keyspace.home],
    )


def missing(snapshot: Snapshot, documents: Mapping[str, MapDocument]) -> list[MapDocument]:
    """The documents of the file's keyspaces that the store does not have: to be stored, each if it is still absent."""
    return [first_document(snapshot, k) for name, k in snapshot.keyspaces.items() if name not in documents]


def with_stored(snapshot: Snapshot, documents: Mapping[str, MapDocument]) -> Snapshot:
    """The file's snapshot with the maps of the store. Its epoch is the newest of theirs.

    documents: by keyspace; those of keyspaces that the file does not have are left alone. Raises ConfigError where a
    map cannot be used with this file.
    """
    order = {shard.name: i for i, shard in enumerate(snapshot.shards)}
    known = [(k, documents[name]) for name, k in snapshot.keyspaces.items() if name in documents]
    serious = [d for keyspace, document in known for d in _serious(keyspace, document, order)]
    if serious:
        raise ConfigError("\n".join(f"keyspace {d.keyspace}: {d.what}; {d.fix}" for d in serious))
    keyspaces = dict(snapshot.keyspaces)
    epochs: dict[str, int] = {}
    for keyspace, document in known:
        keyspaces[keyspace.name] = _with_lookups(snapshot, keyspace, _as_stored(keyspace, document, order))
        epochs[keyspace.name] = document.epoch
    positions: dict[str, frozenset[str]] = {}
    for document in documents.values():
        for shard, position in document.positions.items():
            positions[shard] = positions.get(shard, frozenset()) | {position}
    newest = max([snapshot.epoch, *epochs.values()])
    return replace(snapshot, epoch=newest, keyspaces=keyspaces, positions=positions, epochs=epochs)


def differences(snapshot: Snapshot, documents: Mapping[str, MapDocument]) -> list[Difference]:
    """What `check` says of the file's snapshot and the store's documents, by keyspace in the file's order."""
    order = {shard.name: i for i, shard in enumerate(snapshot.shards)}
    found = []
    for name, keyspace in snapshot.keyspaces.items():
        document = documents.get(name)
        if document is None:
            continue
        serious = _serious(keyspace, document, order)
        found += serious
        if not serious:
            found += _other_tables(keyspace, document, order)
            what = _how_differ(keyspace, document, order)
            if what:
                fix = "the store's is in force; bring the file up to date, or leave it: it is read no more"
                found.append(Difference(name, f"{what} (store: epoch {document.epoch})", fix, False))
    for name in documents:
        if name not in snapshot.keyspaces:
            what = "the store has a map of it, the file has no such keyspace"
            found.append(Difference(name, what, "is it the store of other proxies? see [store]", False))
    return found


def _serious(keyspace: Keyspace, document: MapDocument, order: Mapping[str, int]) -> list[Difference]:
    """What keeps the keyspace from being served. Every proxy asks for every map, while writes wait."""
    found = []
    if document.key_type != keyspace.key_type.value:
        what = f"the store's map has {document.key_type} keys, the file says {keyspace.key_type.value}"
        found.append(Difference(keyspace.name, what, f'write key_type = "{document.key_type}" into the file', True))
    unknown = sorted(document.shards - order.keys())
    if unknown:
        what = f"the store's map names shards that the file does not have: {', '.join(unknown)}"
        found.append(Difference(keyspace.name, what, "add them to [shards]", True))
    return found


def _other_tables(keyspace: Keyspace, document: MapDocument, order: Mapping[str, int]) -> list[Difference]:
    """Tables that a move has changed and the file still has as before."""
    found = []
    for name, form in document.tables.items():
        table = keyspace.tables.get(name)
        if table is not None and form.to_table(table, order) != table:
            now = f'{{ key = "{form.key}" }}' if form.key is not None else f'{{ single = "{form.single}" }}'
            what, fix = f"the store's table {name} is {now}, the file's is not", "write it so into the file's tables"
            found.append(Difference(keyspace.name, what, fix, False))
    return found


def _how_differ(keyspace: Keyspace, document: MapDocument, order: Mapping[str, int]) -> str:
    """In words; "" when the maps do not differ."""
    stored, ours = document.map, form_of(keyspace.map, sorted(order, key=lambda name: order[name]))
    if isinstance(stored, HashForm) and isinstance(ours, HashForm):
        count = sum(a != b for a, b in zip(stored.owners, ours.owners, strict=True))
        return (
            f"{count} of {len(stored.buckets)} buckets are on other shards than the file's ring says" if count else ""
        )
    if isinstance(stored, RangeForm) and isinstance(ours, RangeForm):
        if RangeForm.of(stored.ranges) == ours:
            return ""
        shown = ", ".join(f"[{start}, {end}) {shard}" for start, end, shard in stored.ranges[:5])
        more = f" and {len(stored.ranges) - 5} more" if len(stored.ranges) > 5 else ""
        return f"the store's ranges are not the file's: {shown}{more}"
    return f"the store has a {stored.kind} map, the file a {ours.kind} map"


def _with_lookups(snapshot: Snapshot, before: Keyspace, after: Keyspace) -> Keyspace:
    """Lookup indexes whose entries are where another map wants them are not ready until their record is read again."""
    if not any(table.lookups for table in after.tables.values()) or placement(snapshot, before) == placement(
        snapshot, after
    ):
        return after
    tables = {
        name: replace(table, lookups=tuple(replace(index, ready=False) for index in table.lookups))
        for name, table in after.tables.items()
    }
    return replace(after, tables=tables)


def _as_stored(keyspace: Keyspace, document: MapDocument, order: Mapping[str, int]) -> Keyspace:
    # A shard that takes part in a move has the keyspace's reference tables, before it has keys and after it had them,
    # unless it gets them by the move: then they are there when it has keys.
    tables = dict(keyspace.tables)
    for name, form in document.tables.items():
        if name in tables:
            tables[name] = form.to_table(tables[name], order)
    singles = {table.shard for table in tables.values() if table.shard is not None}
    move = document.move
    shards = tuple(sorted({order[name] for name in document.shards - document.joining} | singles))
    home = order[document.home] if document.home else shards[0]
    return replace(
        keyspace,
        tables=tables,
        map=document.map.to_map(order),
        shards=shards,
        move=None if move is None else move.seen(keyspace.key_type, order),
        first=None if home == shards[0] else home,
        entries=None if document.lookups is None else document.lookups.owners.to_map(order),
        placement="" if document.lookups is None else document.lookups.placement,
    )
