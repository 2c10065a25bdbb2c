"""Where the torture of moves looks for rows."""

from __future__ import annotations

import tomllib

import pytest

from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.map_form import HashForm, MapForm, NamedRange, RangeForm, TableForm
from shardproxy.topology.maps import INT_MAX, INT_MIN
from shardproxy.topology.ring import place_buckets
from tests.torture.layout import SINGLE, Layout, name, owner, places
from tests.torture.traffic import KEY_COLUMNS, KEYS, SHARDS


def document(layout: Layout, **tables: TableForm) -> MapDocument:
    """The map that the keyspace has by its file."""
    file = tomllib.loads(layout.keyspaces())["keyspaces"]["main"]
    form: MapForm
    if "ring" in file:
        names = sorted(file["ring"])
        owners = place_buckets(file["ring"], {shard: i for i, shard in enumerate(names)})
        form = HashForm.of([names[i] for i in owners])
    else:
        ends = {"min": INT_MIN, "max": INT_MAX + 1}
        form = RangeForm.of(
            NamedRange(ends.get(r["from"], r["from"]), ends.get(r["to"], r["to"]), r["shard"]) for r in file["ranges"]
        )
    return MapDocument(keyspace="main", key_type="int", epoch=1, map=form, tables=tables)


@pytest.mark.parametrize("layout", [Layout(), Layout(ring=(0, 2)), Layout(single="list")])
def test_rows_begin_where_the_map_says(layout: Layout) -> None:
    tables = {"list": TableForm(single=name(SINGLE))} if layout.single else {}
    place = places(document(layout, **tables))
    for table in KEY_COLUMNS:
        found = {key: place(table, (key, 0, 0)) for key in KEYS}
        assert found == {key: layout.shard_of(table, key) for key in KEYS}
        assert set(found.values()) == ({SINGLE} if table == layout.single else set(layout.ring or range(SHARDS)))


def test_a_table_with_another_key_is_looked_for_by_it() -> None:
    layout = document(Layout(), token=TableForm(key="no"))
    place = places(layout)
    assert place("token", (0, 2500, 7)) == owner(layout, 2500) == 2
    assert place("seat", (0, 2500, 7)) == 0
