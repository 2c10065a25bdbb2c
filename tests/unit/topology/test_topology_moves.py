"""What maps say of keys that move."""

from __future__ import annotations

import pickle

import pytest

from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import KeyRange, RangeMap
from shardproxy.topology.moves import HELD, OVER, SOURCE_HIDES, TARGET_HIDES, LoneTable, Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys

LOW = MovingKeys(KeyType.INT, intervals=((0, 10),))
HIGH = MovingKeys(KeyType.INT, intervals=((20, 30),))


def move(phase: Phase) -> Move:
    return Move(7, phase, 3, (Stream(0, 2, LOW), Stream(1, 2, HIGH)))


@pytest.mark.parametrize("phase", Phase)
def test_one_side_hides_while_a_move_is_under_way(phase: Phase) -> None:
    hidden = move(phase).hidden
    if phase in OVER:
        assert not hidden
    elif phase in SOURCE_HIDES:
        assert hidden == {0: (LOW,), 1: (HIGH,)}
    else:
        assert hidden == {2: (LOW, HIGH)}


@pytest.mark.parametrize("phase", list(Phase))
def test_of_one_table_only_its_home_hides_rows(phase: Phase) -> None:
    one, other = MovingKeys(KeyType.INT, [(0, 5)]), MovingKeys(KeyType.INT, [(5, 9)])
    there = Move(1, phase, 2, (Stream(1, 0, one), Stream(1, 2, other)), LoneTable("s", 1))
    assert there.hidden == ({1: (one, other)} if phase in SOURCE_HIDES else {})
    back = Move(1, phase, 2, (Stream(0, 1, one), Stream(2, 1, other)), LoneTable("s", 1))
    assert back.hidden == ({1: (one, other)} if phase in TARGET_HIDES else {})


@pytest.mark.parametrize("phase", list(Phase))
def test_of_a_table_that_changes_its_key_each_shard_hides_what_is_not_its_own(phase: Phase) -> None:
    own = [MovingKeys(KeyType.INT, [(0, 5)]), MovingKeys(KeyType.INT, [(5, 9)]), MovingKeys(KeyType.INT, [(9, 20)])]
    streams = [Stream(a, b, own[a]) for a in range(3) for b in range(3) if a != b]
    move = Move(1, phase, 2, tuple(streams), LoneTable("t", None))
    everywhere = {0: (own[1], own[2]), 1: (own[0], own[2]), 2: (own[0], own[1])}
    assert move.hidden == ({} if phase in OVER else everywhere)
    assert [move.source_of(key) for key in (4, 5, 19, 20)] == [0, 1, 2, None]


def test_the_phases_are_divided() -> None:
    assert set(Phase) == TARGET_HIDES | SOURCE_HIDES | OVER
    assert not TARGET_HIDES & SOURCE_HIDES and not OVER & (TARGET_HIDES | SOURCE_HIDES)


@pytest.mark.parametrize("phase", Phase)
def test_writes_are_fenced_or_held_or_neither(phase: Phase) -> None:
    assert move(phase).held == (phase in HELD)
    assert move(phase).fenced == (phase is Phase.ARMED)


def test_the_source_of_a_key() -> None:
    found = move(Phase.ARMED)
    assert [found.source_of(key) for key in (0, 9, 10, 25, 30)] == [0, 0, None, 1, None]
    assert found.sources == {0, 1}


def test_a_move_travels_to_the_workers() -> None:
    found = move(Phase.OPEN)
    assert found.hidden
    assert pickle.loads(pickle.dumps(found)) == found


def test_keys_that_move_are_not_for_the_short_way() -> None:
    shard_map = RangeMap((KeyRange(0, 50, 0), KeyRange(50, 100, 1)))
    armed = Move(7, Phase.ARMED, 2, (Stream(0, 1, MovingKeys(KeyType.INT, intervals=[(20, 30)])),))
    shard_of = armed.staying(shard_map.lookup)
    for key in range(100):
        if 20 <= key < 30:
            with pytest.raises(LookupError):
                shard_of(key)
        else:
            assert shard_of(key) == shard_map.lookup(key)
    with pytest.raises(LookupError):
        shard_of(1000)


def test_a_fence_is_known_by_move_and_epoch() -> None:
    one = Move(7, Phase.ARMED, 2, ())
    assert one.guarded
    assert one.same_fence(Move(7, Phase.CLOSING, 2, ()))
    assert not one.same_fence(Move(7, Phase.ARMED, 4, ()))
    assert not one.same_fence(Move(8, Phase.ARMED, 2, ()))
    assert not one.same_fence(None)
