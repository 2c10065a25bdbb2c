"""A plan that is put onto another map is the plan that would be made under it: for every golden statement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.planner.context import PlanContext
from shardproxy.planner.plan import Plan
from shardproxy.planner.rebase import alike, by_key, grown, rebased
from shardproxy.planner.statement import plan_statement
from shardproxy.topology.keys import BUCKETS, KeyType
from shardproxy.topology.maps import BucketMap, KeyRange, RangeMap
from shardproxy.topology.model import Snapshot
from shardproxy.topology.moves import Phase
from tests.plans.test_golden_plans import FILES, read_golden
from tests.unit.planner.moving_world import moving_context
from tests.unit.planner.world import context

PHASES = (Phase.COPYING, Phase.CLOSING, Phase.SWITCHED, Phase.OPEN)
STATEMENTS = [(line, world) for file in FILES for line, world in read_golden(file.read_text()) if world is not None]


def under(world: PlanContext, snapshot: Snapshot) -> PlanContext:
    return replace(world, snapshot=snapshot)


@pytest.mark.parametrize("phases", [(PHASES[i], PHASES[(i + 1) % 4]) for i in range(4)], ids=str)
def test_every_golden_plan_is_the_same_whether_it_is_rebased_or_made_anew(phases: tuple[Phase, Phase]) -> None:
    before, after = (moving_context(phase=phase).snapshot for phase in phases)
    assert alike(before, after)
    for line, world in STATEMENTS:
        old = plan_statement(line.encode(), under(world, before))
        assert rebased(old, after.keyspaces) == plan_statement(line.encode(), under(world, after)), line


def test_nothing_of_the_earlier_map_is_left() -> None:
    before, after = moving_context(phase=Phase.CLOSING).snapshot, moving_context(phase=Phase.SWITCHED).snapshot
    shop = after.keyspaces["shop"]
    plan = plan_statement(b"SELECT * FROM users WHERE uid IN (1, 2)", under(context(), before))
    found = rebased(plan, after.keyspaces)
    assert found is not None and found.groups[0].keyspace is shop and found.text is not None
    assert plan.text is not None and plan.text.differs_on(1) and not plan.text.differs_on(0)
    assert found.text.differs_on(0) and not found.text.differs_on(1)


def with_one_more(snapshot: Snapshot) -> Snapshot:
    """Shard c has joined all keyspaces of several shards."""
    keyspaces = {
        name: replace(keyspace, shards=(0, 1, 2)) if len(keyspace.shards) > 1 else keyspace
        for name, keyspace in snapshot.keyspaces.items()
    }
    return replace(snapshot, keyspaces=keyspaces)


def test_when_shards_have_joined_plans_by_one_key_are_the_same() -> None:
    before = moving_context(phase=Phase.CLOSING).snapshot
    after = with_one_more(moving_context(phase=Phase.SWITCHED).snapshot)
    assert grown(before, after) and not alike(before, after)
    kept = 0
    for line, world in STATEMENTS:
        old = plan_statement(line.encode(), under(world, before))
        if by_key(old, before):
            kept += 1
            assert rebased(old, after.keyspaces) == plan_statement(line.encode(), under(world, after)), line
    assert kept > 50


def test_statements_with_reference_tables_do_not_go_by_their_key_alone() -> None:
    def planned(sql: bytes) -> Plan:
        return plan_statement(sql, context())

    snapshot = context().snapshot
    assert by_key(planned(b"SELECT * FROM users WHERE uid = 1"), snapshot)
    assert by_key(planned(b"UPDATE users SET name = 'x' WHERE uid = 1"), snapshot)
    assert not by_key(planned(b"SELECT * FROM users, countries WHERE uid = 1"), snapshot)
    assert not by_key(planned(b"SELECT * FROM users"), snapshot)
    assert not by_key(planned(b"SELECT * FROM users WHERE uid IN (1, 2)"), snapshot)
    assert not by_key(planned(b"SELECT * FROM nothing WHERE uid = 1"), snapshot)


def test_what_a_plan_may_follow_from_makes_maps_different() -> None:
    snapshot = moving_context(phase=Phase.COPYING).snapshot
    shop = snapshot.keyspaces["shop"]
    assert shop.move is not None
    others = (
        replace(shop, move=None),  # texts hide nothing
        replace(shop, tables={name: table for name, table in shop.tables.items() if name != "jobs"}),
        replace(shop, key_type=KeyType.BINARY),
        replace(shop, first=1),
        replace(shop, map=BucketMap([0] * BUCKETS)),
        replace(shop, shards=(0,)),
    )
    for other in others:
        changed = replace(snapshot, keyspaces={**snapshot.keyspaces, "shop": other})
        assert not alike(snapshot, changed) and not alike(changed, snapshot), other
        assert not grown(snapshot, changed) and not grown(changed, snapshot), other
    fewer = replace(snapshot, keyspaces={name: k for name, k in snapshot.keyspaces.items() if name != "lone"})
    assert not alike(snapshot, fewer) and not grown(snapshot, fewer) and not alike(fewer, snapshot)
    assert not alike(snapshot, replace(snapshot, shards=snapshot.shards[:2]))
    lone = snapshot.keyspaces["lone"]
    gaps = replace(lone, map=RangeMap([KeyRange(5, 10, lone.shards[0])]))  # not every key is there any more
    assert not alike(snapshot, replace(snapshot, keyspaces={**snapshot.keyspaces, "lone": gaps}))
    owners = replace(shop, map=RangeMap([KeyRange(0, 500, 1), KeyRange(500, 2000, 0)]))
    assert alike(snapshot, replace(snapshot, keyspaces={**snapshot.keyspaces, "shop": owners}))
