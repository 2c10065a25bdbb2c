"""Maps with moves: who owns, who hides, who waits, in every stage; and what may begin beside what."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import MoveError
from shardproxy.topology import moves
from shardproxy.topology.keys import KeyType
from shardproxy.topology.map_document import (
    MapDocument,
    Move,
    Stream,
    TableMove,
    advance,
    begin,
    positions_wanted,
    waits_for_barrier,
    without_move,
)
from shardproxy.topology.map_form import HashForm, Interval, KeySet, NamedRange, RangeForm, TableForm
from shardproxy.topology.maps import INT_MAX, INT_MIN
from shardproxy.topology.moving import MovingKeys
from shardproxy.topology.stages import FINAL, POSITIONS, TRANSITIONS, Side, Stage, Step
from shardproxy.topology.streams import streams_between, streams_from_one, streams_of_all
from tests.unit.topology import worlds

RANGES = RangeForm.of([NamedRange(0, 100, "a"), NamedRange(100, 200, "b"), NamedRange(300, 400, "a")])
START = MapDocument(keyspace="main", key_type="int", epoch=1, map=RANGES)


def keys(*ranges: tuple[int, int]) -> KeySet:
    return KeySet(ranges=tuple(Interval(*r) for r in ranges))


def stream(source: str, target: str, *ranges: tuple[int, int]) -> Stream:
    return Stream(source=source, target=target, keys=keys(*ranges))


def move(*streams: Stream) -> Move:
    return Move(id=7, stage=Stage.PREPARED, streams=streams)


ORDER = {"a": 0, "b": 1, "c": 2}
SPLIT = move(stream("a", "c", (50, 100)), stream("b", "c", (100, 120)))


def step(document: MapDocument, *steps: Step) -> MapDocument:
    """After these steps, with positions where they are wanted."""
    for one in steps:
        at = under_way(document)
        wanted = positions_wanted(at, TRANSITIONS[at.stage, one])
        document = advance(document, one, {shard: f"{shard}@{document.epoch}" for shard in wanted})
    return document


def under_way(document: MapDocument) -> Move:
    assert document.move is not None
    return document.move


def seen(document: MapDocument) -> moves.Move:
    return under_way(document).seen(KeyType.INT, ORDER)


@pytest.mark.parametrize(("home", "now"), [("a", "a"), ("b", "a"), ("c", "b")])
def test_the_next_home_gets_keys_of_the_present_one(home: str, now: str) -> None:
    wanted = move(stream("a", "c", (50, 100))).model_copy(update={"home": home})
    with pytest.raises(MoveError, match="instead of"):
        begin(START, wanted, now)


def test_keys_without_a_shard_get_one_at_the_switch_and_keep_it() -> None:
    gap = (NamedRange(200, 250, "c"), NamedRange(280, 300, "a"))
    document = begin(START, SPLIT.model_copy(update={"opened": gap}))
    assert document.map == RANGES
    document = step(document, *[NEXT] * 4)
    assert document.map == RangeForm.of([*moved(RANGES), *gap])
    assert step(document, NEXT, *[NEXT] * 2).map == document.map
    back = step(document, NEXT, Step.REVERSE)
    while back.move is not None:
        back = step(back, NEXT)
    assert back.map == RangeForm.of([*RANGES.ranges, *gap]), "they have no other"
    with pytest.raises(MoveError, match="have one by now"):
        begin(START, SPLIT.model_copy(update={"opened": (NamedRange(150, 250, "c"),)}))


def moved(shard_map: RangeForm) -> tuple[NamedRange, ...]:
    """As SPLIT leaves it."""
    for one in SPLIT.streams:
        shard_map = shard_map.reassigned(one.keys, one.source, one.target)
    return shard_map.ranges


def test_keys_without_a_shard_get_one_without_a_move() -> None:
    after = without_move(START, [NamedRange(250, 300, "b")], "a")
    assert (after.epoch, after.home, after.map) == (2, "a", RangeForm.of([*RANGES.ranges, NamedRange(250, 300, "b")]))
    with pytest.raises(MoveError, match="have one by now"):
        without_move(after, [NamedRange(200, 251, "b")])
    with pytest.raises(MoveError, match="under way"):
        without_move(begin(START, SPLIT), [NamedRange(250, 300, "b")])


def test_a_shard_that_gives_all_its_keys_away_stays() -> None:
    evacuated = move(stream("b", "a", (100, 200))).model_copy(update={"keyless": ("b",)})
    document = begin(START, evacuated)
    switched = step(document, *[NEXT] * 4)
    assert (set(switched.map.shards), set(switched.shards)) == ({"a"}, {"a", "b"})
    done = step(switched, *[NEXT] * 3)
    assert done.move is None and done.shards == {"a", "b"}
    back = step(switched, NEXT, Step.REVERSE)
    while back.move is not None:
        back = step(back, NEXT)
    assert (back.keyless, back.map) == ((), RANGES)
    assert without_move(done, (), keyless=()).shards == {"a"}
    assert without_move(done, [NamedRange(200, 250, "b")]).shards == {"a", "b"}


def hidden(document: MapDocument) -> dict[int, list[tuple[tuple[int, int], ...] | None]]:
    """Place of a shard → intervals that it hides."""
    if document.move is None:
        return {}
    return {shard: [found.intervals for found in sets] for shard, sets in seen(document).hidden.items()}


NEXT = Step.NEXT


def forward(count: int) -> MapDocument:
    """SPLIT, so many steps after PREPARED."""
    return step(begin(START, SPLIT), *[NEXT] * count)


def test_every_change_is_a_new_epoch() -> None:
    document = START
    epochs = [document.epoch]
    document = begin(document, SPLIT)
    for _ in range(7):
        epochs.append(document.epoch)
        document = step(document, NEXT)
    assert [*epochs, document.epoch] == list(range(1, 10))
    assert document.move is None


def test_the_map_changes_at_the_switch_and_only_there() -> None:
    after = RangeForm.of(
        [NamedRange(0, 50, "a"), NamedRange(50, 120, "c"), NamedRange(120, 200, "b"), NamedRange(300, 400, "a")]
    )
    assert [forward(n).map == RANGES for n in range(4)] == [True] * 4
    assert [forward(n).map == after for n in range(4, 8)] == [True] * 4
    reverse = step(forward(5), Step.REVERSE)
    for n in range(6):
        document = step(reverse, *[NEXT] * n)
        assert document.map == (after if n < 2 else RANGES)


def test_rows_are_hidden_where_they_do_not_belong() -> None:
    on_target = {2: [((50, 100),), ((100, 120),)]}
    on_sources = {0: [((50, 100),)], 1: [((100, 120),)]}
    assert [hidden(forward(n)) for n in range(8)] == [*[on_target] * 4, *[on_sources] * 3, {}]
    back = step(forward(5), Step.REVERSE)
    assert [hidden(step(back, *[NEXT] * n)) for n in range(6)] == [*[on_sources] * 2, *[on_target] * 3, {}]
    cancelling = step(forward(3), Step.CANCEL)
    assert hidden(cancelling) == on_target
    assert hidden(step(cancelling, NEXT)) == {}


def test_proxies_see_fences_and_the_sides_that_they_are_on() -> None:
    armed = forward(2)
    assert (seen(armed).fenced, seen(armed).epoch, seen(armed).ident) == (True, armed.epoch, 7)
    assert [seen(armed).source_of(key) for key in (49, 50, 100, 120)] == [None, 0, 1, None]
    for n in (3, 4):
        assert (seen(forward(n)).held, seen(forward(n)).epoch) == (True, armed.epoch)
    for n in (0, 1, 5, 6):
        assert (seen(forward(n)).held, seen(forward(n)).fenced, seen(forward(n)).epoch) == (False, False, 0)
    back = step(forward(5), Step.REVERSE)
    assert (seen(back).fenced, seen(back).epoch) == (True, back.epoch)
    assert seen(back).source_of(60) == 2
    assert seen(back).sources == {2}
    assert seen(step(back, NEXT, NEXT)).held


def test_an_epoch_is_the_fence_of_one_arming_only() -> None:
    """And the raised fence, one more, is never armed: step 6 of the protocol raises it while the map is CLOSING."""
    document, fences = forward(2), []
    for _ in range(3):
        fences.append(under_way(document).fence)
        document = step(document, NEXT, Step.TIME_OUT)
        assert under_way(document).fence is None
        document = step(document, NEXT)
    assert len(set(fences)) == 3
    known = [fence for fence in fences if fence is not None]
    assert all(b > a + 1 for a, b in pairwise(known))


def test_positions_are_wanted_when_a_side_becomes_right() -> None:
    closing = forward(3)
    for wrong in (None, {}, {"a": "1"}, {"c": ""}, {"c": "1", "a": "1"}):
        with pytest.raises(MoveError, match="switched takes positions of \\['c'\\]"):
            advance(closing, NEXT, wrong)
    with pytest.raises(MoveError, match="closing takes positions of no shard"):
        advance(forward(2), NEXT, {"c": "1"})
    switched = advance(closing, NEXT, {"c": "0-1-7"})
    assert switched.positions == {"c": "0-1-7"}
    done = advance(step(switched, NEXT, NEXT), NEXT, {"a": "0-2-5", "b": "0-3-1"})
    assert done.positions == {"a": "0-2-5", "b": "0-3-1", "c": "0-1-7"}
    cancelled = advance(step(forward(3), Step.CANCEL), NEXT, {"c": "0-1-9"})
    assert cancelled.positions == {"c": "0-1-9"}


def test_a_cancelled_or_reversed_move_leaves_the_map_as_it_was() -> None:
    for n in range(4):
        cancelled = step(forward(n), Step.CANCEL, NEXT)
        assert (cancelled.map, cancelled.move) == (RANGES, None)
    reversed_ = step(forward(5), Step.REVERSE, *[NEXT] * 5)
    assert (reversed_.map, reversed_.move) == (RANGES, None)


def test_barriers_are_asked_for_by_the_phase_that_is_left() -> None:
    assert [waits_for_barrier(under_way(forward(n)), NEXT) for n in range(7)] == [
        *[True, False, True, False, True, False, False]
    ]
    assert not waits_for_barrier(under_way(forward(2)), Step.CANCEL)


def test_an_illegal_step_or_an_unknown_move_is_refused() -> None:
    with pytest.raises(MoveError, match="cannot take the step 'reverse'"):
        advance(forward(2), Step.REVERSE)
    with pytest.raises(MoveError, match="no move under way"):
        advance(START, NEXT)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (move(stream("b", "c", (50, 100))), "not all on shard b"),
        (move(stream("a", "c", (50, 101))), "not all on shard a"),
        (move(stream("a", "c", (250, 260))), "not all on shard a"),
        (move(Stream(source="a", target="c", keys=KeySet(buckets=(Interval(0, 1),)))), "only ranges"),
        (SPLIT.model_copy(update={"stage": Stage.COPYING}), "a new move is prepared"),
    ],
)
def test_a_move_that_does_not_fit_the_map_is_not_begun(wrong: Move, told: str) -> None:
    with pytest.raises(MoveError, match=told):
        begin(START, wrong)


def test_a_keyspace_has_one_move_at_a_time() -> None:
    with pytest.raises(MoveError, match="move 7 of keyspace main is copying: a keyspace has one move at a time"):
        begin(forward(1), move(stream("a", "b", (0, 10))))
    assert begin(forward(7), move(stream("c", "b", (50, 60)))).move is not None


def test_shards_may_exchange_keys() -> None:
    document = begin(START, move(stream("a", "b", (0, 100)), stream("b", "a", (100, 200))))
    assert step(document, *[NEXT] * 4).map == RangeForm.of(
        [NamedRange(0, 100, "b"), NamedRange(100, 200, "a"), NamedRange(300, 400, "a")]
    )


def test_buckets_move_as_ranges_do() -> None:
    start = MapDocument(keyspace="main", key_type="text", epoch=1, map=HashForm.of(["a", "b"] * 2048))
    moving = KeySet(buckets=(Interval(0, 1), Interval(2, 3)))
    document = begin(start, move(Stream(source="a", target="c", keys=moving)))
    switched = step(document, *[NEXT] * 4).map
    assert isinstance(switched, HashForm)
    assert switched.owners == ["c", "b", "c", "b", *["a", "b"] * 2046]
    with pytest.raises(MoveError, match="not all on shard a"):
        begin(start, move(Stream(source="a", target="c", keys=KeySet(buckets=(Interval(0, 2),)))))


@given(worlds.key_sets, worlds.key_sets)
def test_sets_of_keys_overlap_when_a_key_is_in_both(a: KeySet, b: KeySet) -> None:
    if (a.ranges is None, a.buckets is None) != (b.ranges is None, b.buckets is None):
        assert a.overlaps(b)
        return
    some, others = a.ranges or a.buckets or (), b.ranges or b.buckets or ()
    # Where two unions of intervals meet, they meet at the start of one of the intervals.
    starts = {i.start for i in (*some, *others)}
    both = [n for n in starts if any(s <= n < e for s, e in some) and any(s <= n < e for s, e in others)]
    assert a.overlaps(b) == b.overlaps(a) == bool(both)


@given(worlds.key_sets, st.data())
def test_sets_of_keys_are_those_that_proxies_decide_by(keyset: KeySet, data: st.DataObject) -> None:
    found = keyset.moving(KeyType.INT)
    assert KeySet.of(found).moving(KeyType.INT) == found
    if keyset.ranges is not None:
        edges = [edge for i in keyset.ranges for edge in (i.start - 1, i.start, i.end - 1, i.end)]
        key = data.draw(st.sampled_from(edges))
        assert (key in found) == any(start <= key < end for start, end in keyset.ranges)


def test_sets_of_ranges_and_buckets_overlap_where_both_do() -> None:
    def both(ranges: tuple[int, int], buckets: tuple[int, int]) -> KeySet:
        return KeySet(ranges=(Interval(*ranges),), buckets=(Interval(*buckets),))

    one = both((0, 10), (0, 100))
    assert one.overlaps(both((9, 20), (99, 200)))
    assert not one.overlaps(both((10, 20), (99, 200))) and not one.overlaps(both((9, 20), (100, 200)))
    assert one.overlaps(keys((9, 20))) and not one.overlaps(keys((10, 20)))
    assert KeySet.of(one.moving(KeyType.INT)) == one


def test_a_map_of_the_other_kind_comes_at_the_switch_and_goes_back() -> None:
    after = HashForm.of(["a", "b", "c", "b"] * 1024)
    ranges = RangeForm(ranges=(NamedRange(INT_MIN, 100, "a"), NamedRange(100, INT_MAX + 1, "b")))
    start = START.model_copy(update={"map": ranges})
    planned = streams_between(ranges.to_map(ORDER), after.to_map(ORDER), KeyType.INT)
    streams = tuple(Stream.of(one, list(ORDER)) for one in planned)
    whole = Move(id=7, stage=Stage.PREPARED, streams=streams, other=after)
    started = begin(start, whole)
    assert started.map == ranges and started.shards == {"a", "b", "c"}
    opened = step(started, *[NEXT] * 5)
    assert opened.map == after and under_way(opened).other == ranges
    assert MapDocument.read("k", opened.document()) == opened
    assert step(opened, NEXT, NEXT).map == after
    back = step(opened, Step.REVERSE, *[NEXT] * 5)
    assert back.map == ranges and back.move is None
    with pytest.raises(MoveError, match="not those between the two maps"):
        begin(start, whole.model_copy(update={"streams": streams[1:]}))
    with pytest.raises(MoveError, match="in one of the two maps only"):
        begin(START, whole)
    with pytest.raises(ValueError, match="one kind"):
        MapDocument(keyspace="main", key_type="int", epoch=1, map=after, move=whole)
    with pytest.raises(MoveError, match="only ranges of keys"):
        begin(start, Move(id=7, stage=Stage.PREPARED, streams=streams))


def test_a_single_table_becomes_a_sharded_one_at_the_switch_and_goes_back() -> None:
    ranges = RangeForm(ranges=(NamedRange(INT_MIN, 100, "a"), NamedRange(100, INT_MAX + 1, "b")))
    start = START.model_copy(update={"map": ranges})
    planned = streams_from_one(0, ranges.to_map(ORDER), KeyType.INT)
    streams = tuple(Stream.of(one, list(ORDER)) for one in planned)
    lone = Move(id=7, stage=Stage.PREPARED, streams=streams, table=TableMove(name="t", key="k"))
    started = begin(start, lone)
    single, sharded = TableForm(single="a"), TableForm(key="k")
    assert started.tables == {"t": single} and started.map == ranges
    opened = step(started, *[NEXT] * 5)
    assert opened.tables == {"t": sharded} and opened.map == ranges
    assert MapDocument.read("k", opened.document()) == opened
    assert seen(opened).table == moves.LoneTable("t", 0)
    done = step(opened, NEXT, NEXT)
    assert done.tables == {"t": sharded}
    assert step(opened, Step.REVERSE, *[NEXT] * 5).tables == {"t": single}
    assert step(started, Step.CANCEL, NEXT).tables == {"t": single}
    with pytest.raises(MoveError, match="is elsewhere by now: key k"):
        begin(done, lone)
    with pytest.raises(MoveError, match="not those that the map wants"):
        begin(START, lone)
    with pytest.raises(ValueError, match="come from one shard"):
        Move(
            id=7, stage=Stage.PREPARED, streams=(stream("a", "c", (50, 60)), stream("b", "c", (100, 120))),
            table=TableMove(name="t", key="k"),
        )  # fmt: skip
    with pytest.raises(ValueError, match="a key, or is on a single shard"):
        TableForm(key="k", single="a")


def test_a_table_gets_another_key_at_the_switch_and_its_own_back() -> None:
    ranges = RangeForm(ranges=(NamedRange(INT_MIN, 100, "a"), NamedRange(100, INT_MAX + 1, "b")))
    start = START.model_copy(update={"map": ranges})
    streams = tuple(Stream.of(one, list(ORDER)) for one in streams_of_all(ranges.to_map(ORDER), KeyType.INT))
    move = Move(id=7, stage=Stage.PREPARED, streams=streams, table=TableMove(name="t", key="new", before="old"))
    started = begin(start, move)
    assert started.tables == {"t": TableForm(key="old")} and started.map == ranges
    assert [(s.source, s.target, 5 in s.keys, 500 in s.keys) for s in seen(started).streams] == [
        (0, 1, True, False), (1, 0, False, True),
    ]  # fmt: skip
    opened = step(started, *[NEXT] * 5)
    assert opened.tables == {"t": TableForm(key="new")} and opened.map == ranges
    assert MapDocument.read("k", opened.document()) == opened
    back = step(opened, Step.REVERSE)
    assert [(s.source, s.target, 5 in s.keys, 500 in s.keys) for s in seen(back).streams] == [
        (1, 0, False, True), (0, 1, True, False),
    ]  # fmt: skip
    assert step(back, *[NEXT] * 5).tables == {"t": TableForm(key="old")}
    with pytest.raises(MoveError, match="elsewhere by now: key new"):
        begin(step(opened, NEXT, NEXT), move)
    with pytest.raises(MoveError, match="not those that the map wants"):
        begin(start, move.model_copy(update={"streams": streams[:1]}))


def test_planned_streams_become_documents() -> None:
    planned = moves.Stream(2, 0, MovingKeys(KeyType.TEXT, buckets=[3, 1, 2, 9]))
    stored = Stream.of(planned, ["x", "y", "z"])
    assert stored == Stream(source="z", target="x", keys=KeySet(buckets=(Interval(1, 4), Interval(9, 10))))
    [back] = move(stored).seen(KeyType.TEXT, {"x": 0, "z": 2}).streams
    assert back == planned


@given(worlds.range_forms(), st.data())
def test_a_range_that_moves_there_and_back_changes_nothing(form: RangeForm, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(form.ranges))
    start = data.draw(st.integers(whole.start, whole.end - 1))
    end = data.draw(st.integers(start + 1, whole.end))
    target = data.draw(st.sampled_from([name for name in worlds.SHARDS if name != whole.shard]))
    moving = KeySet(ranges=(Interval(start, end),))
    there = form.reassigned(moving, whole.shard, target)
    places = {name: i for i, name in enumerate(worlds.SHARDS)}
    for key in probes(form, start, end):
        for one in (form, there):
            moved = one is there and start <= key < end
            found = owner(one, key, places)
            assert found == (places[target] if moved else owner(form, key, places))
    assert there.reassigned(moving, target, whole.shard) == form


def probes(form: RangeForm, *more: int) -> Iterator[int]:
    for edge in {e for r in form.ranges for e in (r.start, r.end)} | set(more):
        yield from (edge - 1, edge)


def owner(form: RangeForm, key: int, places: dict[str, int]) -> int | None:
    found = [places[r.shard] for r in form.ranges if r.start <= key < r.end]
    return found[0] if found else None


@given(st.lists(st.sampled_from(list(Step)), max_size=30))
def test_on_every_walk_a_key_is_owned_once_and_hidden_on_the_other_side(steps: list[Step]) -> None:
    document = begin(START, SPLIT)
    for one in steps:
        if document.move is None:
            break
        at = document.move
        if (at.stage, one) not in TRANSITIONS:
            with pytest.raises(MoveError):
                advance(document, one)
            continue
        before, document = document, step(document, one)
        assert document.epoch == before.epoch + 1
        assert MapDocument.read("k", document.document()) == document
        assert isinstance(document.map, RangeForm)
        owned = {owner(document.map, key, ORDER) for key in (50, 99)}
        assert owned in ({0}, {2})
        after = TRANSITIONS[at.stage, one]
        if after in FINAL:
            assert document.move is None
        else:
            assert hidden(document).keys() == ({2} if owned == {0} else {0, 1})
        if after in POSITIONS:
            assert SPLIT.shards(POSITIONS[after]) <= document.positions.keys()


def test_sides_name_their_shards() -> None:
    assert SPLIT.shards(Side.SOURCE) == {"a", "b"}
    assert SPLIT.shards(Side.TARGET) == {"c"}
    assert begin(START, SPLIT).shards == {"a", "b", "c"}
    assert START.shards == {"a", "b"}
