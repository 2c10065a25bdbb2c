"""The plan cache keeps within its limits, and never gives a plan of another map, mode or user."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardproxy.planner import cache as cache_module
from shardproxy.planner.cache import MAX_DIGEST, CachedPlan, PlanCache, SpaceKey
from shardproxy.planner.context import PlanContext
from shardproxy.planner.plan import Group, InsertId, KeyIn, Opcode, PinReason, Plan, Rung, StatementKind, Value
from shardproxy.planner.statement import plan_statement
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import KeyRange, RangeMap
from shardproxy.topology.model import Keyspace
from shardproxy.topology.moves import Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from shardproxy.topology.schema import Catalog
from tests.unit.planner.world import LONE, SHOP, context

PLAIN = SqlModes()
SPACE: SpaceKey = ("shop", PLAIN, None)
POINT = Plan(
    StatementKind.SELECT, Opcode.EQUAL_UNIQUE, Rung.ONE_SHARD, "one key", read=True, point=True, key_index=0,
    groups=(Group(("users",), SHOP, KeyIn((Value(0),))),),
)  # fmt: skip


def planner(sql: bytes, context: PlanContext) -> Plan:
    """A plan that tells what it was made of."""
    names = ",".join(sorted(context.snapshot.keyspaces))
    return Plan(StatementKind.SELECT, Opcode.NONE, Rung.ONE_SHARD, f"{sql!r} {context.schema} {context.modes} {names}")


def cache(limit: int = 10) -> PlanCache:
    return PlanCache(context(), limit, slots=2)


def kept(plans: PlanCache) -> dict[tuple[SpaceKey, bytes], CachedPlan]:
    return {(key, digest): entry for key, space in plans._spaces.items() for digest, entry in space.items()}


KEYS: list[SpaceKey] = [(schema, modes, None) for schema in (None, "shop") for modes in (PLAIN, SqlModes(True))]


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.binary(min_size=1, max_size=6)), max_size=60),
    st.integers(1, 8),
)
@settings(max_examples=60)
def test_the_number_of_plans_is_limited_and_the_newest_is_there(
    asked: list[tuple[SpaceKey, bytes]], limit: int
) -> None:
    plans = cache(limit)
    for key, digest in asked:
        entry = plans.plan(planner, key, digest, digest)
        assert plans.space(key)[digest] is entry
        assert 1 <= len(plans) == len(kept(plans)) <= limit
        assert plans._bytes == sum(len(digest) for _, digest in kept(plans))
    for (key, digest), entry in kept(plans).items():
        assert entry.plan.reason.startswith(f"{digest!r} {key[0]} {key[1]} ")
    assert plans.misses == len(asked)


def test_the_bytes_of_digests_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MAX_BYTES", 1000)
    plans = cache(limit=10_000)
    for i in range(50):
        plans.plan(planner, SPACE, b"%02d" % i * 75, b"")
        assert plans._bytes == 150 * len(plans) <= 1000
    assert b"49" * 75 in plans.space(SPACE) and b"00" * 75 not in plans.space(SPACE)


def test_the_oldest_of_the_largest_space_goes_first() -> None:
    plans = cache(limit=12)
    small: SpaceKey = (None, PLAIN, None)
    plans.plan(planner, small, b"old", b"")
    for i in range(15):
        plans.plan(planner, SPACE, b"%d" % i, b"")
    assert b"old" in plans.space(small)
    assert [b"%d" % i in plans.space(SPACE) for i in range(15)] == [False] * 4 + [True] * 11


def test_a_digest_that_is_too_long_is_planned_each_time() -> None:
    plans = cache()
    long = b"x" * (MAX_DIGEST + 1)
    assert plans.plan(planner, SPACE, long, long) is not plans.plan(planner, SPACE, long, long)
    assert len(plans) == 0 and plans.misses == 2
    plans.plan(planner, SPACE, long[1:], b"")
    assert len(plans) == 1


def test_a_text_that_does_not_parse_is_not_kept() -> None:
    def failing(code: int) -> Plan:
        return Plan(StatementKind.OTHER, Opcode.NONE, Rung.ERROR, "no", error="no", error_code=code)

    plans = cache()
    assert plans.plan(lambda sql, context: failing(1064), SPACE, b"a", b"a").plan.error_code == 1064
    assert len(plans) == 0
    plans.plan(lambda sql, context: failing(9100), SPACE, b"a", b"a")
    assert len(plans) == 1


def test_a_new_map_empties_the_spaces_that_clients_hold() -> None:
    plans = cache()
    held = plans.space(SPACE)
    old = plans.plan(planner, SPACE, b"a", b"a")
    old.series[1] += 5
    assert held == {b"a": old}
    newer = context("blog")
    lone = replace(newer, snapshot=replace(newer.snapshot, epoch=2, keyspaces={"lone": LONE}))
    version = plans.version
    plans.renew(lone, slots=4)
    assert held == {} and len(plans) == 0 and plans._bytes == 0
    assert plans.version == version + 1
    assert plans.space(SPACE) is held
    entry = plans.plan(planner, SPACE, b"a", b"a")
    assert entry.plan.reason.endswith(" lone")
    assert entry.series == [0, 5, 0, 0], "what was counted stays, with room for the new servers"
    assert entry.series is old.series
    plans.renew(lone, slots=1)
    assert len(entry.series) == 4


def test_plans_that_hold_under_the_new_map_are_not_made_again() -> None:
    plans = cache()
    held = plans.space(SPACE)
    for digest in (b"SELECT * FROM users WHERE uid = ?", b"SELECT * FROM users"):
        plans.plan(plan_statement, SPACE, digest, digest)
    point = held[b"SELECT * FROM users WHERE uid = ?"]
    size = plans._bytes
    wider = replace(SHOP, map=RangeMap([KeyRange(0, 300, 0), KeyRange(300, 2000, 1)]))

    def newer(epoch: int, shop: Keyspace) -> PlanContext:
        now = plans.context
        keyspaces = {**now.snapshot.keyspaces, "shop": shop}
        return replace(now, snapshot=replace(now.snapshot, epoch=epoch, keyspaces=keyspaces))

    plans.renew(newer(2, SHOP), slots=2)
    plans.renew(newer(3, wider), slots=2)  # the plans are two maps older when they are wanted
    assert held == {}, "a client must not find a plan of an older map"
    assert (len(plans), plans._bytes) == (2, size)
    found = plans.plan(no_planner, SPACE, b"SELECT * FROM users WHERE uid = ?", b"")
    assert held == {b"SELECT * FROM users WHERE uid = ?": found}
    assert found.plan.groups[0].keyspace is wider and found.lookup == wider.map.lookup
    assert found.series is point.series and found.latencies is point.latencies
    assert (len(plans), plans._bytes, plans.misses) == (2, size, 2)

    more = replace(wider, shards=(0, 1, 2))
    plans.renew(newer(4, more), slots=2)  # a shard has joined: only statements by one key stay as they are
    assert (len(plans), plans._bytes) == (1, len(b"SELECT * FROM users WHERE uid = ?"))
    assert plans.plan(no_planner, SPACE, b"SELECT * FROM users WHERE uid = ?", b"").plan.keyspace is more
    assert plans.plan(plan_statement, SPACE, b"SELECT * FROM users", b"SELECT * FROM users").plan.keyspace is more

    plans.renew(replace(plans.context, catalog=Catalog({})), slots=2)
    assert (len(plans), plans._bytes) == (0, 0)


def no_planner(sql: bytes, context: PlanContext) -> Plan:
    raise AssertionError("planned again")


def test_plans_put_aside_make_room_too() -> None:
    plans = cache(limit=3)
    for digest in (b"a", b"b", b"c"):
        plans.plan(planner, SPACE, digest, digest)
    plans.renew(replace(plans.context, snapshot=replace(plans.context.snapshot, epoch=2)), slots=2)
    for digest in (b"d", b"e"):
        plans.plan(planner, SPACE, digest, digest)
    assert len(plans) == 3 and plans._bytes == 3
    assert [d for earlier in plans._earlier.values() for d in earlier] == [b"c"]


def test_a_user_sees_the_allowed_keyspaces_only() -> None:
    plans = cache()
    seen = plans.plan(planner, ("shop", PLAIN, frozenset({"shop", "nowhere"})), b"a", b"a")
    assert seen.plan.reason.endswith(" shop")
    assert plans.plan(planner, ("shop", PLAIN, frozenset()), b"a", b"a").plan.reason.endswith(" ")
    assert plans.plan(planner, SPACE, b"a", b"a").plan.reason.endswith(" blog,files,lone,shop")
    assert len(plans) == 3


def test_too_many_spaces_forget_the_plans_but_stay_the_ones_that_clients_hold() -> None:
    plans = cache(limit=1000)
    first = plans.space(("s0", PLAIN, None))
    for i in range(100):
        plans.plan(planner, (f"s{i}", PLAIN, None), b"a", b"a")
        assert len(plans) == len(kept(plans)) <= 65
    assert plans.space(("s0", PLAIN, None)) is first


def test_hits_are_the_statements_routed_without_planning() -> None:
    plans = cache()
    entry = plans.plan(planner, SPACE, b"a", b"a")
    assert plans.hits == 0
    entry.series[0] += 3
    entry.series[1] += 2
    assert plans.hits == 4


def test_plans_of_one_kind_and_opcode_are_counted_together() -> None:
    plans = cache()
    one, other = (plans.plan(planner, SPACE, digest, b"") for digest in (b"a", b"b"))
    point = plans.plan(lambda sql, context: POINT, SPACE, b"c", b"")
    assert one.series is other.series is not point.series
    assert one.latencies is other.latencies is not point.latencies


# ── what the hot path reads ──


def laid_flat(plan: Plan) -> CachedPlan:
    return CachedPlan(plan, [], [])


def test_a_point_read_has_a_short_cut() -> None:
    flat = laid_flat(POINT)
    assert (flat.key_index, flat.read, flat.point) == (0, True, True)
    assert flat.lookup is not None and flat.lookup(1500) == 1


@pytest.mark.parametrize(
    "plan",
    [
        replace(POINT, rung=Rung.MERGE),
        replace(POINT, pins=(PinReason.USER_VARIABLE,)),
        replace(POINT, carries_insert_id=True),
        replace(POINT, shard_hint="a"),
        replace(POINT, groups=()),
    ],
)
def test_no_short_cut_where_more_is_to_be_done(plan: Plan) -> None:
    assert laid_flat(plan).key_index == -1


def test_a_key_is_last_when_it_is_the_only_literal_and_ends_the_digest() -> None:
    for digest, last in ((b"id = ?", True), (b"id = ? ", False), (b"`?` = ?", False), (b"id = ? LIMIT ?", False)):
        assert CachedPlan(POINT, [], [], digest).key_last is last
    assert not CachedPlan(replace(POINT, key_index=-1), [], [], b"id = ?").key_last
    assert not laid_flat(POINT).key_last
    assert cache().plan(lambda sql, context: POINT, SPACE, b"id = ?", b"id = 5").key_last


def test_insert_ids_are_told_or_asked_for() -> None:
    for insert_id, pinned, flags in (
        (InsertId.REPORTED, False, (True, False, False)),
        (InsertId.KEPT, False, (False, False, False)),
        (InsertId.ASKED, False, (False, True, False)),
        (InsertId.ASKED, True, (False, True, True)),
    ):
        flat = laid_flat(replace(POINT, insert_id=insert_id, found_rows=pinned))
        assert (flat.reports, flat.asks, flat.asks_pinned) == flags
    assert laid_flat(replace(POINT, insert_id=InsertId.ASKED, assigns=("@a",))).asks_pinned


def test_commit_and_rollback_end_a_transaction() -> None:
    ends = [kind for kind in StatementKind if laid_flat(replace(POINT, kind=kind)).ends]
    assert set(ends) == {StatementKind.COMMIT, StatementKind.ROLLBACK}


def test_what_asks_for_the_primary_is_no_read_to_share() -> None:
    flat = laid_flat(replace(POINT, primary=True))
    assert (flat.key_index, flat.read, flat.point) == (0, False, False)


def test_writes_to_moving_keys_are_not_for_the_short_way() -> None:
    keys = MovingKeys(KeyType.INT, intervals=[(20, 30)])
    for phase in Phase:
        shop = replace(SHOP, move=Move(7, phase, 2, (Stream(0, 1, keys),)))
        reads = replace(POINT, groups=(replace(POINT.groups[0], keyspace=shop),))
        writes = replace(reads, kind=StatementKind.UPDATE, read=False, point=False)
        entry = CachedPlan(writes, [0, 0], [])
        assert entry.key_index == 0
        assert entry.lookup is not None
        assert entry.lookup(5) == SHOP.map.lookup(5)
        if phase in (Phase.ARMED, Phase.CLOSING, Phase.SWITCHED):
            with pytest.raises(LookupError):
                entry.lookup(25)
        else:
            assert entry.lookup == SHOP.map.lookup
        assert CachedPlan(reads, [0, 0], []).lookup == SHOP.map.lookup
    assert CachedPlan(replace(POINT, read=False), [0, 0], []).lookup == SHOP.map.lookup
