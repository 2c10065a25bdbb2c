"""Documents of the map store: what is written is what is read, and what is not ours is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import DocumentError
from shardproxy.store.interface import decode, encode
from shardproxy.topology.barrier import Acknowledgement, Identity
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.map_form import HashForm, KeySet, NamedRange, RangeForm, form_of, joined
from shardproxy.topology.stored import Stored, move_key
from shardproxy.topology.workflow import Workflow
from tests.unit.topology import worlds


def stored(value: Stored) -> Any:
    """The document as a store gives it back."""
    return decode("k", encode(value.document()))


def exact(value: Stored) -> str:
    """Tells 1 from 1.0 and 0.0 from -0.0, which are equal."""
    return json.dumps(value.document(), sort_keys=True)


@given(worlds.map_documents())
def test_maps_survive_exactly(document: MapDocument) -> None:
    found = MapDocument.read("k", stored(document))
    assert found == document
    assert exact(found) == exact(document)


@given(worlds.workflows())
def test_workflows_survive_exactly(workflow: Workflow) -> None:
    found = Workflow.read("k", stored(workflow))
    assert found == workflow
    assert exact(found) == exact(workflow)


@given(worlds.identities, worlds.acknowledgements)
def test_identities_and_acknowledgements_survive_exactly(identity: Identity, acknowledgement: Acknowledgement) -> None:
    assert Identity.read("k", stored(identity)) == identity
    assert exact(Identity.read("k", stored(identity))) == exact(identity)
    assert Acknowledgement.read("k", stored(acknowledgement)) == acknowledgement


GOOD = MapDocument(
    keyspace="main",
    key_type="int",
    epoch=3,
    map=RangeForm.of([NamedRange(0, 10, "a"), NamedRange(10, 20, "b")]),
).document()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epoch": 0}, "epoch"),
        ({"epoch": "3"}, "epoch"),
        ({"epoch": 3.0}, "epoch"),
        ({"epoch": True}, "epoch"),
        ({"format": 2}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"keyspace": ""}, "keyspace"),
        ({"key_type": "text"}, "integer keys"),
        ({"map": {"kind": "list"}}, "map"),
        ({"map": {"kind": "range", "ranges": []}}, "map.range.ranges"),
        ({"map": {"kind": "range", "ranges": [[0, 10, "a"], [5, 20, "b"]]}}, "overlap"),
        ({"map": {"kind": "range", "ranges": [[0, 0, "a"]]}}, "empty"),
        ({"map": {"kind": "range", "ranges": [[10, 20, "a"], [0, 10, "b"]]}}, "sorted"),
        ({"map": {"kind": "hash", "shards": ["a"], "buckets": [0] * 4095}}, "map.hash.buckets"),
        ({"map": {"kind": "hash", "shards": ["a"], "buckets": [1] * 4096}}, "must have buckets"),
        ({"map": {"kind": "hash", "shards": ["b", "a"], "buckets": [0, 1] * 2048}}, "sorted"),
        ({"map": {"kind": "hash", "shards": ["a"], "buckets": "00" * 4095}}, "two or four hexadecimal digits"),
        ({"map": {"kind": "hash", "shards": ["a"], "buckets": "0x" * 4096}}, "map.hash.buckets"),
        ({"map": {"kind": "hash", "shards": ["a"], "buckets": "01" * 4096}}, "must have buckets"),
        ({"move": {"id": 1}}, "move.stage"),
    ],
)
def test_what_is_no_map_is_refused_with_its_place(change: dict[str, Any], told: str) -> None:
    with pytest.raises(DocumentError) as caught:
        MapDocument.read("map/main", {**GOOD, **change})
    message = str(caught.value)
    assert message.startswith("map store: map/main: found no MapDocument (")
    assert told in message


STREAM = {"source": "a", "target": "b", "keys": {"ranges": [[0, 5]]}}
OTHER = {"source": "a", "target": "b", "keys": {"ranges": [[4, 6]]}}


@pytest.mark.parametrize(
    ("move", "told"),
    [
        ({"id": 0}, "move.id"),
        ({"id": 2**64}, "move.id"),
        ({"stage": "done"}, "is not in the map"),
        ({"stage": "armed"}, "has a fence"),
        ({"fence": 2}, "has a fence"),
        ({"stage": "armed", "fence": 4}, "later epoch"),
        ({"streams": []}, "streams"),
        ({"streams": [STREAM, OTHER]}, "the same keys"),
        ({"streams": [{**STREAM, "target": "a"}]}, "same shard"),
        ({"streams": [{**STREAM, "keys": {}}]}, "names ranges, buckets, or both"),
        ({"streams": [{**STREAM, "keys": {"ranges": []}}]}, "names ranges, buckets, or both"),
        ({"streams": [{**STREAM, "keys": {"ranges": [[0, 1]], "buckets": []}}]}, "names ranges, buckets, or both"),
        ({"streams": [{**STREAM, "keys": {"ranges": [[0, 1]], "buckets": [[0, 1]]}}]}, "of a range map ranges move"),
        ({"streams": [{**STREAM, "keys": {"ranges": [[5, 5]]}}]}, "must not be empty"),
        ({"streams": [{**STREAM, "keys": {"buckets": [[0, 4097]]}}]}, "numbered from 0 to 4095"),
        ({"streams": [{**STREAM, "keys": {"buckets": [[0, 5]]}}]}, "of a range map ranges move"),
        ({"streams": [{**STREAM, "keys": {"buckets": "0-4"}}]}, "of a range map ranges move"),
        ({"streams": [{**STREAM, "keys": {"buckets": "0-4096"}}]}, "numbered from 0 to 4095"),
        ({"streams": [{**STREAM, "keys": {"buckets": "4-3"}}]}, "must not be empty"),
        ({"streams": [{**STREAM, "keys": {"buckets": "4,3"}}]}, "sorted"),
        ({"streams": [{**STREAM, "keys": {"buckets": ""}}]}, "buckets"),
        ({"streams": [{**STREAM, "keys": {"buckets": "1-2-3"}}]}, "buckets"),
    ],
)
def test_moves_that_cannot_be_are_refused(move: dict[str, Any], told: str) -> None:
    whole = {"id": 1, "stage": "copying", "streams": [STREAM], **move}
    with pytest.raises(DocumentError, match=told):
        MapDocument.read("map/main", {**GOOD, "move": whole})


@given(worlds.forms, st.permutations(worlds.SHARDS))
def test_a_map_of_names_and_one_of_places_say_the_same(form: RangeForm | HashForm, order: list[str]) -> None:
    places = {name: i for i, name in enumerate(order)}
    assert form_of(form.to_map(places), order) == form
    owned = {shard: form.intervals_of(shard) for shard in form.shards}
    shard_map = form.to_map(places)
    assert set(shard_map.all_shards) == {places[name] for name in owned}
    if isinstance(form, HashForm):
        for shard, intervals in owned.items():
            for start, end in intervals:
                assert form.owners[start:end] == [shard] * (end - start)
        assert sum(end - start for intervals in owned.values() for start, end in intervals) == 4096
    else:
        for shard, intervals in owned.items():
            for start, end in intervals:
                assert shard_map.lookup(start) == shard_map.lookup(end - 1) == places[shard]


def test_the_key_of_a_workflow_is_the_number_that_people_use() -> None:
    assert [move_key(ident) for ident in (1, 10, 2**64 - 1)] == ["move/1", "move/10", "move/18446744073709551615"]


@given(worlds.forms, st.sets(st.integers(0, 4095), min_size=1), st.booleans())
def test_buckets_are_one_text_and_were_numbers(form: RangeForm | HashForm, numbers: set[int], many: bool) -> None:
    if many:  # more shards than two digits tell apart
        form = HashForm.of([f"s{n % 300}" for n in range(4096)])
    keys = KeySet(buckets=joined(sorted(numbers)))
    for value in (form, keys):
        document = value.document()
        assert type(value).read("it", document) == value
        if not isinstance(value, RangeForm):
            assert isinstance(document["buckets"], str)
            assert type(value).read("it", {**document, "buckets": value.buckets}) == value
