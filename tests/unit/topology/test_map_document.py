"""Maps with moves: who owns, who hides, who waits, in every phase; and what may begin beside what."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import MoveError
from shardproxy.topology.keys import bucket_of
from shardproxy.topology.map_document import (
    Layout,
    MapDocument,
    Move,
    Stream,
    TableForm,
    WriteRule,
    advance,
    begin,
    names_in,
    positions_wanted,
    waits_for_barrier,
)
from shardproxy.topology.map_form import HashForm, Interval, KeySet, NamedRange, RangeForm
from shardproxy.topology.phases import FINAL, POSITIONS, TRANSITIONS, Phase, Side, Step, Writes
from tests.unit.topology import worlds

RANGES = RangeForm.of([NamedRange(0, 100, "a"), NamedRange(100, 200, "b"), NamedRange(300, 400, "a")])
START = MapDocument(keyspace="main", key_type="int", epoch=1, map=RANGES)


def keys(*ranges: tuple[int, int]) -> KeySet:
    return KeySet(ranges=tuple(Interval(*r) for r in ranges))


def stream(source: str, target: str, *ranges: tuple[int, int]) -> Stream:
    return Stream(source=source, target=target, keys=keys(*ranges))


def move(*streams: Stream, ident: str = "m1") -> Move:
    return Move(id=ident, phase=Phase.PREPARED, streams=streams)


SPLIT = move(stream("a", "c", (50, 100)), stream("b", "c", (100, 120)))


def step(document: MapDocument, *steps: Step, ident: str = "m1") -> MapDocument:
    """After these steps, with positions where they are wanted."""
    for one in steps:
        at = document.move(ident)
        wanted = positions_wanted(at, TRANSITIONS[at.phase, one])
        document = advance(document, ident, one, {shard: f"{shard}@{document.epoch}" for shard in wanted})
    return document


NEXT = Step.NEXT


def forward(count: int) -> MapDocument:
    """SPLIT, so many steps after PREPARED."""
    return step(begin(START, SPLIT), *[NEXT] * count)


def test_every_change_is_a_new_epoch() -> None:
    document = START
    epochs = [document.epoch]
    document = begin(document, SPLIT)
    for _ in range(9):
        epochs.append(document.epoch)
        document = step(document, NEXT)
    assert [*epochs, document.epoch] == list(range(1, 12))
    assert document.moves == ()


def test_the_map_changes_at_the_switch_and_only_there() -> None:
    after = RangeForm.of(
        [NamedRange(0, 50, "a"), NamedRange(50, 120, "c"), NamedRange(120, 200, "b"), NamedRange(300, 400, "a")]
    )
    assert [forward(n).map == RANGES for n in range(6)] == [True] * 6
    assert [forward(n).map == after for n in range(6, 10)] == [True] * 4
    reverse = step(forward(7), Step.REVERSE)
    for n in range(8):
        document = step(reverse, *[NEXT] * n)
        assert document.map == (after if n < 4 else RANGES)


def test_rows_are_hidden_where_they_do_not_belong() -> None:
    for n, phase in enumerate(["copying"] * 6 + ["open"] * 3):
        document = forward(n)
        if phase == "copying":
            assert document.hidden_on("c", "t") == (keys((50, 100)), keys((100, 120)))
            assert document.hidden_on("a", "t") == document.hidden_on("b", "t") == ()
        else:
            assert document.hidden_on("c", "t") == ()
            assert document.hidden_on("a", "t") == (keys((50, 100)),)
            assert document.hidden_on("b", "t") == (keys((100, 120)),)
    assert forward(9).hidden_on("a", "t") == ()
    cancelling = step(forward(5), Step.CANCEL)
    assert cancelling.hidden_on("c", "t") == (keys((50, 100)), keys((100, 120)))
    assert step(cancelling, NEXT).hidden_on("c", "t") == ()


def test_writes_to_moving_keys_are_fenced_then_held_and_no_others() -> None:
    armed = forward(2)
    assert armed.write_rule("t", 60) == WriteRule(Writes.FENCED, "m1", "a", armed.epoch)
    assert armed.write_rule("t", 110) == WriteRule(Writes.FENCED, "m1", "b", armed.epoch)
    assert [armed.write_rule("t", key) for key in (49, 120, 350)] == [None] * 3
    for n in range(3, 7):
        assert forward(n).write_rule("t", 60) == WriteRule(Writes.HELD, "m1", "a", armed.epoch)
        assert forward(n).write_rule("t", 49) is None
    for n in (0, 1, 7, 8, 9):
        assert forward(n).write_rule("t", 60) is None
    reverse = step(forward(7), Step.REVERSE)
    assert reverse.write_rule("t", 60) == WriteRule(Writes.FENCED, "m1", "c", reverse.epoch)
    assert step(reverse, *[NEXT] * 4).write_rule("t", 60) == WriteRule(Writes.HELD, "m1", "c", reverse.epoch)


def test_an_epoch_is_the_fence_of_one_arming_only() -> None:
    """And the raised fence, one more, is never armed: README step 6 raises it while the map is CLOSING."""
    document, fences = forward(2), []
    for _ in range(3):
        fences.append(document.move("m1").fence)
        document = step(document, NEXT, Step.TIME_OUT)
        assert document.move("m1").fence is None
        document = step(document, NEXT)
    assert len(set(fences)) == 3
    known = [fence for fence in fences if fence is not None]
    assert all(b > a + 1 for a, b in pairwise(known))


def test_positions_are_wanted_when_a_side_becomes_right() -> None:
    ready = forward(5)
    for wrong in (None, {}, {"a": "1"}, {"c": ""}, {"c": "1", "a": "1"}):
        with pytest.raises(MoveError, match="switched takes positions of \\['c'\\]"):
            advance(ready, "m1", NEXT, wrong)
    with pytest.raises(MoveError, match="drained takes positions of no shard"):
        advance(forward(3), "m1", NEXT, {"c": "1"})
    switched = advance(ready, "m1", NEXT, {"c": "0-1-7"})
    assert switched.positions == {"c": "0-1-7"}
    done = advance(step(switched, NEXT, NEXT), "m1", NEXT, {"a": "0-2-5", "b": "0-3-1"})
    assert done.positions == {"a": "0-2-5", "b": "0-3-1", "c": "0-1-7"}
    cancelled = advance(step(forward(3), Step.CANCEL), "m1", NEXT, {"c": "0-1-9"})
    assert cancelled.positions == {"c": "0-1-9"}


def test_a_cancelled_or_reversed_move_leaves_the_map_as_it_was() -> None:
    for n in range(6):
        cancelled = step(forward(n), Step.CANCEL, NEXT)
        assert (cancelled.map, cancelled.moves, cancelled.tables) == (RANGES, (), {})
    reversed_ = step(forward(7), Step.REVERSE, *[NEXT] * 7)
    assert (reversed_.map, reversed_.moves) == (RANGES, ())


def test_barriers_are_asked_for_by_the_phase_that_is_left() -> None:
    assert [waits_for_barrier(forward(n).move("m1"), NEXT) for n in range(9)] == [
        *[True, False, True, False, False, False, True, False, False]
    ]
    assert not waits_for_barrier(forward(2).move("m1"), Step.CANCEL)


def test_an_illegal_step_or_an_unknown_move_is_refused() -> None:
    with pytest.raises(MoveError, match="cannot take the step 'reverse'"):
        advance(forward(2), "m1", Step.REVERSE)
    with pytest.raises(MoveError, match="no move m2"):
        advance(forward(2), "m2", NEXT)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (move(stream("b", "c", (50, 100))), "not all on shard b"),
        (move(stream("a", "c", (50, 101))), "not all on shard a"),
        (move(stream("a", "c", (250, 260))), "not all on shard a"),
        (move(stream("a", "c", (50, 60)), stream("a", "d", (55, 70))), "have the same keys"),
        (move(Stream(source="a", target="c", keys=KeySet(buckets=(Interval(0, 1),)))), "only ranges"),
        (SPLIT.model_copy(update={"phase": Phase.COPYING}), "a new move is prepared"),
        (SPLIT.model_copy(update={"tables": ("t",)}), "single tables"),
    ],
)
def test_a_move_that_does_not_fit_the_map_is_not_begun(wrong: Move, told: str) -> None:
    with pytest.raises(MoveError, match=told):
        begin(START, wrong)


def test_moves_of_other_keys_go_on_side_by_side_and_overlapping_ones_are_refused() -> None:
    document = begin(START, SPLIT)
    with pytest.raises(MoveError, match="move m1 is under way and has keys"):
        begin(document, move(stream("a", "b", (0, 51)), ident="m2"))
    with pytest.raises(MoveError, match="m1 is under way already"):
        begin(document, move(stream("a", "b", (0, 10))))
    document = begin(document, move(stream("a", "b", (0, 10)), ident="m2"))
    document = step(step(document, *[NEXT] * 6), *[NEXT] * 6, ident="m2")
    assert document.map == RangeForm.of(
        [
            *[NamedRange(0, 10, "b"), NamedRange(10, 50, "a"), NamedRange(50, 120, "c")],
            *[NamedRange(120, 200, "b"), NamedRange(300, 400, "a")],
        ]
    )
    assert document.write_rule("t", 5) == WriteRule(Writes.HELD, "m2", "a", document.move("m2").fence)
    document = step(step(document, *[NEXT] * 3), NEXT, Step.REVERSE, *[NEXT] * 7, ident="m2")
    assert document.map == RangeForm.of(
        [NamedRange(0, 50, "a"), NamedRange(50, 120, "c"), NamedRange(120, 200, "b"), NamedRange(300, 400, "a")]
    )


def test_buckets_move_as_ranges_do() -> None:
    start = MapDocument(keyspace="main", key_type="text", epoch=1, map=HashForm.of(["a", "b"] * 2048))
    moving = KeySet(buckets=(Interval(0, 1), Interval(2, 3)))
    document = begin(start, move(Stream(source="a", target="c", keys=moving)))
    switched = step(document, *[NEXT] * 6).map
    assert isinstance(switched, HashForm)
    assert switched.owners == ["c", "b", "c", "b", *["a", "b"] * 2046]
    with pytest.raises(MoveError, match="not all on shard a"):
        begin(start, move(Stream(source="a", target="c", keys=KeySet(buckets=(Interval(0, 2),)))))
    with pytest.raises(MoveError, match="not all on shard a"):
        begin(start, move(Stream(source="a", target="c", keys=KeySet(buckets=(Interval(4096, 4097),)))))


def test_a_move_may_replace_the_map_as_a_whole_and_back() -> None:
    """From ranges to a ring, with a table that was on one shard."""
    coming = Layout(map=HashForm.of(["a", "b"] * 2048), tables={"notes": TableForm(kind="sharded", key="uid")})
    streams = (
        Stream(source="a", target="b", keys=KeySet(ranges=(Interval(0, 100),), buckets=(Interval(1, 2),))),
        Stream(source="b", target="a", keys=KeySet(ranges=(Interval(100, 200),), buckets=(Interval(0, 1),))),
    )
    whole = Move(id="m1", phase=Phase.PREPARED, streams=streams, replaced_by=coming)
    document = begin(START, whole)
    with pytest.raises(MoveError, match="m1 is under way"):
        begin(document, move(stream("a", "b", (300, 310)), ident="m2"))
    assert step(document, *[NEXT] * 5).map == RANGES
    switched = step(document, *[NEXT] * 6)
    assert (switched.map, switched.tables) == (coming.map, coming.tables)
    assert switched.move("m1").replaced_by == Layout(map=RANGES)
    back = step(switched, NEXT, Step.REVERSE, *[NEXT] * 4)
    assert (back.map, back.tables) == (RANGES, {})
    assert back.move("m1").replaced_by == coming
    assert names_in([document]) == {"a", "b"}


def test_a_move_of_some_tables_leaves_the_others_alone() -> None:
    coming = Layout(map=RANGES, tables={"notes": TableForm(kind="sharded", key="uid")})
    some = SPLIT.model_copy(update={"tables": ("notes",), "replaced_by": coming})
    document = step(begin(START, some), NEXT, NEXT)
    assert document.write_rule("notes", 60) is not None
    assert document.write_rule("users", 60) is None
    assert document.hidden_on("c", "notes") and not document.hidden_on("c", "users")


@given(worlds.key_sets(), worlds.key_sets(), st.data())
def test_sets_of_keys_that_do_not_overlap_share_no_key(a: KeySet, b: KeySet, data: st.DataObject) -> None:
    edges = [e for s in (a, b) for i in s.ranges or () for e in (i.start, i.end - 1, i.end)] or [0]
    key = data.draw(st.sampled_from(edges) | st.integers(-100, 100))
    if key in a and key in b:
        assert a.overlaps(b)
    for keyset in (a, b):
        in_ranges = keyset.ranges is None or any(s <= key < e for s, e in keyset.ranges)
        in_buckets = keyset.buckets is None or any(s <= bucket_of(key) < e for s, e in keyset.buckets)
        assert (key in keyset) == (in_ranges and in_buckets)


def test_text_keys_are_in_sets_of_buckets() -> None:
    bucket = bucket_of(b"zoe")
    assert b"zoe" in KeySet(buckets=(Interval(bucket, bucket + 1),))
    assert b"zoe" not in KeySet(buckets=(Interval(0, bucket),))


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
        if not document.moves:
            break
        at = document.move("m1")
        if (at.phase, one) not in TRANSITIONS:
            with pytest.raises(MoveError):
                advance(document, "m1", one)
            continue
        before, document = document, step(document, one)
        assert document.epoch == before.epoch + 1
        assert MapDocument.read("k", document.document()) == document
        owned = {owner(document.map, key, {"a": 0, "b": 1, "c": 2}) for key in (50, 99)}  # type: ignore[arg-type]
        assert owned in ({0}, {2})
        after = TRANSITIONS[at.phase, one]
        if after in FINAL:
            assert document.moves == ()
        else:
            other = "c" if owned == {0} else "a"
            assert keys((50, 100)) in document.hidden_on(other, "t")
            assert not document.hidden_on("a" if other == "c" else "c", "t")
        if after in POSITIONS:
            assert SPLIT.shards(POSITIONS[after]) <= document.positions.keys()


def test_sides_name_their_shards() -> None:
    assert SPLIT.shards(Side.SOURCE) == {"a", "b"}
    assert SPLIT.shards(Side.TARGET) == {"c"}
    assert names_in([begin(START, SPLIT)]) == {"a", "b", "c"}
