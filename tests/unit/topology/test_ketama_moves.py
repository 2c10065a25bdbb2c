"""Keys move from one continuum to another: whatever is done, each is where twemproxy has it in the end."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.config.redis_models import RedisSettings
from shardproxy.errors import DocumentError, MoveError
from shardproxy.topology import redis_map as m
from shardproxy.topology.ketama import CIRCLE, Continuum, Server, cuts_of, lengths_of, owners_of
from shardproxy.topology.map_form import ArcForm
from shardproxy.topology.redis_map import Phase, RedisMap, first_ketama, routing, spread
from shardproxy.topology.redis_ring import KetamaRing, MovingRing, fnv1a, ring_by
from tests.ketama import ketama_ring

ORDER = {"d": 0, "b": 1, "a": 2, "c": 3}
NAMES = {place: name for name, place in ORDER.items()}
KEYS = [b"", b"{}", b"{}x", b"{a}b", *(b"%d:key" % n for n in range(300)), *(b"{%d}:key" % n for n in range(100))]

servers = st.tuples(st.sampled_from("abcd"), st.sampled_from(["", ":1", ":2"]), st.integers(1, 9)).map(
    lambda each: Server(each[0], each[0] + each[1], each[2])
)
continua = st.lists(servers, min_size=1, max_size=4, unique_by=lambda each: each.node).map(
    lambda some: Continuum(servers=tuple(some))
)


def node_by(continuum: Continuum, key: bytes, tag: str) -> str:
    """Where twemproxy has a key."""
    ring = ketama_ring({server.name: server.weight for server in continuum.servers}, tag.encode())
    return continuum.servers[ring.node_of(key)].node


def nodes_of(document: RedisMap, keys: list[bytes] = KEYS) -> list[str]:
    """Where a proxy by this map has the keys, if nothing waits."""
    ring = ring_by(routing(document, ORDER))
    return [NAMES[ring.node_of(key)] for key in keys]


def advanced(document: RedisMap, most: int) -> RedisMap:
    move = document.move
    if move is None:
        return m.next_move(document, most)
    return {Phase.PREPARED: m.close, Phase.CLOSING: m.open_target, Phase.MOVING: m.complete}[move.phase](document)


@settings(max_examples=40, deadline=None)
@given(continua, continua, st.sampled_from(["", "{}"]), st.integers(20, 800), st.lists(st.sampled_from("nnnncgb")))
def test_each_key_ends_where_twemproxy_has_it(
    old: Continuum, new: Continuum, tag: str, most: int, steps: list[str]
) -> None:
    """n: the next step; c: turn back; g: give up; b: stored and read again. Keys change their node only by moves, and
    only from where they were before to where they shall be."""
    document = first_ketama(old.servers, tag)
    before, after = ([node_by(each, key, tag) for key in KEYS] for each in (old, new))
    assert nodes_of(document) == before
    document = m.want(document, new)
    goal = after
    for step in [*steps, *"n" * 500]:
        move = document.move
        if step == "n":
            changed = advanced(document, most)
            if move is None or move.phase is not Phase.MOVING:
                assert nodes_of(changed) == nodes_of(document)
            document = changed
        elif step == "c" and document.wanted is not None:
            document, goal = m.turn_back(document), before
        elif step == "g" and move is not None and move.phase is not Phase.MOVING and not move.back:
            document = m.give_up(document)
        elif step == "b":
            document = RedisMap.read(m.REDIS_MAP, document.document())
        assert all(now in (a, b) for now, a, b in zip(nodes_of(document), before, after, strict=True))
        if document.wanted is None and document.move is None:
            break
    assert document.move is None and nodes_of(document) == goal
    assert document.ketama is not None and len(document.ketama.continua) == 1
    [left] = document.ketama.continua
    assert document == first_ketama(left.servers, tag).model_copy(
        update={"epoch": document.epoch, "last": document.last}
    )
    if goal is after and before != after:
        assert left == new


@settings(deadline=None)
@given(continua, continua)
def test_only_keys_whose_node_differs_move_and_so_many_as_is_said(old: Continuum, new: Continuum) -> None:
    now, then, shares = spread(first_ketama(old.servers), new)
    cuts = cuts_of([old, new])
    moving = {n for n, (a, b) in enumerate(zip(now, then, strict=True)) if a != b}
    ring = KetamaRing(cuts, range(len(cuts) + 1))
    for key in KEYS:
        assert ring.unit_of(key) == ring.node_of(key)  # each arc has its number as its place here
        assert (ring.unit_of(key) in moving) == (node_by(old, key, "") != node_by(new, key, ""))
    assert sum(shares) == pytest.approx(1)


def test_weights_that_place_all_keys_alike_are_noted() -> None:
    old, new = (Continuum(servers=(Server("a", "a", weight), Server("b", "b", weight))) for weight in (1, 2))
    document = m.next_move(m.want(first_ketama(old.servers), new), 100)
    assert document.wanted is None and document.ketama is not None and document.ketama.continua == (new,)


def test_a_node_that_comes_gets_its_share_and_only_it_gets_keys() -> None:
    old = Continuum(servers=tuple([Server(node, node, 1) for node in "abc"]))
    new = Continuum(servers=(*old.servers, Server("d", "d", 1)))
    now, then, shares = spread(first_ketama(old.servers), new)
    got: defaultdict[str, float] = defaultdict(float)
    for source, target, share in zip(now, then, shares, strict=True):
        got[target] += share if source != target else 0
    assert {target for target, share in got.items() if share} == {"d"} and got["d"] == pytest.approx(0.25, abs=0.05)


def test_a_hash_beyond_the_last_cut_is_in_the_first_arc() -> None:
    ring = KetamaRing([5, 6], [1, 2, 3])
    assert fnv1a(b"x") > 6 and (ring.unit_of(b"x"), ring.node_of(b"x"), ring.unit_of(b"")) == (0, 1, 2)


def test_arcs_have_all_hashes() -> None:
    assert lengths_of([5]) == [CIRCLE, 0]
    assert lengths_of([5, 100, CIRCLE - 1]) == [6, 95, CIRCLE - 101, 0]


def test_cuts_are_ascending_and_differ() -> None:
    continuum = Continuum(servers=(Server("b", "x", 1), Server("a", "y", 1)))
    cuts = cuts_of([continuum])
    assert len(set(cuts)) == len(cuts) and list(cuts) == sorted(cuts)


def test_the_empty_key_is_in_the_first_arc_as_if_its_hash_were_0() -> None:
    weights = {"x": 1, "y": 1, "z": 1}
    continuum = Continuum(servers=tuple([Server(name, name, weight) for name, weight in weights.items()]))
    owners = owners_of(continuum, cuts_of([continuum]))
    assert owners[-1] == owners[0] != "x", "and not the first server's"
    ring = ketama_ring(weights)
    away = ring.without(frozenset([ring.node_of(b"")]), weights)
    assert away.node_of(b"") == next(place for place in ring.owners if place != ring.node_of(b""))


@pytest.mark.parametrize("cancelled", [False, True])
def test_where_an_earlier_version_had_the_empty_key_it_is_found_and_moved(cancelled: bool) -> None:
    """The first server had it."""
    old, new = (Continuum(servers=tuple([Server(name, name, 1) for name in names])) for names in ("abc", "abcd"))
    document = first_ketama(old.servers)
    assert document.map.owners[-1] != "a"
    document = document.model_copy(update={"map": ArcForm.of([*document.map.owners[:-1], "a"])})
    assert nodes_of(document, [b""]) == ["a"]
    document = m.want(document, new)
    if cancelled:
        document = m.turn_back(document)
    while document.wanted is not None or document.move is not None:
        document = advanced(document, 1000)
    assert nodes_of(document) == [
        "a" if cancelled and not key else node_by(old if cancelled else new, key, "") for key in KEYS
    ]


@given(continua, st.lists(st.sampled_from(KEYS)), st.data())
@settings(deadline=None)
def test_keys_of_arcs_that_move_are_nowhere_until_they_come(
    continuum: Continuum, some: list[bytes], data: st.DataObject
) -> None:
    document = first_ketama(continuum.servers, "{}")
    plain = ring_by(routing(document, ORDER))
    waiting = {plain.unit_of(key) for key in some}
    ring = MovingRing(plain, waiting, 7, 9)
    assert ring.tag_of(b"{a}b") == b"a" and ring.example == b"{tag}"
    for key in KEYS:
        assert ring.unit_of(key) == plain.unit_of(key)
        moves = plain.unit_of(key) in waiting
        assert ring.waits(key) == ring.any_moves([key]) == moves
        assert ring.node_of(key) == (9 if moves else plain.node_of(key))
    if some:
        key = data.draw(st.sampled_from(some))
        ring.here.add(key)
        assert ring.node_of(key) == 7 == ring.home_of(key) and not ring.waits(key) and ring.any_moves([key])


@pytest.mark.parametrize(
    "some",
    [
        [],
        [("a", "a", 1), ("a", "b", 1)],
        [("a", "x", 1), ("b", "x", 1)],
        [("a", "", 1)],
        [("", "a", 1)],
        [("a", "a", 0), ("b", "b", 1)],
    ],
)
def test_servers_that_no_twemproxy_has(some: list[tuple[str, str, int]]) -> None:
    with pytest.raises(ValueError, match="Continuum"):
        first_ketama([Server(*each) for each in some])


def test_a_map_with_the_arcs_of_others_is_not_read() -> None:
    ketama = first_ketama([Server("a", "a", 1), Server("b", "b", 1)])
    ring = m.first_map({"a": 1, "b": 1})
    for document in (
        {**ketama.document(), "ketama": first_ketama([Server("a", "a", 1)]).document()["ketama"]},
        {**ketama.document(), "map": ring.document()["map"]},
        {**ring.document(), "map": ketama.document()["map"]},
        {**ring.document(), "wanted": ketama.document()["map"]},
        {**ketama.document(), "map": {"kind": "ketama", "shards": ["a"], "buckets": "000"}},
        {**ketama.document(), "map": {"kind": "ketama", "shards": ["a"], "buckets": "00"}},
        {**ketama.document(), "map": {"kind": "ketama", "shards": ["a"], "buckets": ""}},
    ):
        with pytest.raises(DocumentError):
            RedisMap.read(m.REDIS_MAP, document)
    assert "ketama" not in ring.document(), "earlier versions do not know it"


def test_goals_are_of_the_maps_placement() -> None:
    ketama, ring = first_ketama([Server("a", "a", 1)]), m.first_map({"a": 1})
    assert ketama.ketama is not None
    for document, goal in ((ketama, ["a"] * 4096), (ring, ketama.ketama.continua[0])):
        with pytest.raises(MoveError, match="has another one"):
            m.want(document, goal)
    with pytest.raises(MoveError, match="let it end"):
        m.want(m.want(ketama, ketama.ketama.continua[0]), ketama.ketama.continua[0])


def _file(placement: str, tag: str = "") -> RedisSettings:
    nodes = {name: {"address": "10.0.0.1:6379", "ketama_name": f"{name}:1"} for name in "ba"}
    return RedisSettings.model_validate({"placement": placement, "hash_tag": tag, "nodes": nodes})


def test_a_file_with_another_placement_does_not_go_with_the_map() -> None:
    ring, ketama, tagged = _file("ring"), _file("ketama"), _file("ketama", "{}")
    for file in (ring, ketama, tagged):
        for other in (ring, ketama, tagged):
            told = m.other_placement(m.first_of(file), other)
            assert bool(told) == (file is not other)
            assert not told or f'the file says "{other.placement}"' in told
    first = m.first_of(tagged)
    assert first.ketama is not None and first.placement == "ketama"
    assert [continuum.servers for continuum in first.ketama.continua] == [(("b", "b:1", 1), ("a", "a:1", 1))]
