"""Routing: never misses a shard that can hold a matching row, and refuses what would be placed wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.errors import RouteError, UnsupportedError
from shardproxy.planner.bounds import KeyBounds
from shardproxy.planner.key_values import NULLVALUE, UNROUTABLE, NoValue
from shardproxy.planner.plan import (
    AllOf,
    AnyOf,
    Anywhere,
    Condition,
    Group,
    KeyBetween,
    KeyIn,
    Nowhere,
    Opcode,
    Plan,
    Rung,
    Spread,
    StatementKind,
    Value,
)
from shardproxy.router.route import Route, ValueReader, evaluate, route
from shardproxy.topology.keys import KeyType, KeyValue
from shardproxy.topology.maps import BucketMap, KeyRange, RangeMap, ShardMap, UnmappedKey
from shardproxy.topology.model import Keyspace, Role, Server, Shard, Snapshot
from shardproxy.topology.ring import place_buckets

LOW, HIGH = -30, 120  # the integer keys looked at; wider than 64, from where on a hash map no longer enumerates
NAMES = ("a", "b", "c", "d")
SHARDS = tuple(Shard(name, Server(f"{name}/primary", "127.0.0.1", 1, Role.PRIMARY, name)) for name in NAMES)
HASH = BucketMap(place_buckets(dict.fromkeys(NAMES, 1), {name: i for i, name in enumerate(NAMES)}))
RANGES = RangeMap([KeyRange(0, 10, 0), KeyRange(10, 20, 1), KeyRange(30, 40, 2)])


def keyspace(shard_map: ShardMap, key_type: KeyType = KeyType.INT, shards: Sequence[int] = (0, 1, 2, 3)) -> Keyspace:
    return Keyspace("shop", key_type, shard_map, {}, tuple(shards))


SHOP = keyspace(RANGES, shards=(0, 1, 2))
SNAPSHOT = Snapshot(1, SHARDS, {"shop": SHOP})


def reading(*given_values: KeyValue | NoValue) -> ValueReader:
    """Value(i) is the i-th; a minus before a NULL or an unroutable one changes nothing."""

    def read(value: Value, key_type: KeyType) -> KeyValue | NoValue:
        found = given_values[value.index]
        return -found if value.negative and isinstance(found, int) else found

    return read


# ── conditions ──

INDEXES = st.integers(0, 5)
VALUES = st.builds(Value, INDEXES, st.booleans())
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    st.one_of(
        st.just(Anywhere()),
        st.just(Nowhere()),
        st.builds(KeyIn, st.lists(VALUES, min_size=1, max_size=3).map(tuple)),
        st.builds(KeyBetween, st.none() | VALUES, st.none() | VALUES, st.booleans(), st.booleans()),
    ),
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
INT_VALUES = st.lists(st.integers(LOW, HIGH) | st.sampled_from([NULLVALUE, UNROUTABLE, 2**70]), min_size=6, max_size=6)


@st.composite
def range_maps(draw: st.DrawFn) -> RangeMap:
    cuts = sorted(draw(st.sets(st.integers(LOW, HIGH), min_size=2, max_size=8)))
    ranges = [KeyRange(a, b, draw(st.integers(0, 3))) for a, b in pairwise(cuts)]
    return RangeMap([r for r in ranges if draw(st.booleans())] or ranges[:1])


def may_hold(condition: Condition, key: KeyValue, read: ValueReader, key_type: KeyType) -> bool:
    """Whether a row with this key may satisfy the condition, as a server compares; what is unknown may be true."""

    def value(of: Value) -> KeyValue | NoValue:
        return read(of, key_type)

    def bound(of: Value | None, is_low: bool, is_open: bool) -> bool:
        limit = None if of is None else value(of)
        if limit is NULLVALUE:
            return False
        if not isinstance(limit, int) or not isinstance(key, int):
            return True
        return (key > limit if is_low else key < limit) or (key == limit and not is_open)

    match condition:
        case KeyIn(values):
            return any(value(v) in (key, UNROUTABLE) for v in values)
        case KeyBetween(low, high, low_open, high_open):
            return bound(low, True, low_open) and bound(high, False, high_open)
        case AllOf(parts):
            return all(may_hold(part, key, read, key_type) for part in parts)
        case AnyOf(parts):
            return any(may_hold(part, key, read, key_type) for part in parts)
        case _:
            return isinstance(condition, Anywhere)


def homes(condition: Condition, keys: Sequence[KeyValue], of: Keyspace, read: ValueReader) -> set[int]:
    """Shards of all the keys that may satisfy the condition."""
    found = set()
    for key in keys:
        if may_hold(condition, key, read, of.key_type):
            try:
                found.add(of.map.lookup(key))
            except UnmappedKey:
                continue
    return found


@given(CONDITIONS, INT_VALUES, range_maps() | st.just(HASH))
@settings(max_examples=100)
def test_every_shard_with_a_matching_integer_key_is_found(
    condition: Condition, values: list[KeyValue | NoValue], shard_map: ShardMap
) -> None:
    where, read = keyspace(shard_map), reading(*values)
    found = evaluate(condition, where, read)
    assert homes(condition, range(LOW, HIGH + 1), where, read) <= found <= set(shard_map.all_shards)


TEXT_KEYS: list[KeyValue] = [bytes([c]) * n for c in b"abcdefgh" for n in (1, 2)]


@given(CONDITIONS, st.lists(st.sampled_from([*TEXT_KEYS, NULLVALUE, UNROUTABLE]), min_size=6, max_size=6))
def test_every_shard_with_a_matching_text_key_is_found(condition: Condition, values: list[KeyValue | NoValue]) -> None:
    where, read = keyspace(HASH, KeyType.TEXT), reading(*values)
    assert homes(condition, TEXT_KEYS, where, read) <= evaluate(condition, where, read)


@given(CONDITIONS, INT_VALUES, range_maps() | st.just(HASH))
@settings(max_examples=100)
def test_where_one_shard_comes_out_it_hides_no_matching_row(
    condition: Condition, values: list[KeyValue | NoValue], shard_map: RangeMap | BucketMap
) -> None:
    """Rows on their way: beside its own keys a shard has some of another's."""
    of, read = keyspace(shard_map), reading(*values)
    found = evaluate(condition, of, read)
    if len(found) > 1:  # seldom one by chance
        condition = AllOf((condition, KeyIn((Value(5),))))
        found = evaluate(condition, of, read)
    foreign = [key for key in range(LOW, HIGH) if _owner(shard_map, key) not in (None, *found)]
    if len(found) <= 1:
        assert not any(may_hold(condition, key, read, KeyType.INT) for key in foreign)


def _owner(shard_map: RangeMap | BucketMap, key: int) -> int | None:
    try:
        return shard_map.lookup(key)
    except UnmappedKey:
        return None


@given(st.lists(st.integers(0, 39), min_size=1, max_size=6), st.booleans())
def test_lists_of_plain_keys_are_exact(keys: list[int], hashed: bool) -> None:
    where = keyspace(HASH) if hashed else SHOP
    condition = KeyIn(tuple(Value(i) for i in range(len(keys))))
    assert evaluate(condition, where, reading(*keys)) == homes(condition, keys, where, reading(*keys))


@pytest.mark.parametrize(
    ("low", "high", "low_open", "high_open", "shards"),
    [
        (0, 9, False, False, {0}),
        (9, 10, False, False, {0, 1}),
        (9, 10, True, False, {1}),
        (9, 10, False, True, {0}),
        (9, 10, True, True, set()),
        (20, 29, False, False, set()),
        (None, 0, False, True, set()),
        (39, None, True, False, set()),
        (None, None, False, False, {0, 1, 2}),
        (NULLVALUE, None, False, False, set()),
        (None, NULLVALUE, False, False, set()),
        (UNROUTABLE, 5, False, False, {0}),
        (35, UNROUTABLE, False, False, {2}),
        (9, 5, False, False, set()),
    ],
)
def test_bounds_on_ranges_are_exact(
    low: int | NoValue | None, high: int | NoValue | None, low_open: bool, high_open: bool, shards: set[int]
) -> None:
    bounds = KeyBetween(None if low is None else Value(0), None if high is None else Value(1), low_open, high_open)
    assert evaluate(bounds, SHOP, reading(low or 0, high or 0)) == shards


# ── INSERT ──


@pytest.mark.parametrize(
    ("value", "message"),
    [(NULLVALUE, "may not be NULL"), (UNROUTABLE, "cannot be placed exactly"), (25, "no range of keyspace 'shop'")],
)
def test_a_key_that_cannot_be_placed_is_refused_in_an_insert_only(value: KeyValue | NoValue, message: str) -> None:
    condition = KeyIn((Value(0), Value(1)))
    with pytest.raises(RouteError, match=message):
        evaluate(condition, SHOP, reading(5, value), strict=True)
    assert 0 in evaluate(condition, SHOP, reading(5, value))
    for kind in (StatementKind.INSERT, StatementKind.REPLACE):
        with pytest.raises(RouteError, match=message):
            route(plan(condition, kind=kind), reading(5, value), SNAPSHOT)


def test_an_insert_within_alternatives_is_strict_too() -> None:
    for make in (AllOf, AnyOf):
        with pytest.raises(RouteError):
            evaluate(make((Anywhere(), KeyIn((Value(0),)))), SHOP, reading(UNROUTABLE), strict=True)


def plan(
    condition: Condition | None = None,
    kind: StatementKind = StatementKind.SELECT,
    *,
    groups: tuple[Group, ...] = (),
    rung: Rung = Rung.ONE_SHARD,
    spread: Spread = Spread.REFUSE,
    read: bool = False,
    primary: bool = False,
    keyspace: Keyspace | None = None,
    shard_hint: str | None = None,
    key_bounds: KeyBounds | None = None,
    nonzero: tuple[Value, ...] = (),
    error: str = "",
) -> Plan:
    """A plan of one group when there is a condition."""
    if condition is not None:
        groups = (Group(("users",), SHOP, condition),)
    return Plan(
        kind, Opcode.IN, rung, "because", groups=groups, spread=spread, spread_error="one shard only", read=read,
        primary=primary, keyspace=keyspace, shard_hint=shard_hint, key_bounds=key_bounds, nonzero=nonzero,
        error=error, error_code=1235,
    )  # fmt: skip


def test_a_key_that_the_column_would_change_is_refused() -> None:
    bounds = KeyBounds("users.uid", 0, 15)
    inserting = plan(KeyIn((Value(0),)), StatementKind.INSERT, key_bounds=bounds)
    assert route(inserting, reading(15), SNAPSHOT).shards == (1,)
    with pytest.raises(RouteError, match=r"users\.uid cannot hold 16") as caught:
        route(inserting, reading(16), SNAPSHOT)
    assert (caught.value.code, caught.value.sqlstate) == (1264, "22003")
    selecting = plan(KeyIn((Value(0),)), key_bounds=bounds)
    assert route(selecting, reading(16), SNAPSHOT).shards == (1,)


@pytest.mark.parametrize("value", [0, NULLVALUE, UNROUTABLE])
def test_an_auto_increment_value_that_the_server_would_choose_is_refused(value: int | NoValue) -> None:
    inserting = plan(KeyIn((Value(0),)), StatementKind.INSERT, nonzero=(Value(1), Value(2)))
    assert route(inserting, reading(5, 7, -1), SNAPSHOT).shards == (0,)
    for values in ((value, 7), (7, value)):
        with pytest.raises(UnsupportedError, match="AUTO_INCREMENT"):
            route(inserting, reading(5, *values), SNAPSHOT)


def test_so_it_is_in_a_reference_table() -> None:
    everywhere = plan(kind=StatementKind.INSERT, keyspace=SHOP, spread=Spread.ALL, nonzero=(Value(0),))
    assert route(everywhere, reading(5), SNAPSHOT).shards == SHOP.shards
    with pytest.raises(UnsupportedError, match="AUTO_INCREMENT"):
        route(everywhere, reading(0), SNAPSHOT)


# ── plans ──


def test_an_error_plan_is_its_error() -> None:
    with pytest.raises(UnsupportedError, match="cannot be done") as caught:
        route(plan(rung=Rung.ERROR, error="cannot be done"), reading(), SNAPSHOT)
    assert caught.value.code == 1235


def test_a_hint_names_the_shard() -> None:
    everywhere = plan(Anywhere(), shard_hint="c", read=True)
    assert route(everywhere, reading(), SNAPSHOT) == Route((2,), True)
    with pytest.raises(RouteError, match="'x', which does not exist; shards are: a, b, c, d"):
        route(plan(Anywhere(), shard_hint="x"), reading(), SNAPSHOT)


@pytest.mark.parametrize(("read", "primary", "replica"), [(True, False, True), (True, True, False), (False,) * 3])
def test_a_replica_may_answer_a_read_that_does_not_ask_for_the_primary(
    read: bool, primary: bool, replica: bool
) -> None:
    assert route(plan(KeyIn((Value(0),)), read=read, primary=primary), reading(5), SNAPSHOT) == Route((0,), replica)


def test_several_shards_are_refused_or_concatenated_in_order() -> None:
    condition = KeyIn((Value(0), Value(1)))
    with pytest.raises(RouteError, match=r"one shard only \(it would touch shards a, c\)"):
        route(plan(condition), reading(35, 5), SNAPSHOT)
    joined = plan(condition, spread=Spread.CONCAT, read=True)
    assert route(joined, reading(35, 5), SNAPSHOT) == Route((0, 2), True)
    assert route(joined, reading(5, 6), SNAPSHOT) == Route((0,), True)


@pytest.mark.parametrize("spread", [Spread.REFUSE, Spread.CONCAT])
def test_an_empty_answer_comes_from_any_shard_of_the_keyspace(spread: Spread) -> None:
    empty = plan(Nowhere(), spread=spread)
    assert route(empty, reading(), SNAPSHOT).shards == (0,)
    assert route(empty, reading(), SNAPSHOT, held=2).shards == (2,)
    assert route(empty, reading(), SNAPSHOT, held=3).shards == (0,), "shard d does not hold the keyspace"


def test_groups_meet_on_one_shard() -> None:
    def both(first: Condition, second: Condition, fixed: int | None = None) -> Plan:
        return plan(groups=(Group(("users",), SHOP, first), Group(("jobs",), SHOP, second, fixed)))

    same, other = KeyIn((Value(0),)), KeyIn((Value(1),))
    assert route(both(same, other), reading(5, 6), SNAPSHOT).shards == (0,)
    assert route(both(same, Nowhere()), reading(15), SNAPSHOT).shards == (1,)
    assert route(both(same, Anywhere(), 1), reading(15), SNAPSHOT).shards == (1,)
    for bad, values in ((both(same, other), (5, 15)), (both(same, Anywhere(), 2), (5, 5))):
        with pytest.raises(RouteError, match="one shard only"):
            route(bad, reading(*values), SNAPSHOT)


def test_reads_that_any_shard_can_answer_stay_with_the_transaction() -> None:
    for anywhere in (plan(spread=Spread.ANY, keyspace=SHOP), plan(Anywhere(), spread=Spread.ANY)):
        assert route(anywhere, reading(), SNAPSHOT).shards == (0,)
        assert route(anywhere, reading(), SNAPSHOT, held=1).shards == (1,)
        assert route(anywhere, reading(), SNAPSHOT, held=3).shards == (0,)
    assert route(plan(spread=Spread.ANY), reading(), SNAPSHOT, held=3).shards == (3,)


def test_what_every_shard_runs_goes_to_each_primary_in_order() -> None:
    assert route(plan(spread=Spread.ALL, keyspace=SHOP, read=True), reading(), SNAPSHOT) == Route((0, 1, 2), False)
    assert route(plan(Anywhere(), spread=Spread.ALL), reading(), SNAPSHOT) == Route((0, 1, 2), False)
    single = plan(groups=(Group(("jobs",), SHOP, shard=1),), spread=Spread.ALL)
    assert route(single, reading(), SNAPSHOT) == Route((1,), False)
