"""The file's maps and the store's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shardproxy.config import parse
from shardproxy.errors import ConfigError
from shardproxy.topology.bootstrap import Difference, differences, first_document, missing, with_stored
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.map_document import MapDocument, Move, Stream, advance, begin
from shardproxy.topology.map_form import HashForm, Interval, KeySet, NamedRange, RangeForm, TableForm
from shardproxy.topology.maps import INT_MAX, INT_MIN, BucketMap, KeyRange, RangeMap
from shardproxy.topology.model import LookupIndex, Snapshot, Table, TableKind
from shardproxy.topology.moves import Phase
from shardproxy.topology.stages import Stage, Step
from tests.unit.topology.test_topology_build import config_data


def snapshot(**changes: Any) -> Snapshot:
    return build_snapshot(parse({**config_data(), **changes}))


def first(file: Snapshot) -> dict[str, MapDocument]:
    return {name: first_document(file, keyspace) for name, keyspace in file.keyspaces.items()}


def test_the_files_maps_are_the_first() -> None:
    file = snapshot()
    documents = first(file)
    assert missing(file, {}) == list(documents.values())
    assert missing(file, {"ranged": documents["ranged"]}) == [documents["hashed"]]
    ranged = documents["ranged"]
    assert (ranged.epoch, ranged.key_type, ranged.move, ranged.positions) == (1, "int", None, {})
    assert ranged.map == RangeForm.of([NamedRange(INT_MIN, 100, "z"), NamedRange(100, INT_MAX + 1, "a")])
    assert documents["hashed"].map.shards == ("a", "z")
    assert with_stored(file, documents) == file
    assert with_stored(file, {}) == file
    assert differences(file, documents) == []


def test_the_stores_tables_win() -> None:
    file = snapshot()
    ranged = first(file)["ranged"]

    def stored(**tables: TableForm) -> dict[str, MapDocument]:
        return {"ranged": ranged.model_copy(update={"tables": tables})}

    sharded = stored(settings=TableForm(key="sid"))
    keyspace = with_stored(file, sharded).keyspaces["ranged"]
    assert keyspace.tables["settings"] == Table("settings", TableKind.SHARDED, key="sid")
    assert keyspace.shards == (0, 1)  # nothing is on the third any more
    [found] = differences(file, sharded)
    assert not found.serious and found.what == "the store's table settings is { key = \"sid\" }, the file's is not"
    back = stored(users=TableForm(single="z"), gone=TableForm(single="z"))
    assert with_stored(file, back).keyspaces["ranged"].tables["users"] == Table("users", TableKind.SINGLE, shard=0)
    assert "gone" not in with_stored(file, back).keyspaces["ranged"].tables
    same = stored(users=TableForm(key="uid"), settings=TableForm(single="lone"))
    assert with_stored(file, same).keyspaces["ranged"] == file.keyspaces["ranged"] and differences(file, same) == []
    assert [d.serious for d in differences(file, stored(users=TableForm(single="nowhere")))] == [True]


def test_the_stores_map_wins_whatever_the_files_order_of_shards_is() -> None:
    documents = first(snapshot())
    other_order = snapshot(shards=dict(reversed(config_data()["shards"].items())))
    assert [shard.name for shard in other_order.shards] == ["lone", "a", "z"]
    found = with_stored(other_order, documents).keyspaces["ranged"].map
    assert found == RangeMap([KeyRange(INT_MIN, 100, 2), KeyRange(100, INT_MAX + 1, 1)])
    assert differences(other_order, documents) == []


def moved(file: Snapshot) -> dict[str, MapDocument]:
    """Keys from 500 on have gone from a to lone; some buckets from z to a."""
    documents = first(file)
    keys = KeySet(ranges=(Interval(500, INT_MAX + 1),))
    document = begin(
        documents["ranged"],
        Move(id=1, stage=Stage.PREPARED, streams=(Stream(source="a", target="lone", keys=keys),)),
    )
    for _ in range(3):
        document = advance(document, Step.NEXT)
    document = advance(document, Step.NEXT, {"lone": "0-1-1"})
    hashed = documents["hashed"].map
    assert isinstance(hashed, HashForm)
    owners = hashed.owners
    taken = [n for n, name in enumerate(owners) if name == "z"][:9]
    for n in taken:
        owners[n] = "a"
    return {
        "ranged": document,
        "hashed": documents["hashed"].model_copy(update={"map": HashForm.of(owners), "epoch": 20}),
    }


def test_a_map_that_has_changed_is_in_force_and_told() -> None:
    file = snapshot()
    documents = moved(file)
    found = with_stored(file, documents)
    assert found.epoch == 20
    assert found.epochs == {"ranged": 6, "hashed": 20}
    ranged = found.keyspaces["ranged"]
    assert ranged.map == RangeMap([KeyRange(INT_MIN, 100, 0), KeyRange(100, 500, 1), KeyRange(500, INT_MAX + 1, 2)])
    assert ranged.tables == file.keyspaces["ranged"].tables
    assert ranged.move is not None and ranged.move.phase is Phase.SWITCHED
    assert ranged.move.hidden.keys() == {1}
    assert ranged.move.source_of(500) == 1
    stored = documents["hashed"].map
    assert isinstance(stored, HashForm)
    assert found.keyspaces["hashed"].map == BucketMap([file.shard_index(name) for name in stored.owners])
    fix = "the store's is in force; bring the file up to date, or leave it: it is read no more"
    assert differences(file, documents) == [
        Difference(
            "ranged",
            f"the store's ranges are not the file's: [{INT_MIN}, 100) z, [100, 500) a, [500, {INT_MAX + 1}) lone "
            "(store: epoch 6)",
            fix,
            False,
        ),
        Difference(
            "hashed",
            "9 of 4096 buckets are on other shards than the file's ring says (store: epoch 20)",
            fix,
            False,
        ),
    ]


def test_shards_of_a_move_hold_the_keyspaces_reference_tables() -> None:
    file = snapshot()
    document = first(file)["hashed"]
    shards = [file.shard_index(name) for name in ("a", "z")]
    assert list(with_stored(file, {"hashed": document}).keyspaces["hashed"].shards) == sorted(shards)
    assert isinstance(document.map, HashForm)
    keys = KeySet(buckets=document.map.intervals_of("a")[:1])
    streams = (Stream(source="a", target="lone", keys=keys),)
    moving = begin(document, Move(id=1, stage=Stage.PREPARED, streams=streams))
    assert list(with_stored(file, {"hashed": moving}).keyspaces["hashed"].shards) == [0, 1, 2]


def test_what_cannot_be_used_with_the_file_is_serious() -> None:
    file = snapshot()
    documents = first(file)
    wrong_type = {"hashed": documents["hashed"].model_copy(update={"key_type": "binary"})}
    [difference] = differences(file, wrong_type)
    assert difference == Difference(
        "hashed", "the store's map has binary keys, the file says text", 'write key_type = "binary" into the file', True
    )
    with pytest.raises(ConfigError, match="keyspace hashed: the store's map has binary keys"):
        with_stored(file, wrong_type)
    unknown = {"ranged": documents["ranged"].model_copy(update={"map": RangeForm.of([NamedRange(0, 9, "new")])})}
    [difference] = differences(file, unknown)
    assert difference.serious
    assert difference.what == "the store's map names shards that the file does not have: new"
    with pytest.raises(ConfigError, match="names shards that the file does not have: new; add them to"):
        with_stored(file, unknown)


def test_another_kind_of_map_and_a_keyspace_of_others_are_told() -> None:
    file = snapshot()
    documents = first(file)
    ring = documents["ranged"].model_copy(update={"map": HashForm.of(["a", "z"] * 2048)})
    strange = documents["hashed"].model_copy(update={"keyspace": "strange"})
    told = differences(file, {"ranged": ring, "strange": strange})
    assert [(d.keyspace, d.serious) for d in told] == [("ranged", False), ("strange", False)]
    assert told[0].what == "the store has a hash map, the file a range map (store: epoch 1)"
    assert "no such keyspace" in told[1].what
    assert isinstance(with_stored(file, {"ranged": ring}).keyspaces["ranged"].map, BucketMap)


def test_positions_of_all_maps() -> None:
    file = snapshot()
    documents = first(file)
    changed = {
        "ranged": documents["ranged"].model_copy(update={"positions": {"a": "0-1-7"}}),
        "hashed": documents["hashed"].model_copy(update={"positions": {"a": "0-1-9", "b": "0-2-1"}}),
    }
    served = with_stored(file, changed)
    assert served.positions == {"a": frozenset({"0-1-7", "0-1-9"}), "b": frozenset({"0-2-1"})}


def test_lookup_indexes_are_not_ready_under_a_map_that_wants_their_entries_elsewhere() -> None:
    file = snapshot()
    ranged = file.keyspaces["ranged"]
    index = LookupIndex(("mail",), ready=True)
    name, table = next((n, t) for n, t in ranged.tables.items() if t.key is not None)
    tables = {**ranged.tables, name: replace(table, lookups=(index,))}
    ready = replace(file, keyspaces={**file.keyspaces, "ranged": replace(ranged, tables=tables)})
    documents = first(file)
    assert with_stored(ready, documents).keyspaces["ranged"].tables[name].lookups[0].ready
    [only, *_] = documents["ranged"].map.shards
    whole = RangeForm.of([NamedRange(INT_MIN, INT_MAX + 1, only)])
    moved = documents["ranged"].model_copy(update={"map": whole, "epoch": 2})
    assert not with_stored(ready, {"ranged": moved}).keyspaces["ranged"].tables[name].lookups[0].ready
