"""Rings of waits over shards: found when they are there, and one victim that everybody agrees on."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.session.lock_waits import (
    Local,
    Wait,
    crosses,
    knots,
    read_look,
    read_members,
    victims,
    write_members,
)
from shardproxy.session.xid import TransactionId

STARTED = "2026-01-02 03:04:05"


def local(shard: str, thread: int) -> Local:
    return Local(shard, thread, 1000 + thread, STARTED)


def wait(waiter: Local, holder: Local) -> Wait:
    return Wait(waiter, holder, "lock")


def ident(number: int, born: int = 7) -> TransactionId:
    return TransactionId("0123456789ab", born, number, 1, "a")


A, B, C = ident(1), ident(2), ident(3)
A1, A2, B1, B2, C1, C2 = (local(shard, thread) for thread in (1, 2, 3) for shard in "ab")
PARTS = {A1: A, A2: A, B1: B, B2: B, C1: C, C2: C}


def test_two_transactions_in_a_ring_over_two_shards() -> None:
    assert victims([wait(A2, B2), wait(B1, A1)], PARTS) == {B: (B1,)}


def test_without_knowing_what_is_one_there_is_no_ring() -> None:
    assert victims([wait(A2, B2), wait(B1, A1)], {A1: A, A2: A}) == {}


def test_a_ring_runs_through_a_transaction_of_one_shard() -> None:
    alone = local("b", 9)
    assert victims([wait(A2, alone), wait(alone, B2), wait(B1, A1)], PARTS) == {B: (B1,)}


def test_a_wait_is_no_ring() -> None:
    assert victims([wait(A2, B2), wait(C1, A1), wait(C2, A2)], PARTS) == {}


def test_a_ring_on_one_server_is_the_servers() -> None:
    assert victims([wait(local("a", 8), local("a", 9)), wait(local("a", 9), local("a", 8))], PARTS) == {}


def test_the_victim_is_the_youngest_of_those_in_the_ring() -> None:
    old, young, outside = ident(9, born=5), ident(1, born=6), ident(1, born=8)
    parts = {A1: old, A2: old, B1: young, B2: young, C1: outside, C2: outside}
    assert victims([wait(A2, B2), wait(B1, A1), wait(C1, A1)], parts) == {young: (B1,)}


def test_a_victim_that_waits_on_two_shards() -> None:
    assert victims([wait(A2, C2), wait(C1, A1), wait(C2, B2), wait(B1, A1)], PARTS) == {C: (C1, C2)}


def test_two_rings_that_do_not_meet_have_a_victim_each() -> None:
    others = {local(shard, thread): ident(thread) for thread in (8, 9) for shard in "ab"}
    waits = [wait(A2, B2), wait(B1, A1), wait(local("a", 8), local("a", 9)), wait(local("b", 9), local("b", 8))]
    assert victims(waits, PARTS | others) == {B: (B1,), ident(9): (local("b", 9),)}


def test_a_long_chain_takes_no_recursion() -> None:
    chain = [wait(local("a", n), local("a", n + 1)) for n in range(100, 5000)]
    assert victims(chain, {}) == {}


def test_a_ring_may_cross_only_where_it_leaves_on_another_shard() -> None:
    members = {A1, A2}
    assert crosses(members, [wait(A2, B2), wait(C1, A1)])
    assert not crosses(members, [wait(A2, B2), wait(C2, A2)])
    assert not crosses(members, [wait(A2, B2), wait(A1, B1)])
    assert not crosses(members, [wait(C2, A2), wait(C1, A1)])


# ── what servers show ──


def transaction(
    number: int, thread: int, lock: str = "", structures: int = 2, mark: str | None = None
) -> list[bytes | None]:
    cells = [str(number), str(thread), STARTED, lock or None, STARTED if lock else None, str(structures), mark]
    return [None if cell is None else cell.encode() for cell in cells]


def waits_for(waiting: int, lock: str, holding: int) -> list[bytes | None]:
    return [b"%d" % waiting, lock.encode(), b"%d" % holding]


def test_a_look() -> None:
    rows = [transaction(24, 5, mark="me"), transaction(25, 6, "25:5:3:2"), transaction(0, 8, structures=0, mark="it")]
    announced: list[list[bytes | None]] = [[A.text.encode(), b"a/5/24/" + STARTED.encode()], [b"rubbish", b"x"]]
    look = read_look("a", rows, [waits_for(25, "25:5:3:2", 24)], announced)
    holder, waiter = Local("a", 5, 24, STARTED), Local("a", 6, 25, STARTED)
    assert look.mark == "itme"
    assert look.waits == (Wait(waiter, holder, f"25:5:3:2 {STARTED}"),)
    assert look.parts == {holder: A}
    assert look.of_thread(6) == waiter
    assert look.of_thread(7) is None


def test_readers_without_a_number_are_told_apart_where_they_can_be() -> None:
    waiting = transaction(0, 7, "0:5:3:2")
    idle = transaction(0, 8, structures=0)
    look = read_look("a", [transaction(24, 5), waiting, idle], [waits_for(0, "0:5:3:2", 24)], [])
    assert [(found.waiter.thread, found.holder.thread) for found in look.waits] == [(7, 5)]
    look = read_look("a", [transaction(24, 5, "24:5:3:2"), idle, transaction(0, 9)], [waits_for(24, "24:5:3:2", 0)], [])
    assert [(found.waiter.thread, found.holder.thread) for found in look.waits] == [(5, 9)]


def test_a_wait_of_nobody_knows_whom_is_left_out() -> None:
    two_hold = [transaction(24, 5, "24:5:3:2"), transaction(0, 8), transaction(0, 9)]
    assert read_look("a", two_hold, [waits_for(24, "24:5:3:2", 0)], []).waits == ()
    two_wait = [transaction(24, 5), transaction(0, 8, "0:5:3:2"), transaction(0, 9, "0:5:3:2")]
    assert read_look("a", two_wait, [waits_for(0, "0:5:3:2", 24)], []).waits == ()
    assert read_look("a", [transaction(24, 5)], [waits_for(25, "25:5:3:2", 24)], []).waits == ()


# ── any waits ──

_THREADS = st.integers(1, 6)
_SHARDS = st.sampled_from("abc")
_ENDS = st.tuples(_SHARDS, _THREADS, _THREADS).map(lambda t: wait(local(t[0], t[1]), local(t[0], t[2])))
_WAITS = st.lists(_ENDS, max_size=20).map(lambda waits: [w for w in waits if w.waiter != w.holder])
_OWNERS = st.dictionaries(_THREADS, st.integers(0, 3), max_size=6)


def parts_of(owners: dict[int, int]) -> dict[Local, TransactionId]:
    """A transaction has one thread number on all shards; its birth is drawn, its number is its own."""
    return {local(shard, thread): ident(thread, born) for thread, born in owners.items() for shard in "abc"}


def reachable(waits: list[Wait], parts: dict[Local, TransactionId]) -> dict[object, set[object]]:
    """By brute force: whom each waits for, over any number of others."""
    after: dict[object, set[object]] = {}
    for w in waits:
        after.setdefault(parts.get(w.waiter, w.waiter), set()).add(parts.get(w.holder, w.holder))
    for _ in range(20):
        for name in after:
            after[name] |= {far for near in after[name] for far in after.get(near, ())}
    return after


@given(_WAITS, _OWNERS)
def test_a_victim_waits_for_itself_and_is_the_youngest_who_does(waits: list[Wait], owners: dict[int, int]) -> None:
    parts = parts_of(owners)
    after = reachable(waits, parts)
    chosen = victims(waits, parts)
    in_rings = {name for name in after if name in after[name] and isinstance(name, TransactionId)}
    assert chosen.keys() <= in_rings
    for name in in_rings:
        knot = {other for other in in_rings if other in after[name] and name in after[other]}
        youngest = max(knot, key=lambda i: (i.born, i.number))
        assert youngest in chosen
    for name, members in chosen.items():
        assert all(parts[member] == name for member in members)
        assert {w.waiter for w in waits} >= set(members) != set()


@given(_WAITS, _OWNERS, st.randoms(use_true_random=False))
def test_whoever_sees_the_same_chooses_the_same(waits: list[Wait], owners: dict[int, int], dice: random.Random) -> None:
    parts = parts_of(owners)
    shuffled = list(waits)
    dice.shuffle(shuffled)
    assert victims(shuffled, parts) == victims(waits, parts)


@given(_WAITS, _OWNERS)
def test_without_the_victims_no_ring_is_left(waits: list[Wait], owners: dict[int, int]) -> None:
    parts = parts_of(owners)
    chosen = victims(waits, parts)
    left = [w for w in waits if parts.get(w.waiter) not in chosen and parts.get(w.holder) not in chosen]
    after = reachable(left, parts)
    assert not [name for name in after if isinstance(name, TransactionId) and name in after[name]]


@given(_WAITS, _OWNERS)
def test_every_ring_over_shards_crosses_its_transactions(waits: list[Wait], owners: dict[int, int]) -> None:
    """Who looks everywhere only after `crosses` misses no ring: one that crosses nowhere is on one shard."""
    parts = parts_of(owners)
    for ident_ in victims(waits, parts):
        members = {member for member, owner in parts.items() if owner == ident_}
        if crosses(members, waits):
            continue
        [shard] = {w.waiter.shard for w in waits if w.waiter in members} & {
            w.holder.shard for w in waits if w.holder in members
        }
        assert shard in "abc"


@given(st.lists(st.tuples(_SHARDS, _THREADS), max_size=5, unique=True))
def test_members_are_read_as_they_were_written(pairs: list[tuple[str, int]]) -> None:
    members = [local(shard, thread) for shard, thread in pairs]
    assert read_members(write_members(members)) == members


def test_members_of_something_else_are_left_out() -> None:
    assert read_members("a/1/2\nx\na/b/3/t\n\n") == []


def test_knots_of_names_that_wait_for_themselves_are_none() -> None:
    assert knots({A: [A]}) == []


def test_of_two_rings_through_one_transaction_it_is_enough_to_end_that_one_when_it_is_the_youngest() -> None:
    waits = [wait(A2, C2), wait(C1, A1), wait(B2, C2), wait(C1, B1)]
    assert victims(waits, PARTS) == {C: (C1,)}
    older = PARTS | {C1: ident(0), C2: ident(0)}
    assert set(victims(waits, older)) == {A, B}
