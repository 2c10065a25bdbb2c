from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.config import Address
from shardproxy.errors import DocumentError, MoveError
from shardproxy.topology import redis_map as m
from shardproxy.topology.redis_map import Phase, RedisMap, first_map, routing
from shardproxy.topology.redis_ring import MovingRing, RedisRing, hash_tag

NODES = ("a", "b", "c")
ORDER = {"c": 0, "a": 1, "b": 2}


def owners_of(seed: int) -> list[str]:
    dice = random.Random(seed)
    edge = dice.randrange(1, 4095)
    return [dice.choice(NODES[:2])] * edge + ["c"] * (4096 - edge)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(600, 4096), st.lists(st.sampled_from("nnnncgb"), max_size=20))
def test_whatever_is_done_ends_where_it_was_wanted(seed: int, most: int, steps: list[str]) -> None:
    """n: the next step; c: turn back; g: give up; b: stored and read again."""
    document = first_map({"a": 1, "b": 1})
    before = document.map
    document = m.want(document, owners_of(seed))
    goal, epoch, ended = document.wanted, document.epoch, False
    for step in [*steps, *"n" * 200]:
        move = document.move
        if step == "n":
            document = advanced(document, most)
        elif step == "c" and document.wanted is not None:
            document, goal = m.turn_back(document), before
        elif step == "g" and move is not None and move.phase is not Phase.MOVING and not move.back:
            document = m.give_up(document)
        elif step == "b":
            document = RedisMap.read(m.REDIS_MAP, document.document())
        if document.wanted is None and document.move is None:
            ended = True
            break
        if step in "ncg":
            assert document.epoch >= epoch
        epoch = document.epoch
    assert ended and document.map == goal


def advanced(document: RedisMap, most: int) -> RedisMap:
    move = document.move
    if move is None:
        return m.next_move(document, most)
    step = {Phase.PREPARED: m.close, Phase.CLOSING: m.open_target, Phase.MOVING: m.complete}[move.phase]
    after = step(document)
    assert after.epoch == document.epoch + 1
    return after


def test_what_workers_route_by() -> None:
    document = m.want(first_map({"a": 1}), ["b"] * 4096)
    assert routing(document, ORDER) == (
        document.epoch, [1] * 4096, 0, 0, frozenset(), 0, 0, False, 0, (), (), b"", True,
    )  # fmt: skip
    prepared = m.next_move(document, 10)
    assert routing(prepared, ORDER) == (
        prepared.epoch, [1] * 4096, 0, 0, frozenset(), 0, 0, False, 0, (), (), b"", True,
    )  # fmt: skip
    closing = m.close(prepared)
    ten = frozenset(range(10))
    assert routing(closing, ORDER) == (
        closing.epoch, [1] * 4096, 1, 1, ten, 1, 2, False, 0, (), (), b"", True,
    )  # fmt: skip
    moving = m.open_target(closing, 3)
    assert routing(moving, ORDER) == (
        moving.epoch, [1] * 4096, 1, 1, ten, 1, 2, True, 3, (), (), b"", True,
    )  # fmt: skip
    done = m.complete(moving)
    assert routing(done, ORDER) == (
        done.epoch, [2] * 10 + [1] * 4086, 1, 0, frozenset(), 0, 0, False, 0, (), (), b"", True,
    )  # fmt: skip
    back = m.turn_back(moving)
    assert back.move is not None and back.move.back
    assert routing(back, ORDER)[2:] == (2, 2, ten, 2, 1, False, 0, (), (), b"", True)


def test_a_promoted_node_is_elsewhere() -> None:
    there, file = Address("10.0.0.2", 6380), Address("10.0.0.1", 6379)
    document = m.promoted(first_map({"a": 1, "b": 1}), "b", there)
    assert "addresses" not in first_map({"a": 1}).document(), "earlier versions do not know it"
    assert document.epoch == 2 and RedisMap.read("k", document.document()) == document
    assert document.address("b", file) == there and document.address("a", file) == file
    assert routing(document, ORDER).moved == ((ORDER["b"], "10.0.0.2", 6380),)
    closing = m.close(m.next_move(m.want(document, ["a"] * 4096), 4096))
    assert routing(closing, ORDER).moved == routing(document, ORDER).moved
    assert routing(m.promoted(document, "nowhere", there), ORDER).moved == routing(document, ORDER).moved
    for under_way in (closing, m.want(document, ["a"] * 4096)):
        with pytest.raises(MoveError, match="let the move end"):
            m.promoted(under_way, "b", file)
    with pytest.raises(DocumentError, match="host:port"):
        RedisMap.read("k", {**document.document(), "addresses": {"a": "nowhere"}})


def test_what_has_moved_nothing_is_taken_back_at_once() -> None:
    """No node has to be asked for that: one may be away."""
    document = first_map({"a": 1, "b": 1})
    wanted = m.want(document, ["b"] * 4096)
    for under_way in (wanted, m.next_move(wanted, 10), m.close(m.next_move(wanted, 10))):
        back = m.turn_back(under_way)
        assert (back.move, back.wanted, back.map) == (None, None, document.map) and back.epoch > under_way.epoch
        assert not routing(back, ORDER).at_home and routing(under_way, ORDER).at_home
    moved = m.complete(m.open_target(m.close(m.next_move(wanted, 10))))
    assert m.turn_back(moved).wanted == document.map


def test_identities_are_read_by_earlier_versions() -> None:
    assert "cache" not in m.RedisIdentity(id="a", place="p").document()
    one = m.RedisIdentity(id="a", place="p", cache=True)
    assert m.RedisIdentity.read("k", one.document()) == one


def test_steps_that_do_not_fit_are_refused() -> None:
    document = first_map({"a": 1})
    wanted = m.want(document, ["b"] * 4096)
    moving = m.open_target(m.close(m.next_move(wanted, 10)))
    for step in (m.close, m.open_target, m.complete, m.give_up):
        with pytest.raises(MoveError):
            step(document)
    for step in (m.close, m.open_target, m.give_up, lambda d: m.next_move(d, 1), lambda d: m.want(d, ["a"] * 4096)):
        with pytest.raises(MoveError):
            step(moving)
    with pytest.raises(MoveError):
        m.give_up(m.turn_back(moving))


@given(st.lists(st.binary(max_size=12)), st.sets(st.integers(0, 4095)), st.data())
def test_keys_that_move_are_nowhere_until_they_come(keys: list[bytes], extra: set[int], data: st.DataObject) -> None:
    plain = RedisRing([n % 3 for n in range(4096)])
    number = RedisRing(range(4096))
    waiting = {number.node_of(key) for key in keys[::2]} | extra
    ring = MovingRing(plain, waiting, 7, 9)
    for key in keys:
        moves = number.node_of(key) in waiting
        assert ring.waits(key) == moves
        assert ring.node_of(key) == (9 if moves else plain.node_of(key))
    if keys:
        key = data.draw(st.sampled_from(keys))
        ring.here.add(key)
        assert not ring.waits(key)
        assert ring.node_of(key) == (7 if number.node_of(key) in waiting else plain.node_of(key))
        other = b"{" + hash_tag(key) + b"}x"
        if other not in ring.here and b"}" not in hash_tag(key) and hash_tag(key):
            assert ring.waits(other) == (number.node_of(key) in waiting)
